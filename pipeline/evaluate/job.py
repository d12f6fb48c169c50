"""What one evaluation is asked to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from data_schemas.errors import JobError
from models.diffusion.samplers import SAMPLERS, steps_of
from pipeline.evaluate.features import FeatureName
from pipeline.sample.job import require_fit_options
from pipeline.whole_numbers import require_seed


@dataclass(frozen=True)
class EvaluateJob:
    """What to measure.

    Attributes:
        run: folder of the training, or its ``model.safetensors``.
        store: path or URL of the store that the generator was trained on, with source images.
        out: folder of ``evaluation.json`` and ``evaluation.html``.
        reference: path or URL of a store of images that nothing learnt from, of the same size: samples are compared
            with these. None compares with the images of ``store``. The features and the nearest originals are always
            those of ``store``.
        images: of each set; None takes 1,000, or half of the store where that is less.
        evaluations: of the network; None takes the objective's.
        sweep: further numbers of evaluations to measure; None takes a quarter and a half of ``evaluations``.
        sampler: None takes the objective's.
        guidance: 1 for none.
        features: see ``build_extractor``.
        weights: of Inception, file or folder.
        against: evaluations of other generators (``evaluation.json`` or its folder) for one table.
        ablation: ``ablation.json`` or its folder, for the page.
        rows: first finished rows of the store only; None takes all.
        references: most originals among which nearest neighbours are searched.
        splats: also fit Gaussians to what a generator of pixels draws, and measure what they show.
        gaussians: K of the fit; None takes that of the store that was learnt from.
        steps: of the fit's optimiser; None takes those of that store.
        batch: images at once.
        seed: of the samples and of the choice of originals.
    """

    run: Path
    store: str
    out: Path
    reference: str | None = None
    images: int | None = None
    evaluations: int | None = None
    sweep: tuple[int, ...] | None = None
    sampler: str | None = None
    guidance: float = 1.0
    features: FeatureName = "auto"
    weights: Path | None = None
    against: tuple[Path, ...] = ()
    ablation: Path | None = None
    rows: int | None = None
    references: int = 10_000
    splats: bool = False
    gaussians: int | None = None
    steps: int | None = None
    batch: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that cannot be meant.

        Raises:
            JobError: a number below one or too large, an unknown sampler, or options of a fit without one.
        """
        require_fit_options(splats=self.splats, gaussians=self.gaussians, steps=self.steps)
        counts = {"images": self.images, "rows": self.rows, "evaluations": self.evaluations, "batch": self.batch}
        counts |= {"references": self.references} | {f"sweep {number}": number for number in self.sweep or ()}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise JobError(f"{name} = {count}", allowed="1 or more")
        require_seed(self.seed)
        if not (math.isfinite(self.guidance) and self.guidance >= 0):
            raise JobError(f"--guidance {self.guidance:g}", allowed="0 or more")
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise JobError(f"Sampler {self.sampler!r}", allowed=", ".join(SAMPLERS))
        for number in (self.evaluations, *(self.sweep or ())):
            if number is not None:
                steps_of(self.sampler or "euler", number)
