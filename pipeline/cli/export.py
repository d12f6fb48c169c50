"""``splatspace export``: one image's splats for other programs, and back; a generator of pixels as an ONNX graph."""

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
    "splatspace export runs/cats --onnx cats.onnx --int8",
)


def export(
    source: Annotated[str, typer.Argument(help="A store, a .ply of this command to make a store of, or a run.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="NAME.svg, NAME.ply or NAME.splat; of a .ply a new store.")
    ] = None,
    image: Annotated[str | None, typer.Option("--image", "-i", help="Row number, or the image's name.")] = None,
    onnx: Annotated[Path | None, typer.Option("--onnx", help="NAME.onnx: one evaluation of a run.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Weights of the graph in eight bits.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Writes one image's splats as SVG, .ply or .splat and says what is lost; reads a .ply back; or a run's graph."""
    from pipeline.generation.export import export_image, import_ply, loss_in_words

    if onnx is not None:
        if out is not None or image is not None:
            raise JobError("--onnx with --out or --image", allowed="--onnx alone, or with --int8")
        _graph(Path(source), onnx, int8=int8, as_json=as_json)
        return
    if int8:
        raise JobError("--int8 without --onnx", allowed="both", next_step="add --onnx NAME.onnx")
    if out is None:
        raise JobError("Neither --out nor --onnx", allowed="--out of a store or a .ply, --onnx of a run")
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


def _graph(source: Path, out: Path, *, int8: bool, as_json: bool) -> None:
    from pipeline.generation.onnx_export import export_onnx
    from pipeline.generation.run import load_run

    found = export_onnx(load_run(source, device="cpu"), out, int8=int8)
    if as_json:
        facts = {"out": str(out), "bytes": found.bytes, "difference": found.difference}
        print_json({**facts, "int8_psnr": found.int8_psnr})
        return
    say(f"{found.bytes:,} bytes: {out}")
    say(f"Full precision differs from the network by {found.difference:.1g} of the largest number")
    if found.int8_psnr is not None:
        say(f"PSNR of predictions in eight bits: {found.int8_psnr:.2f} dB")
