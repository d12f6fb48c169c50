"""The figures of a report as typed records: what ``report.json`` holds, with how the store was made.

Every number is finite; what could not be measured is ``None``. docs/report.md explains each field.
"""

from __future__ import annotations

import math
import shlex
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from data_schemas.locations import Location
from data_schemas.printable import printable
from data_schemas.records import RunRecord, StoreHeader
from pipeline.encode.presets import PRESETS, EngineName
from pipeline.image_limits import BLACK
from pipeline.report.changes_record import Changes
from pipeline.report.predictability_record import Predictability

REPORT_VERSION = 2
"""Version of ``report.json``; a reader refuses a greater one."""

LOSSLESS_PSNR = 100.0
"""PSNR in dB at which an image counts in means and percentiles when its decoded pixels equal the source.

Its true PSNR is infinite. The PSNR of the mean error needs no such cap: there a lossless image adds an error of 0.
"""

PanelGroup = Literal["worst", "median", "best", "worst of its class", "next worst", "across the range"]
"""Why an image is shown. The first three are in ``report.json``; the others are on the page only."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ImageCounts(_Record):
    """How many images, by what became of them; ``total = done + failed + empty``."""

    total: int
    done: int
    failed: int
    empty: int = Field(description="rows without splats yet: encode again to fill them")
    of_set: int | None = Field(default=None, description="images of the whole set, where it is known")
    unmeasured: int = Field(default=0, description="done rows whose PSNR or SSIM is NaN; in no figure of quality")


class QualityFigures(_Record):
    """Quality of the decoded stored bytes against the source, over ``images`` measured images. PSNR in dB."""

    images: int
    mean: float | None = None
    median: float | None = None
    of_mean_error: float | None = Field(default=None, description="PSNR of the mean squared error of all images")
    minimum: float | None = None
    p1: float | None = None
    p5: float | None = None
    p25: float | None = None
    p75: float | None = None
    p95: float | None = None
    maximum: float | None = None
    lossless: int = Field(default=0, description="images whose decoded pixels equal the source")
    lossless_share: float | None = None
    ssim_mean: float | None = None
    ssim_p1: float | None = None
    ssim_minimum: float | None = None


class ClassFigures(_Record):
    """Quality of one class."""

    label: int = Field(description="-1 where an image has none")
    name: str
    done: int
    failed: int
    quality: QualityFigures


class CostFigures(_Record):
    """What the fits cost, summed over the runs of the encoder; ``None`` where the store records no run."""

    runs: int
    images_fitted: int
    images_reused: int = Field(description="rows copied from an identical image")
    fit_seconds_per_image: float | None = Field(default=None, description="wall time inside the engine")
    core_seconds_per_image: float | None = Field(default=None, description="CPU time of the engine")
    wall_seconds_per_image: float | None = Field(default=None, description="wall time of the run: read, fit, write")
    wall_seconds: float | None = None
    steps_mean: float | None = Field(default=None, description="optimiser steps per done image")


class DeadFigures(_Record):
    """Gaussians without a visible contribution, over done images."""

    mean: float | None = Field(default=None, description="per image")
    share: float | None = Field(default=None, description="of all Gaussians")
    maximum: int | None = None


class SizeFigures(_Record):
    """How much smaller (ratio > 1) or larger (ratio < 1) the splats are than the pixels of one uint8 image."""

    image_numbers: int = Field(description="H * W * C")
    splat_numbers: int = Field(description="K * P")
    image_bytes: int = Field(description="H * W * C bytes: uint8, uncompressed")
    splat_bytes: int = Field(description="K * P * bytes per number, uncompressed")
    splat_bytes_on_disk: float | None = Field(default=None, description="per row that holds splats, compressed")
    ratio_numbers: float
    ratio_bytes: float
    ratio_bytes_on_disk: float | None = None
    store_bytes: int | None = Field(default=None, description="whole store on disk, source images included")
    store_bytes_by_array: dict[str, int] = Field(default_factory=dict)


class FailedImage(_Record):
    """An image without splats, and why."""

    row: int
    source_id: str
    reason: str


class PanelImage(_Record):
    """An image that the panels show."""

    group: PanelGroup
    row: int
    source_id: str
    label: int
    label_name: str
    psnr: float = Field(description="dB, at most LOSSLESS_PSNR")
    lossless: bool
    ssim: float | None


class Histogram(_Record):
    """Counts of images by PSNR: ``edges`` has one entry more than ``counts``; the last bin includes its end."""

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


class StoreFacts(_Record):
    """What the store is and how it was made."""

    name: str
    codec: str
    layout: str
    gaussians: int
    parameters: tuple[str, ...]
    height: int
    width: int
    channels: int
    dtype: str
    colours: str
    start: str | None
    engine: str
    engine_choices: tuple[str, ...] = Field(default=(), description="why this engine, where runs left it open")
    devices: tuple[str, ...]
    seed: int
    settings: dict[str, Any]
    versions: dict[str, str]
    created: datetime
    updated: datetime
    schema_version: int
    command: str | None = Field(description="what to type to encode such a store, where its engine is known")


class SourceFacts(_Record):
    """Where the images came from."""

    name: str
    split: str
    digest: str
    licence: str
    attribution: str
    removed_duplicates: int
    background: str = Field(default="#000000", description="what transparency was laid over, #rrggbb")
    left_out: int = Field(default=0, description="other files of the place: no images, or hidden")


class Report(_Record):
    """Everything that people and programs read about a store."""

    report_version: int = REPORT_VERSION
    created: datetime
    lossless_psnr: float = LOSSLESS_PSNR
    store: StoreFacts
    source: SourceFacts
    images: ImageCounts
    quality: QualityFigures
    cost: CostFigures
    dead: DeadFigures
    size: SizeFigures
    predictability: Predictability | None
    predictability_reason: str = Field(default="", description="why there is no predictability")
    classes: tuple[ClassFigures, ...] = ()
    histogram: Histogram = Histogram()
    changes: Changes | None = Field(default=None, description="what changed since another report; None without one")
    panels: tuple[PanelImage, ...] = ()
    panels_reason: str = Field(default="", description="why the panels are missing or show no source")
    failed: tuple[FailedImage, ...] = ()
    noted: dict[str, int] = Field(
        default={}, description="images of the last run that were read and of which something is to be known, by kind"
    )
    unmeasured_rows: tuple[int, ...] = ()


def finite(value: Any) -> Any:
    """A copy of JSON-like data in which NaN and infinities are the strings ``"nan"``, ``"inf"``, ``"-inf"``.

    Args:
        value: dict, list, tuple or scalar, nested at will; anything else becomes its ``str``.
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def encode_command(header: StoreHeader, path: Location, rows: int | None = None) -> str | None:
    """What to type to encode such a store; None for a store that was not fitted here (converted or generated).

    Every option that decides a splat is named, also where it was left to the preset: presets may change.

    Args:
        header: of the store.
        path: of the store.
        rows: images in it; None where the number is not known.
    """
    if header.engine not in get_args(EngineName) or header.start is None:
        return None
    typed = next((run for run in reversed(header.runs) if run.dataset), None)
    words = ["splatspace", "encode", _typed_dataset(header, typed)]
    if typed is not None and typed.data_dir:
        words += ["--data-dir", printable(typed.data_dir)]
    words += ["--out", path.name, "--split", header.source.split]
    if header.height == header.width:  # another shape is that of the images: --size makes squares
        words += ["--size", str(header.height)]
    if rows:
        words += ["--limit", str(rows)]
    words += ["--gaussians", str(header.gaussians)]
    for option, key in (("--steps", "steps"), ("--target-psnr", "target_psnr")):
        if header.settings.get(key) is not None:
            words += [option, str(header.settings[key])]
    if header.settings.get("rounds", 1) > 1:
        words += ["--rounds", str(header.settings["rounds"])]
    words += ["--codec", header.codec.split("/")[0], "--colours", header.colours, "--start", header.start]
    if header.refine:
        words += ["--refine", header.refine]
    words += ["--dtype", header.dtype, "--engine", header.engine, "--seed", str(header.seed)]
    if header.source.background != BLACK:
        words += ["--background", header.source.background]
    if not header.images:
        words.append("--no-images")
    return shlex.join(words)


