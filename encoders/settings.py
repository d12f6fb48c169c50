"""What decides the splats of an image, and the bounds of it; apart from the contract, which needs numpy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, CODECS, CodecName, ColourRange, StartName

MAX_GAUSSIANS = 100_000
MAX_STEPS = 1_000_000
MAX_ROUNDS = 10


@dataclass(frozen=True)
class FitSettings:
    """What decides the splats of an image, whatever the engine.

    Attributes:
        gaussians: K, exactly this many per image; 0 for images without a fit.
        steps: optimiser steps per image; with ``rounds``, those of the first round.
        target_psnr: stop an image at this PSNR in dB (None: never stop early).
        rounds: an image that misses ``target_psnr`` begins another round, twice as long as the last, until it has had
            so many: easy images leave their steps to hard ones, and each image is still fitted by itself.
        codec: ``additive/1``, ``normalised/1`` or ``over/1``; not every engine fits every one (encoders.engines).
        colours: ``bounded`` (each colour in [0, 1]) or ``signed``.
        start: where Gaussians begin: ``transport``, ``grid`` or ``adaptive``.
        seed: seeds the ``adaptive`` start together with the image's content.
    """

    gaussians: int
    steps: int = 400
    target_psnr: float | None = None
    rounds: int = 1
    codec: CodecName = ADDITIVE
    colours: ColourRange = "bounded"
    start: StartName = "transport"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            JobError: a value outside its range.
        """
        if not 0 <= self.gaussians <= MAX_GAUSSIANS:
            raise JobError(f"{self.gaussians} Gaussians per image", allowed=f"0 to {MAX_GAUSSIANS}")
        if not 0 <= self.steps <= MAX_STEPS:
            raise JobError(f"{self.steps} optimiser steps", allowed=f"0 to {MAX_STEPS:,}")
        if self.target_psnr is not None and not (math.isfinite(self.target_psnr) and 0 < self.target_psnr <= 120):
            raise JobError(f"a target PSNR of {self.target_psnr} dB", allowed="more than 0 and at most 120 dB")
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise JobError(f"{self.rounds} rounds", allowed=f"1 to {MAX_ROUNDS}")
        if self.rounds > 1 and self.target_psnr is None:
            raise JobError(
                f"{self.rounds} rounds for images that miss a target, and no target",
                next_step="give --target-psnr, or more --steps for every image",
            )
        if self.most_steps > MAX_STEPS:
            raise JobError(
                f"{self.rounds} rounds from {self.steps} steps are {self.most_steps:,} steps",
                allowed=f"{MAX_STEPS:,} in all",
            )
        if self.codec not in CODECS:
            raise JobError(f"codec {self.codec!r} cannot be fitted", allowed=", ".join(CODECS))
        if self.colours not in ("bounded", "signed"):
            raise JobError(f"colours {self.colours!r}", allowed="bounded, signed")
        if self.start not in ("transport", "grid", "adaptive"):
            raise JobError(f"start {self.start!r}", allowed="transport, grid, adaptive")
        if not 0 <= self.seed < 2**63:
            raise JobError(f"seed {self.seed}", allowed="0 to 2^63 - 1")

    @property
    def most_steps(self) -> int:
        """Optimiser steps of an image that goes through every round."""
        return self.steps * (2**self.rounds - 1)

    def as_dict(self) -> dict[str, Any]:
        """For the store's attributes."""
        return asdict(self)
