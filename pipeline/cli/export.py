"""``splatspace export``: one image's splats for other programs, and back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import JobError
from pipeline.cli.terminal import print_json, say, warn

EXAMPLES = (
    "splatspace export demo.zarr --image 0 --out first.svg",
    "splatspace export demo.zarr --image 0 --out first.ply",
    "splatspace export first.ply --out again.zarr",
)


def export(
    source: Annotated[str, typer.Argument(help="A store, or a .ply of this command to make a store of.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="NAME.svg, NAME.ply or NAME.splat; of a .ply a new store.")],
    image: Annotated[str | None, typer.Option("--image", "-i", help="Row number, or the image's name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Writes one image's splats as SVG, .ply or .splat and says what is lost; or reads a .ply back."""
    from pipeline.generation.export import export_image, import_ply, loss_in_words

    if source.lower().endswith(".ply"):
        if image is not None:
            raise JobError("--image of a .ply, which holds one", allowed="no --image")
        read = import_ply(Path(source), out)
        facts = {"out": str(out), "gaussians": len(read.splats), "codec": read.header.codec}
        print_json(facts) if as_json else say(f"{facts['gaussians']} Gaussians, codec {facts['codec']}: {out}")
        return
    if image is None:
        raise JobError("No --image", allowed="a row or a name", next_step=f"splatspace export {source} --image 0")
    found = export_image(source, image, out)
    if found.cut:
        warn(f"Warning: {found.cut} of {found.gaussians} Gaussians have a colour outside of [0, 1], which was cut")
    if as_json:
        lossless = found.psnr is not None and math.isinf(found.psnr)
        facts = {"out": str(out), "gaussians": found.gaussians, "cut": found.cut, "bytes": found.bytes}
        print_json({**facts, "psnr": None if lossless else found.psnr, "lossless": lossless})
        return
    say(f"{found.gaussians} Gaussians, {found.bytes:,} bytes: {out}")
    say(loss_in_words(found.psnr))
