"""What one evaluation is asked to measure. Light to import: the command line makes its options from the fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from data_schemas.errors import JobError
from data_schemas.hub import is_hub_url, parse_hub_url
from models.names import MOST_EVALUATIONS, SamplerName
from pipeline.options import Internal, Option, PathText, require_declared
from pipeline.sample.job import FitGaussians, FitSteps, require_fit

FeatureName = Literal["auto", "classifier", "selfsup", "inception"]

NumberOfEvaluations = Annotated[int, Field(ge=1, le=MOST_EVALUATIONS)]


@dataclass(frozen=True)
class EvaluateJob:
    """What to measure: each field describes itself.

    Raises:
        JobError: a value outside its range, or options of a fit without one.
    """

    run: Annotated[
        Path,
        Field(description="Folder of a training, its model.safetensors, or hf://USER/NAME."),
        Option(argument=True),
    ]
    store: Annotated[
        PathText,
        Field(description="The store that it was trained on, with its source images."),
        Option(flags=("--store", "-s")),
    ]
    out: Annotated[
        Path,
        Field(description="Folder of the report."),
        Option(flags=("--out", "-o"), open=True, default="RUN/evaluation"),
    ]
    reference: Annotated[
        PathText | None,
        Field(description="Store of images that nothing learned from, to compare with."),
        Option(given=PathText, default="those of --store"),
    ] = None
    features: Annotated[
        FeatureName,
        Field(description="Features of the distances. auto: classifier where every image has a label, else selfsup."),
        Option(),
    ] = "auto"
    images: Annotated[
        int | None,
        Field(ge=1, description="Number of images of each set."),
        Option(flags=("--images", "-n"), default="1000, at most half of the store"),
    ] = None
    evaluations: Annotated[
        NumberOfEvaluations | None,
        Field(description="Number of function evaluations (NFE) per image."),
        Option(given=NumberOfEvaluations, default="the objective's"),
    ] = None
    sweep: Annotated[
        tuple[NumberOfEvaluations, ...] | None,
        Field(description="Further NFE to measure, as 5,10,50."),
        Option(given=Annotated[str, Field(pattern=r"^\d+(,\d+)*$")], default="a quarter and a half of the first"),
    ] = None
    sampler: Annotated[
        SamplerName | None,
        Field(description="Sampler: dpmpp-2m, heun, euler, ddim or ancestral."),
        Option(default="the objective's"),
    ] = None
    guidance: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="Strength of classifier-free guidance; 1 for none."),
        Option(),
    ] = 1.0
    splats: Annotated[
        bool,
        Field(description="Also fit Gaussians to what a generator of pixels draws and measure them."),
        Option(),
    ] = False
    gaussians: FitGaussians = None
    steps: FitSteps = None
    weights: Annotated[
        Path | None,
        Field(description="File or folder of the Inception network's weights."),
        Option(default="$SPLATSPACE_INCEPTION_WEIGHTS, else a download"),
    ] = None
    against: Annotated[
        tuple[Path, ...],
        Field(description="Evaluation of another generator (folder or JSON) for one table; may be repeated."),
        Option(given=list[Path], parameter=PathText, open=True),
    ] = ()
    ablation: Annotated[
        Path | None,
        Field(description="Folder of splatspace ablate: its table and plot go into the page."),
        Option(),
    ] = None
    batch: Annotated[int, Field(ge=1, description="Number of images at once."), Option()] = 64
    seed: Annotated[
        int, Field(ge=0, lt=2**63, description="Seed of the samples and of the choice of originals."), Option()
    ] = 0
    rows: Annotated[
        int | None, Field(ge=1), Internal("an ablation with a limit: first finished rows of the store only")
    ] = None
    references: Annotated[
        int, Field(ge=1), Internal("one value for all: most originals among which nearest neighbours are searched")
    ] = 10_000

    def __post_init__(self) -> None:
        """Checks what can be checked without the run and the store."""
        require_declared(self, "evaluate")
        require_fit(splats=self.splats, gaussians=self.gaussians, steps=self.steps)


def resolve_evaluate_job(
    run: Path | str,
    store: str,
    *,
    out: Path | str | None = None,
    sweep: str | None = None,
    against: Sequence[Path] | str | None = None,
    **options: Any,
) -> EvaluateJob:
    """An evaluation as a command or a flow asks for it.

    Args:
        run: folder of the training, its ``model.safetensors``, or ``hf://USER/NAME``, which is downloaded.
        store: that it was trained on.
        out: folder of the report; None is ``evaluation`` in the run's folder.
        sweep: numbers of evaluations with commas.
        against: evaluations of other generators.
        options: other fields of ``EvaluateJob``; None means "the default".

    Raises:
        JobError: see ``EvaluateJob``, text that is no list of numbers, or a run of the hub without ``out``.
        HubError: a run of the hub that cannot be had.
    """
    from pipeline.hub.download import local_run
    from pipeline.train.state import run_folder

    if is_hub_url(run) and out is None:
        raise JobError(
            f"A report of {parse_hub_url(run).url} without --out",
            allowed="--out FOLDER",
            next_step="say where it is to be",
        )
    run = local_run(run)

    given = {name: value for name, value in options.items() if value is not None}
    for name in ("weights", "ablation"):
        if name in given:
            given[name] = Path(given[name])
    return EvaluateJob(
        run=run,
        store=store,
        out=run_folder(run) / "evaluation" if out is None else Path(out),
        sweep=None if sweep is None else _numbers(sweep),
        against=tuple(Path(place) for place in ([against] if isinstance(against, str) else against or ())),
        **given,
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise JobError(f"--sweep {text!r}", allowed="whole numbers with commas, as 5,10,50") from None
