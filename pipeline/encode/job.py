"""What one run of the encoder is asked to do, resolved from the presets and the user's options.

What pydantic finds wrong is said in the words of the command line.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from data_schemas.errors import JobError
from data_schemas.locations import LocationField, location
from data_schemas.splats import ADDITIVE, NORMALISED, OVER, CodecName, ColourRange, SplatDtype, StartName
from encoders.base import MAX_GAUSSIANS, MAX_ROUNDS, MAX_STEPS, FitSettings
from pipeline.encode.presets import PRESETS, EngineName, RefineName, Split, gaussians_for, preset_for
from pipeline.sources.decoding.background import BACKGROUND_PATTERN, BLACK, background_name

logger = logging.getLogger("splatspace.encode")


def job_error(error: ValidationError, command: str) -> JobError:
    """The first thing that is wrong, as an option, what it may be, and where to read on.

    Args:
        error: of a job's model.
        command: of ``splatspace`` that makes such jobs.
    """
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else "job"
    return JobError(
        f"--{field.replace('_', '-')} {first.get('input')!r}",
        allowed=first["msg"].removeprefix("Input should be "),
        next_step=f"see splatspace {command} --help",
    )


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

    dataset: str = Field(min_length=1, description="a preset or a path")
    out: LocationField = Field(description="the store, .zarr or .h5, or the URL of a .zarr")
    data_dir: Path | None = Field(default=None, description="folder that holds the data set's files")
    split: Split = "all"
    size: int | None = Field(default=None, ge=1, le=16384, description="resize to this many pixels a side")
    background: str = Field(
        default=BLACK, pattern=BACKGROUND_PATTERN, description="what transparent images are laid over, #rrggbb"
    )
    limit: int | None = Field(default=None, ge=1, description="first images of the source only")
    gaussians: int | None = Field(default=None, ge=0, le=MAX_GAUSSIANS, description="K; 0: the images only")
    steps: int = Field(default=400, ge=0, le=MAX_STEPS)
    target_psnr: float | None = Field(default=None, gt=0, le=120, description="stop an image there, dB")
    rounds: int = Field(default=1, ge=1, le=MAX_ROUNDS, description="for images that miss the target")
    colours: ColourRange = "bounded"
    start: StartName = "transport"
    refine: RefineName = Field(default="none", description="regressed: a second fit from foretold starts")
    regression: LocationField | None = Field(default=None, description="file of the regression, filled in by the run")
    codec: CodecName = ADDITIVE
    dtype: SplatDtype = "float16"
    engine: EngineName = "auto"
    seed: int = Field(default=0, ge=0, lt=2**63)
    workers: int = Field(default=1, ge=1, le=4096, description="threads of the engine; worker processes with Dask")
    images: bool = Field(default=True, description="keep the source pixels in the store")
    overwrite: bool = Field(default=False, description="replace a store that is there")
    versions: bool = Field(default=False, description="another setting makes another store, NAME.v2.zarr and so on")
    download: bool = Field(default=True, description="fetch a data set that is not there")
    compute: str = Field(default="local", description="local, dask, or tcp://HOST:PORT of a Dask scheduler")
    block_rows: int | None = Field(default=None, ge=1, le=1_000_000, description="rows written together")

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
    """Processors that this process may use."""
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
    return job if job.refine == "none" else _refined(job)


def _refined(job: EncodeJob) -> EncodeJob:
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
