"""What one sampling is asked to do, and what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from data_schemas.errors import JobError
from encoders.settings import MAX_GAUSSIANS, MAX_STEPS
from models.names import MOST_EVALUATIONS, SamplerName
from pipeline.image_limits import LARGEST_SIDE
from pipeline.options import Internal, Option, require_declared

MOST_SAMPLES = 1_000_000

StoreSuffix = Literal[".zarr", ".h5"]

FitGaussians = Annotated[
    int | None,
    Field(ge=1, le=MAX_GAUSSIANS, description="With --splats: Gaussians per image."),
    Option(flags=("--gaussians", "-k"), default="as in the store that was learned from"),
]
"""Of a fit of samples; None takes that of the store."""

FitSteps = Annotated[
    int | None,
    Field(ge=0, le=MAX_STEPS, description="With --splats: optimiser steps of the fit."),
    Option(default="as in that store"),
]
"""The same."""


@dataclass(frozen=True)
class KnownPart:
    """A stored image of which a part is kept.

    Attributes:
        store: path or URL.
        image: row or name.
        box: (left, top, right, bottom) in pixels of the stored image, drawn again; None where colours are.
    """

    store: str
    image: str
    box: tuple[float, float, float, float] | None = None

    @property
    def recolours(self) -> bool:
        """Whether the geometry is kept and the colours are drawn again."""
        return self.box is None


@dataclass(frozen=True)
class SampleJob:
    """What to sample: each field describes itself.

    Raises:
        JobError: a value outside its range, or options that exclude each other.
    """

    out: Annotated[
        Path,
        Field(description="New folder for the PNGs, grid.png and samples.zarr."),
        Option(flags=("--out", "-o")),
    ]
    number: Annotated[
        int, Field(ge=1, le=MOST_SAMPLES, description="Number of images."), Option(flags=("--number", "-n"))
    ] = 64
    evaluations: Annotated[
        int | None,
        Field(ge=1, le=MOST_EVALUATIONS, description="Number of function evaluations (NFE) per image."),
        Option(default="the objective's"),
    ] = None
    sampler: Annotated[
        SamplerName | None,
        Field(description="Sampler: dpmpp-2m, heun, euler, ddim or ancestral."),
        Option(default="the objective's"),
    ] = None
    size: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_SIDE, description="Size of the longer side in pixels."),
        Option(default="as trained"),
    ] = None
    label: Annotated[
        str | None,
        Field(description="Class by name or number, all (each equally often, the default) or none."),
        Option(),
    ] = None
    guidance: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="Strength of classifier-free guidance; 1 for none."),
        Option(),
    ] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Seed; image i follows from it and from i."), Option()] = 0
    batch: Annotated[int, Field(ge=1, description="Number of images at once."), Option()] = 64
    interpolate: Annotated[
        tuple[int, int] | None,
        Field(description="Number of images between two samples, in interpolation.png."),
        Option(given=str, metavar="I,J"),
    ] = None
    known: Annotated[KnownPart | None, Internal("--inpaint with --box, or --recolour")] = None
    sketch: Annotated[
        Path | None,
        Field(description="Init image to begin with instead of pure noise; generators of pixels only."),
        Option(),
    ] = None
    signal: Annotated[
        float, Field(ge=0, lt=1, description="Fraction of the init image in what sampling begins with."), Option()
    ] = 0.25
    anatomy: Annotated[
        bool,
        Field(description="Write visualisations of how a patch model makes images: roll-out, seams, parts."),
        Option(),
    ] = False
    splats: Annotated[
        bool,
        Field(description="Fit Gaussians to what a generator of pixels draws and write samples.zarr."),
        Option(),
    ] = False
    gaussians: FitGaussians = None
    steps: FitSteps = None
    gif: Annotated[bool, Field(description="Write forward.gif and sampling.gif of the first image."), Option()] = False
    suffix: Annotated[StoreSuffix, Internal("--hdf5")] = ".zarr"

    def __post_init__(self) -> None:
        """Checks what can be checked without the model."""
        # Programs without a type checker give text.
        object.__setattr__(self, "out", Path(self.out))
        require_declared(self, "sample")
        if self.sketch is not None and self.known is not None:
            raise JobError("--sketch with a stored image of which a part is kept", allowed="one of them")
        for image in self.interpolate or ():
            if not 0 <= image < self.number:
                raise JobError(f"--interpolate with image {image}", allowed=f"0 to {self.number - 1}")
        require_fit(splats=self.splats, gaussians=self.gaussians, steps=self.steps)
        box = None if self.known is None else self.known.box
        if box is not None and not (box[0] < box[2] and box[1] < box[3]):
            raise JobError(f"--box {','.join(f'{side:g}' for side in box)}", allowed="left < right and top < bottom")


def require_fit(*, splats: bool, gaussians: int | None, steps: int | None) -> None:
    """Refuses options of a fit of samples without one.

    Raises:
        JobError: ``gaussians`` or ``steps`` without ``splats``.
    """
    for name, number in (("gaussians", gaussians), ("steps", steps)):
        if number is not None and not splats:
            raise JobError(f"--{name} {number} without --splats", allowed="both", next_step="add --splats")


@dataclass(frozen=True)
class FitFigures:
    """How samples of pixels became splats.

    Attributes:
        gaussians: K.
        steps: of the optimiser, at most.
        engine: that fitted.
        psnr: of the decoded splats against the sampled pixels, of the mean error, in dB; None where all are lossless.
        seconds: wall time inside the engine; sampling went on meanwhile.
        core_seconds: CPU time of the engine.
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
        grid: all images in one.
        store: splats of the images; None for pixel models whose samples were not fitted.
        gifs: animations.
        strip: images between two images, if they were asked for.
        labels: of each image, -1 for none.
        seconds: wall time of sampling, fit and rendering left out.
        notes: what a user should know.
        anatomy: images of how a patch model makes its images, if they were asked for.
        pixels: what the generator drew, in one image, where splats were fitted to it.
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
