"""What one sampling is asked to do, and what it leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_schemas.errors import JobError
from models.diffusion.samplers import steps_of
from pipeline.render import LARGEST_SIDE
from pipeline.whole_numbers import require_seed

MOST_SAMPLES = 1_000_000

StoreSuffix = Literal[".zarr", ".h5"]


@dataclass(frozen=True)
class KnownPart:
    """A stored image of which a part is kept.

    Attributes:
        store: path or URL.
        image: row or name.
        box: (left, top, right, bottom) in pixels of the stored image, drawn anew; None where colours are.
    """

    store: str
    image: str
    box: tuple[float, float, float, float] | None = None

    @property
    def recolours(self) -> bool:
        """Whether the geometry is kept and the colours are drawn anew."""
        return self.box is None


@dataclass(frozen=True)
class SampleJob:
    """What to sample.

    Attributes:
        out: folder of the pictures, the grid and the store.
        number: images.
        evaluations: of the network per image; None takes the objective's.
        sampler: by name; None takes the objective's.
        size: pixels of the longer side; None takes the size of the training images.
        label: a label by name or number, ``all`` or ``none``; None is ``all`` where the model knows labels.
        guidance: 1 for none; more follows the label more closely.
        seed: image i follows from it, from i and from its label.
        batch: images at once; the result does not depend on it up to rounding.
        known: a part of a stored image that is kept.
        sketch: a picture to begin with instead of pure noise; of generators of pixels.
        signal: share of the sketch in what sampling begins with.
        anatomy: write pictures of how a patch model makes its images.
        interpolate: two of the images, between which pictures are made.
        gif: write the way from data to noise and back.
        suffix: format of the store.
        splats: fit Gaussians to what a generator of pixels draws.
        gaussians: K of the fit; None takes that of the store that was learnt from.
        steps: of the fit's optimiser; None takes those of that store.

    Raises:
        JobError: a number outside its range, or options that exclude each other.
    """

    out: Path
    number: int = 64
    evaluations: int | None = None
    sampler: str | None = None
    size: int | None = None
    label: str | None = None
    guidance: float = 1.0
    seed: int = 0
    batch: int = 64
    known: KnownPart | None = None
    sketch: Path | None = None
    signal: float = 0.25
    anatomy: bool = False
    interpolate: tuple[int, int] | None = None
    gif: bool = False
    suffix: StoreSuffix = ".zarr"
    splats: bool = False
    gaussians: int | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked without the model."""
        # Programs without a type checker give text.
        object.__setattr__(self, "out", Path(self.out))
        if not 1 <= self.number <= MOST_SAMPLES:
            raise JobError(f"-n {self.number}", allowed=f"1 to {MOST_SAMPLES:,}")
        if self.batch < 1:
            raise JobError(f"--batch {self.batch}", allowed="1 or more")
        require_seed(self.seed)
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise JobError(f"--guidance {self.guidance:g}", allowed="0 or more")
        if self.size is not None and not 1 <= self.size <= LARGEST_SIDE:
            raise JobError(f"--size {self.size}", allowed=f"1 to {LARGEST_SIDE} pixels")
        if not 0 <= self.signal < 1:
            raise JobError(f"--signal {self.signal:g}", allowed="0 up to below 1")
        if self.sketch is not None and self.known is not None:
            raise JobError("--sketch with a stored image of which a part is kept", allowed="one of them")
        if self.sampler is not None:
            steps_of(self.sampler, 1)
        if self.evaluations is not None:
            steps_of(self.sampler or "euler", self.evaluations)
        for image in self.interpolate or ():
            if not 0 <= image < self.number:
                raise JobError(f"--interpolate with image {image}", allowed=f"0 to {self.number - 1}")
        require_fit_options(splats=self.splats, gaussians=self.gaussians, steps=self.steps)
        box = None if self.known is None else self.known.box
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise JobError(f"--box {','.join(f'{side:g}' for side in box)}", allowed="left < right and top < bottom")


def require_fit_options(*, splats: bool, gaussians: int | None, steps: int | None) -> None:
    """Checks the options of a fit of samples; their upper bounds are those of the engine.

    Raises:
        JobError: a number outside its range, or options of a fit without one.
    """
    for name, number, least in (("gaussians", gaussians, 1), ("steps", steps, 0)):
        if number is None:
            continue
        if not splats:
            raise JobError(f"--{name} {number} without --splats", allowed="both", next_step="add --splats")
        if number < least:
            raise JobError(f"--{name} {number}", allowed=f"{least} or more")


@dataclass(frozen=True)
class FitFigures:
    """How samples of pixels became splats.

    Attributes:
        gaussians: K.
        steps: of the optimiser, at most.
        engine: that fitted.
        psnr: of the decoded splats against the sampled pixels, of the mean error, in dB; None where all are lossless.
        seconds: wall time inside the engine; sampling went on meanwhile.
        core_seconds: processor time of the engine.
        failed: images without splats.
    """

    gaussians: int
    steps: int
    engine: str
    psnr: float | None
    seconds: float
    core_seconds: float
    failed: tuple[int, ...]


@dataclass(frozen=True)
class SampleResult:
    """What a sampling left.

    Attributes:
        pictures: PNGs in order of the images.
        grid: all pictures in one.
        store: splats of the images; None for pixel models whose samples were not fitted.
        gifs: animations.
        strip: pictures between two images, if they were asked for.
        labels: of each image, -1 for none.
        seconds: wall time of sampling, fit and rendering left out.
        notes: what a user should know.
        anatomy: pictures of how a patch model makes its images, if they were asked for.
        pixels: what the generator drew, in one picture, where splats were fitted to it.
        fit: how they were.
    """

    pictures: tuple[Path, ...]
    grid: Path
    store: Path | None
    gifs: tuple[Path, ...]
    strip: Path | None
    labels: tuple[int, ...]
    seconds: float
    notes: tuple[str, ...]
    anatomy: tuple[Path, ...] = ()
    pixels: Path | None = None
    fit: FitFigures | None = None
