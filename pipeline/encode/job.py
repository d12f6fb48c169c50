"""What one run of the encoder is asked to do, resolved from the presets and the user's options.

Light to import: the command line makes its options from the fields.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.errors import JobError
from data_schemas.locations import LocationField, location
from data_schemas.splats import ADDITIVE, NORMALISED, OVER, CodecName, ColourRange, SplatDtype, StartName
from encoders.settings import MAX_GAUSSIANS, MAX_ROUNDS, MAX_STEPS, FitSettings
from pipeline.encode.presets import PRESETS, EngineName, RefineName, Split, gaussians_for, preset_for
from pipeline.image_limits import BACKGROUND_PATTERN, BLACK, MOST_SIZE
from pipeline.options import Internal, Option, PathText, job_error

if TYPE_CHECKING:
    from upath import UPath

logger = logging.getLogger("splatspace.encode")


LOCAL, DASK = "local", "dask"

_SCHEDULER = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")

_ALLOWED = "local, dask, or tcp://HOST:PORT (tls://HOST:PORT) of a Dask scheduler"


def check_compute(compute: str, store: str | os.PathLike[str] | UPath) -> str:
    """Checks where a run is to be computed.

    Args:
        compute: ``local`` (this process), ``dask`` (worker processes on this machine, started for the run), or the
            address of a Dask scheduler that is there.
        store: the store that is to be written.

    Returns:
        ``compute``.

    Raises:
        JobError: an unknown word, or an HDF5 store, which has one writer, with Dask.
    """
    if compute == LOCAL:
        return compute
    scheduler = _SCHEDULER.fullmatch(compute)
    if compute != DASK and (scheduler is None or not 0 < int(scheduler[3]) < 2**16):
        raise JobError(f"--compute {compute!r}", allowed=_ALLOWED, next_step="give --compute dask")
    name = str(store)
    if not name.rstrip("/").lower().endswith(".zarr"):
        raise JobError(
            f"--compute {compute} with the store {name}: an HDF5 store has one writer",
            allowed="a store that ends in .zarr, or --compute local",
            next_step="give --out NAME.zarr; splatspace convert makes an HDF5 store of it afterwards",
        )
    return compute


STORE_SUFFIXES = (".zarr", ".h5", ".hdf5")
CODEC_NAMES: dict[str, CodecName] = {
    "additive": ADDITIVE,
    "normalised": NORMALISED,
    ADDITIVE: ADDITIVE,
    "over": OVER,
    NORMALISED: NORMALISED,
    OVER: OVER,
}
"""What a user may type for a codec, short or with its version."""


class EncodeJob(BaseModel):
    """Everything that one run needs; frozen, picklable and printable as JSON.

    ``gaussians`` is None only for a path whose image size is not known yet; ``fit_settings`` fills it in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: Annotated[
        str,
        Field(
            min_length=1,
            description="mnist, sprites, sprites64, cifar10, cats, demo, or a folder, .zip, .npz or .npy.",
        ),
        Option(argument=True, given=PathText),
    ]
    out: Annotated[
        LocationField,
        Field(description="The store: NAME.zarr, NAME.h5 or s3://BUCKET/NAME.zarr."),
        Option(flags=("--out", "-o"), given=PathText),
    ]
    data_dir: Annotated[
        Path | None, Field(description="Folder with the data set's files; nothing is fetched."), Option()
    ] = None
    split: Annotated[
        Split, Field(description="Split of the set."), Option(open=True, default="see splatspace presets")
    ] = "all"
    size: Annotated[
        int | None, Field(ge=1, le=MOST_SIZE, description="Resize images to N pixels a side."), Option()
    ] = None
    background: Annotated[
        str,
        Field(pattern=BACKGROUND_PATTERN, description="What transparent images are laid over: black, white, #rrggbb."),
        Option(open=True, default="black", given=str, metavar="COLOUR"),
    ] = BLACK
    limit: Annotated[int | None, Field(ge=1, description="Encode the first N images only."), Option()] = None
    gaussians: Annotated[
        int | None,
        Field(ge=0, le=MAX_GAUSSIANS, description="Gaussians per image (K); 0 stores the images only."),
        Option(flags=("--gaussians", "-k"), open=True, default="by set or size"),
    ] = None
    steps: Annotated[
        int,
        Field(ge=0, le=MAX_STEPS, description="Maximum of optimiser steps per image, in the first round."),
        Option(open=True),
    ] = 400
    target_psnr: Annotated[
        float | None, Field(gt=0, le=120, description="Stop the fit of an image at this PSNR in dB."), Option()
    ] = None
    rounds: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_ROUNDS,
            description="Number of rounds: an image that misses the target continues, each round twice as long.",
        ),
        Option(open=True),
    ] = 1
    colours: Annotated[
        ColourRange,
        Field(description="Range of colours: in [0, 1], or of any sign."),
        Option(flags=("--colours", "--colors"), open=True),
    ] = "bounded"
    start: Annotated[StartName, Field(description="Initialisation of the Gaussians."), Option(open=True)] = "transport"
    refine: Annotated[
        RefineName,
        Field(
            description="regressed: fit twice, the second time from an initialisation predicted by the pixels; "
            "for generators."
        ),
        Option(),
    ] = "none"
    regression: Annotated[LocationField | None, Internal("the run, with the file of the regression")] = None
    codec: Annotated[
        CodecName,
        Field(description="How Gaussians make an image: a sum, a weighted mean, or one over the other."),
        Option(open=True, default="additive", given=Literal["additive", "normalised", "over"]),
    ] = ADDITIVE
    dtype: Annotated[SplatDtype, Field(description="Type of the stored numbers."), Option(open=True)] = "float16"
    engine: Annotated[
        EngineName,
        Field(
            description="Engine that fits; auto: the fastest that runs here; gsplat: codec over, on a GPU; "
            "reference: every codec, slow."
        ),
        Option(),
    ] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Seed of the adaptive initialisation."), Option()] = 0
    workers: Annotated[
        int,
        Field(ge=1, le=4096, description="Number of threads, or of processes with --compute dask."),
        Option(open=True, default="one per CPU", envvar="SPLATSPACE_WORKERS"),
    ] = 1
    compute: Annotated[
        str,
        Field(
            pattern=r"^(local|dask|(tcp|tls)://\S+:[0-9]+)$",
            description="local; dask: worker processes of this machine; tcp://HOST:PORT: those of a Dask scheduler.",
        ),
        Option(envvar="SPLATSPACE_COMPUTE"),
    ] = "local"
    images: Annotated[
        bool,
        Field(description="Keep the source pixels in the store."),
        Option(no_parameter="generators and reports of flows need the pixels"),
    ] = True
    block_rows: Annotated[
        int | None,
        Field(ge=1, le=1_000_000, description="Number of rows written together (one zarr shard)."),
        Option(default="by number of images", no_parameter="images_per_task decides how a flow divides its work"),
    ] = None
    overwrite: Annotated[
        bool,
        Field(description="Replace an existing store."),
        Option(no_parameter="a run by schedule or retry must not replace a store"),
    ] = False
    versions: Annotated[
        bool,
        Field(description="With other settings than the store's, write NAME.v2.zarr and so on beside it."),
        Option(),
    ] = False
    download: Annotated[bool, Internal("the plan of --dry-run, which fetches nothing")] = True

    def fit_settings(self, height: int, width: int) -> FitSettings:
        """What the engine needs to know, for images of this size."""
        return FitSettings(
            gaussians=gaussians_for(height, width) if self.gaussians is None else self.gaussians,
            steps=self.steps,
            target_psnr=self.target_psnr,
            rounds=self.rounds,
            codec=self.codec,
            colours=self.colours,
            start=self.start,
            seed=self.seed,
        )


