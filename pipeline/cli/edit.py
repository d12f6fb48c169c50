"""``splatspace edit``: move, recolour or delete Gaussians of one image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import JobError
from pipeline.cli.numbers import numbers_of
from pipeline.cli.terminal import print_json, say

EXAMPLES = (
    "splatspace edit demo.zarr --image 0 --box 0,0,16,32 --move 4,0 --out moved.png",
    "splatspace edit demo.zarr --image 0 --gaussians 3,5,8 --recolour 255,0,0 --out red.zarr",
    "splatspace edit demo.zarr --image 0 --box 0,0,16,16 --delete --out rest.png",
)


def edit(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    image: Annotated[str, typer.Option("--image", "-i", help="Row number, or the image's name in its source.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="NAME.png, or a new store of this one image.")],
    gaussians: Annotated[str | None, typer.Option(metavar="I,J,...", help="Which. Default: all.")] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="Those whose centre is in it, in pixels.")
    ] = None,
    move: Annotated[str | None, typer.Option(metavar="DX,DY", help="Pixels to the right and down.")] = None,
    recolour: Annotated[str | None, typer.Option(metavar="R,G,B", help="Colour in 0 to 255, or one grey.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take them out; the new store has a smaller K.")] = False,
    size: Annotated[int | None, typer.Option(min=1, help="Pixels of the PNG's longer side.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Changes Gaussians of one image and writes it as a picture or as a store; the given store stays as it is."""
    from data_schemas.durable_files import remove_abandoned
    from data_schemas.stores import require_outside_stores
    from pipeline.generation.edit import Edit, edited
    from pipeline.generation.grids import picture_of
    from pipeline.generation.stored_image import read_image, write_image
    from pipeline.render_store import LARGEST_SIDE, save_png

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
    changed, count = edited(read_image(store, image), wanted)
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
