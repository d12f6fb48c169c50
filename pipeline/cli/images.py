"""``splatspace render``, ``edit``, ``export``: one image of a store drawn, changed, or written for other programs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import JobError
from pipeline.cli.terminal import numbers_of, print_json, say, warn

RENDER_EXAMPLES = (
    "splatspace render demo.zarr --image 0 --size 512 --out first.png",
    "splatspace render photos.zarr --image cats/tom.jpg --size 512 --ellipses --out tom.png",
)


def render(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    image: Annotated[str, typer.Option("--image", "-i", help="Row number, or the image's name in its source.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Image to write: NAME.png.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="Size of the longer side in pixels. Default: as encoded.")
    ] = None,
    ellipses: Annotated[bool, typer.Option("--ellipses", help="Draw the Gaussians as one-sigma ellipses.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decodes one image at any resolution."""
    from data_schemas.files import remove_abandoned
    from data_schemas.stores.open import require_outside_stores
    from pipeline.render import render_image, save_png

    if out.suffix.lower() != ".png":
        raise JobError(f"--out {out}", allowed="a path that ends in .png", next_step=f"give --out {out.stem}.png")
    require_outside_stores(out)
    picture, row = render_image(store, image, size=size, ellipses=ellipses)
    remove_abandoned(out)
    save_png(picture, out)
    if as_json:
        print_json({"out": str(out), "row": row, "width": picture.width, "height": picture.height})
    else:
        say(f"row {row} of {store} at {picture.width} x {picture.height}: {out}")


EDIT_EXAMPLES = (
    "splatspace edit demo.zarr --image 0 --box 0,0,16,32 --move 4,0 --out moved.png",
    "splatspace edit demo.zarr --image 0 --gaussians 3,5,8 --recolour 255,0,0 --out red.zarr",
    "splatspace edit demo.zarr --image 0 --box 0,0,16,16 --delete --out rest.png",
)


def edit(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    image: Annotated[str, typer.Option("--image", "-i", help="Row number, or the image's name in its source.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="NAME.png, or a new store of this one image.")],
    gaussians: Annotated[
        str | None, typer.Option(metavar="I,J,...", help="Gaussians to change, by index. Default: all.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Box in pixels: the Gaussians whose centre is in it.")
    ] = None,
    move: Annotated[str | None, typer.Option(metavar="DX,DY", help="Shift in pixels, right and down.")] = None,
    recolour: Annotated[str | None, typer.Option(metavar="R,G,B", help="Colour in 0 to 255, or one grey.")] = None,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove the Gaussians; the new store has a smaller K.")
    ] = False,
    size: Annotated[int | None, typer.Option(min=1, help="Size of the PNG's longer side in pixels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Changes Gaussians of one image and writes it as an image or as a store; the given store stays as it is."""
    from data_schemas.files import remove_abandoned
    from data_schemas.stores.open import require_outside_stores
    from pipeline.image_limits import LARGEST_SIDE
    from pipeline.images import picture_of
    from pipeline.render import save_png
    from pipeline.sample.edit import Edit, edit_image
    from pipeline.sample.store import read_image, write_image

    require_outside_stores(out.parent)
    as_picture = out.suffix.lower() == ".png"
    if size is not None and (not as_picture or size > LARGEST_SIDE):
        raise JobError(f"--size {size}", allowed=f"1 to {LARGEST_SIDE} pixels, of a .png")
    indices = None if gaussians is None else numbers_of("--gaussians", gaussians)
    if indices is not None and any(index % 1 for index in indices):
        raise JobError(f"--gaussians {gaussians}", allowed="whole numbers with commas between them")
    corners = None
    if box is not None:
        left, top, right, bottom = numbers_of("--box", box, 4)
        corners = (left, top, right, bottom)
    shift = None
    if move is not None:
        across, down = numbers_of("--move", move, 2)
        shift = (across, down)
    wanted = Edit(
        gaussians=None if indices is None else tuple(int(index) for index in indices),
        box=corners,
        move=shift,
        recolour=None if recolour is None else numbers_of("--recolour", recolour),
        delete=delete,
    )
    changed, count = edit_image(read_image(store, image), wanted)
    if as_picture:
        header = changed.header
        share = (size or max(header.height, header.width)) / max(header.height, header.width)
        height, width = (max(1, round(side * share)) for side in (header.height, header.width))
        remove_abandoned(out)
        save_png(picture_of(changed.rendered(height=height, width=width)), out)
    else:
        write_image(changed, out, what=wanted.in_words())
    if as_json:
        print_json({"out": str(out), "changed": count, "gaussians": len(changed.splats)})
    else:
        say(f"{count} Gaussians changed, {len(changed.splats)} in the image: {out}")


EXPORT_EXAMPLES = (
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
    onnx: Annotated[
        Path | None, typer.Option("--onnx", help="Graph of one function evaluation of a run: NAME.onnx.")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Weights of the graph in eight bits.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Writes one image's splats as SVG, .ply or .splat and says what is lost; reads a .ply back; or a run's graph."""
    from pipeline.export.export import export_image, import_ply, loss_in_words

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
    from pipeline.export.onnx import export_onnx
    from pipeline.sample.run import load_run

    found = export_onnx(load_run(source, device="cpu"), out, int8=int8)
    if as_json:
        facts = {"out": str(out), "bytes": found.bytes, "difference": found.difference}
        print_json({**facts, "int8_psnr": found.int8_psnr})
        return
    say(f"{found.bytes:,} bytes: {out}")
    say(f"Full precision differs from the network by {found.difference:.1g} of the largest number")
    if found.int8_psnr is not None:
        say(f"PSNR of predictions in eight bits: {found.int8_psnr:.2f} dB")