def available_workers() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_job(dataset: str, out: str | os.PathLike[str] | UPath, **options: Any) -> EncodeJob:
    """Fills what the user left open from the preset and checks the whole.

    Args:
        dataset: a preset of ``pipeline.encode.presets`` or a path.
        out: the store; its suffix decides the format. A URL such as ``s3://BUCKET/NAME.zarr`` is on object storage.
        options: fields of ``EncodeJob``; None means "as the preset says". ``codec`` may be short
            (``additive``), ``background`` a name (``white``).

    Raises:
        JobError: a value outside its range, an unknown option, a suffix that is no store, or options that
            exclude each other.
        StoreError: a URL that cannot be used.
    """
    given = {key: value for key, value in options.items() if value is not None}
    preset = preset_for(dataset)
    path = location(out)
    if path.suffix.lower() not in STORE_SUFFIXES or not path.stem:
        raise JobError(
            f"A store named {str(out)!r}",
            allowed="a path that ends in " + ", ".join(STORE_SUFFIXES),
            next_step="give --out NAME.zarr or --out NAME.h5",
        )
    if not isinstance(path, Path) and path.suffix.lower() != ".zarr":
        raise JobError(
            f"The HDF5 store {path} on object storage",
            allowed="a URL that ends in .zarr",
            next_step=f"give --out {path.with_suffix('.zarr')}",
        )
    if "codec" in given:
        given["codec"] = _codec(str(given["codec"]))
    if "background" in given:
        from pipeline.sources.decoding.background import background_name

        given["background"] = background_name(str(given["background"]))
    if "data_dir" in given and dataset not in PRESETS:
        raise JobError(
            f"--data-dir together with the path {dataset!r}",
            allowed="--data-dir for a named data set (" + ", ".join(PRESETS) + ")",
            next_step="give the path alone",
        )
    if dataset in PRESETS and "data_dir" not in given and Path(dataset).is_dir():
        logger.warning(
            "%s is taken for the named data set; for the folder of that name that is here give ./%s", dataset, dataset
        )
    check_compute(str(given.get("compute", LOCAL)), path)
    if given.get("versions") and given.get("overwrite"):
        raise JobError("--versions together with --overwrite", allowed="one of them", next_step="leave one out")
    defaults: dict[str, Any] = {
        "split": preset.split,
        "gaussians": preset.gaussians or None,
        "steps": preset.steps,
        "codec": preset.codec,
        "start": preset.start,
        "colours": preset.colours,
        "dtype": preset.dtype,
        "workers": available_workers(),
    }
    try:
        job = EncodeJob(dataset=dataset, out=path, **{**defaults, **given})
    except ValidationError as error:
        raise job_error(error, "encode") from None
    if job.gaussians == 0 and not job.images:
        raise JobError("--gaussians 0 with --no-images", allowed="one of them", next_step="leave --no-images out")
    # What only holds together, such as rounds and a target, is checked before anything is fetched or opened.
    job.fit_settings(1, 1)
    return job if job.refine == "none" else _check_refinement(job)


def _check_refinement(job: EncodeJob) -> EncodeJob:
    """Checks what a second fit asks for, and names the one engine that begins where it is told.

    Raises:
        JobError: another engine, codec or start.
    """
    for option, got, allowed in (
        ("--engine", job.engine, ("auto", "cpu")),
        ("--codec", job.codec, (ADDITIVE, NORMALISED)),
        ("--start", job.start, ("transport", "grid")),
    ):
        if got not in allowed:
            raise JobError(
                f"--refine {job.refine} with {option} {got}",
                allowed=f"{option} " + " or ".join(allowed),
                next_step="leave one of them out",
            )
    return job.model_copy(update={"engine": "cpu"})


def _codec(name: str) -> CodecName:
    if name not in CODEC_NAMES:
        raise JobError(f"Codec {name!r}", allowed="additive, normalised, over", next_step="give --codec additive")
    return CODEC_NAMES[name]
