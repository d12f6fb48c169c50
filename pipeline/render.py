"""One image of a store as an image, at any size."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from upath import UPath

from data_schemas.errors import JobError, StoreError
from data_schemas.files import wrap_os_errors, write_file
from data_schemas.locations import Location
from data_schemas.records import RowState
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store
from encoders.decode import decode, to_uint8
from pipeline.finite_splats import require_finite
from pipeline.image_limits import LARGEST_SIDE
from pipeline.options import whole_number


def render_image(
    path: str | os.PathLike[str] | UPath, image: str, *, size: int | None = None, ellipses: bool = False
) -> tuple[Image.Image, int]:
    """Renders one row of a store.

    Args:
        path: of the store.
        image: row number, or the image's name in its source. A number that is no row is looked up as a name.
        size: pixels of the longer side; None takes the size at which the image was encoded.
        ellipses: draw the Gaussians as one-sigma ellipses instead of decoding them.

    Returns:
        The image and the row that it shows.

    Raises:
        JobError: a size outside 1 to LARGEST_SIDE.
        StoreError: no such row or name, or a row without splats or with some that are not finite.
    """
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise JobError(f"--size {size}", allowed=f"1 to {LARGEST_SIDE} pixels")
    with open_store(path, "r") as store:
        header = store.header
        row = find_row(store, image)
        splats = _splats(store, row)
    longer = max(header.height, header.width)
    size = size or longer
    if ellipses:
        # The report's package loads plotting libraries, which take longer than to decode an image.
        from pipeline.report.ellipses import draw_ellipses

        return draw_ellipses(splats, header.splat_layout, header.height, header.width, size), row
    height, width = (max(1, round(side * size / longer)) for side in (header.height, header.width))
    decoded = decode(
        splats[None], layout=header.splat_layout, codec=header.codec, height=height, width=width, workers=1
    )
    pixels = to_uint8(decoded[0])
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), row


def find_row(store: SplatStore, image: str) -> int:
    """The row that a user means.

    Args:
        store: where to look.
        image: row number (negative ones count from the end) or source name.

    Raises:
        StoreError: neither a row nor a name of the store.
    """
    rows = len(store)
    number = whole_number(image)
    if number is not None and -rows <= number < rows:
        return number % rows
    matches = np.flatnonzero(store.read(["source_id"])["source_id"] == image)
    if not len(matches):
        raise StoreError(
            f"{store.path.name} has no image {image!r}",
            allowed=f"a row, 0 to {rows - 1}, or the name of an image" if rows else "nothing: the store has no rows",
            next_step=f"see splatspace info {store.path.name}",
        )
    return int(matches[0])


def _splats(store: SplatStore, row: int) -> NDArray[Any]:
    content = store.read(["splats", "state", "failure", "source_id"], [row])
    if content["state"][0] != RowState.DONE:
        reason = str(content["failure"][0]) or "it is not encoded yet"
        raise StoreError(
            f"Row {row} ({content['source_id'][0]}) has no splats: {reason}",
            allowed="a row that is done",
            next_step="encode again to fill it",
        )
    require_finite(content["splats"], [row], store)
    return content["splats"][0]


def save_png(picture: Image.Image, path: Location) -> None:
    """Writes a PNG, whole or not at all; missing folders are made.

    Raises:
        StoreError: the place cannot be written.
    """
    data = io.BytesIO()
    picture.save(data, format="PNG")
    with wrap_os_errors("write", path):
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data.getvalue())
