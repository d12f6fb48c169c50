"""What a store is and how it was made, for the report."""

from __future__ import annotations

import shlex
from typing import get_args

from data_schemas.locations import Location
from data_schemas.records import StoreHeader
from pipeline.background import BLACK
from pipeline.encode_choices import EngineName
from pipeline.report.figures import SourceFacts, StoreFacts, finite


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
    words = ["splatspace", "encode", header.source.name or "DATASET", "--out", path.name]
    words += ["--split", header.source.split]
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
