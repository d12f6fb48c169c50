"""``splatspace render``: one image of a store at any size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import JobError
from pipeline.cli.terminal import print_json, say

EXAMPLES = (
    "splatspace render demo.zarr --image 0 --size 512 --out first.png",
    "splatspace render photos.zarr --image cats/tom.jpg --size 512 --ellipses --out tom.png",
)


def render(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    image: Annotated[str, typer.Option("--image", "-i", help="Row number, or the image's name in its source.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture: NAME.png.")],
    size: Annotated[int | None, typer.Option(min=1, help="Pixels of the longer side. Default: as encoded.")] = None,
    ellipses: Annotated[bool, typer.Option("--ellipses", help="Draw the Gaussians as one-sigma ellipses.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Decodes one image at any resolution."""
    from data_schemas.durable_files import remove_abandoned
    from data_schemas.stores import require_outside_stores
    from pipeline.render_store import render_image, save_png

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
