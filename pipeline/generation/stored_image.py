"""One image of a store with all that is needed to draw, change and write it again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.records import RowState, StoreHeader
from data_schemas.stores import open_store
from encoders.decode import decode, to_uint8
from pipeline.finite_splats import require_finite
from pipeline.generation.sample_store import write_rows
from pipeline.render_store import find_row


@dataclass(frozen=True)
class StoredImage:
    """A finished row.

    Attributes:
        splats: float32 [gaussian, parameter].
        header: of its store.
        name: of the image in its source.
        label: -1 for none.
    """

    splats: NDArray[np.float32]
    header: StoreHeader
    name: str
    label: int

    def rendered(self, *, height: int | None = None, width: int | None = None) -> NDArray[np.uint8]:
        """uint8 [row, column, channel], at the size of the store where none is given."""
        header = self.header
        decoded = decode(
            self.splats[None],
            layout=header.splat_layout,
            codec=header.codec,
            height=height or header.height,
            width=width or header.width,
        )
        return to_uint8(decoded)[0]


def read_image(store: str | os.PathLike[str], image: str) -> StoredImage:
    """Reads one image.

    Args:
        store: path or URL.
        image: row or name.

    Raises:
        StoreError: no such image, or it has no splats, or some that are not finite.
    """
    with open_store(store, "r") as opened:
        row = find_row(opened, image)
        content = opened.read(["splats", "label", "state", "source_id"], [row])
        header = opened.header
        if content["state"][0] != RowState.DONE:
            raise StoreError(f"Row {row} of {store} has no splats", allowed="a row that is done")
        require_finite(content["splats"], [row], opened)
    splats = content["splats"][0].astype(np.float32)
    return StoredImage(splats, header, str(content["source_id"][0]), int(content["label"][0]))


def write_image(image: StoredImage, path: Path, *, what: str) -> None:
    """Writes one image as a store of its own, in float32 and without source image.

    Args:
        image: to write.
        path: a new ``.zarr`` or ``.h5``.
        what: was done to it; recorded in the settings.

    Raises:
        StoreError: it is there already or cannot be written.
    """
    header = image.header.model_copy(
        update={
            "dtype": "float32",
            "images": False,
            "gaussians": len(image.splats),
            "settings": {**image.header.settings, "changed": what},
            "block_rows": 1,
            "runs": (),
        }
    )
    write_rows(header, image.splats[None], np.array([image.label]), [image.name], path)
