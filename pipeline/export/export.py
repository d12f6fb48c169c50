"""Splats for other programs: SVG, ``.ply``, ``.splat``, each with what it costs; and ``.ply`` back to a store."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from data_schemas.errors import JobError, SourceError
from data_schemas.files import save_file
from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.stores.open import require_outside_stores
from encoders.quality import psnr
from pipeline.export.ply import ply_of, read_ply, splat_of
from pipeline.export.svg import as_viewers_show, svg_of
from pipeline.sample.store import StoredImage, read_image, write_image

EXPORTS = (".svg", ".ply", ".splat")


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: of the file.
        gaussians: in it.
        cut: Gaussians with a colour outside of [0, 1] that was cut.
        psnr: dB between what SVG viewers show and the codec's rendering, infinite where they are equal; None for
            scenes, which viewers draw from any side.
        bytes: of the file.
    """

    path: Path
    gaussians: int
    cut: int
    psnr: float | None
    bytes: int


def export_image(store: str | os.PathLike[str], image: str, out: Path) -> Exported:
    """Writes one image of a store for other programs.

    Args:
        store: path or URL.
        image: row or name.
        out: ends in ``.svg``, ``.ply`` or ``.splat``.

    Returns:
        What was written, and what it costs.

    Raises:
        JobError: another suffix, or a codec that the format cannot draw.
        StoreError: no such image, or the file cannot be written.
    """
    suffix = out.suffix.lower()
    if suffix not in EXPORTS:
        raise JobError(f"--out {out}", allowed="a path that ends in " + ", ".join(EXPORTS))
    require_outside_stores(out)
    found = read_image(store, image)
    header = found.header
    layout, codec, height, width = header.splat_layout, header.codec, header.height, header.width
    loss = None
    if suffix == ".svg":
        text, cut = svg_of(found.splats, layout=layout, codec=codec, height=height, width=width)
        data = text.encode()
        shown = as_viewers_show(found.splats, layout=layout, codec=codec, height=height, width=width)
        loss = float(psnr(shown[None], found.rendered()[None])[0])
    else:
        write = ply_of if suffix == ".ply" else splat_of
        data, cut = write(found.splats, layout=layout, codec=codec, height=height, width=width)
    save_file(out, data)
    return Exported(out, len(found.splats), cut, loss, len(data))


def import_ply(path: Path, out: Path) -> StoredImage:
    """Makes a store of one image of a ``.ply`` that :func:`export_image` wrote.

    Args:
        path: the scene.
        out: a new ``.zarr`` or ``.h5``.

    Returns:
        What is in the store.

    Raises:
        SourceError: missing, cut short, or a scene of another program.
        StoreError: another suffix, or the store is there already or cannot be written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"Could not read {path}: {error.strerror or error}") from error
    try:
        scene = read_ply(data)
    except SourceError as error:
        raise SourceError(f"{path}: {error.got}", allowed=error.allowed, next_step=error.next_step) from error
    header = StoreHeader(
        codec=scene.codec,
        layout=scene.layout.name,
        gaussians=len(scene.splats),
        height=scene.height,
        width=scene.width,
        channels=scene.layout.channels,
        dtype="float32",
        images=False,
        engine="imported",
        source=SourceRecord(name=path.name, split="imported"),
    )
    image = StoredImage(scene.splats, header, path.name, -1)
    write_image(image, out, what=f"read from {path.name}")
    return image


def loss_in_words(loss: float | None) -> str:
    """How near viewers come to the codec."""
    if loss is None:
        return "a flat scene; viewers compose it in their own way (see the header and docs/sample.md)"
    return (
        "viewers show the same 8-bit pixels"
        if math.isinf(loss)
        else f"PSNR of what viewers show by the rules: {loss:.2f} dB"
    )