def _typed_dataset(header: StoreHeader, run: RunRecord | None) -> str:
    """What to type for the data set of a store.

    Args:
        header: of the store.
        run: that says what was typed; None where none does (programs of an earlier version).
    """
    name = header.source.name
    if run is not None and run.dataset != name:
        return printable(run.dataset)
    # An incomplete copy of a named set is called "cifar10 (without ...)": what is typed is the first word.
    first = name.partition(" (")[0]
    return (first if first in PRESETS else name) or "DATASET"


def store_facts(header: StoreHeader, path: Location, rows: int | None = None) -> StoreFacts:
    """What the store is and how it was made. Names the file only, not the folders above it."""
    versions: dict[str, str] = {}
    for run in header.runs:
        versions.update(run.versions)
    return StoreFacts(
        name=path.name,
        codec=header.codec,
        layout=header.layout,
        gaussians=header.gaussians,
        parameters=header.splat_layout.names,
        height=header.height,
        width=header.width,
        channels=header.channels,
        dtype=header.dtype,
        colours=header.colours,
        start=header.start,
        engine=header.engine,
        engine_choices=tuple(dict.fromkeys(run.engine_choice for run in header.runs if run.engine_choice)),
        devices=tuple(dict.fromkeys(run.device for run in header.runs)),
        seed=header.seed,
        settings=finite(header.settings),
        versions=versions,
        created=header.created,
        updated=header.updated,
        schema_version=header.schema_version,
        command=encode_command(header, path, rows),
    )


def source_facts(header: StoreHeader) -> SourceFacts:
    """Where the images came from."""
    return SourceFacts(**header.source.model_dump(exclude={"label_names"}))
