"""What a caller relies on, and whether a store has it: K, layout, images, an order of its Gaussians."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError, StoreMismatchError
from data_schemas.records import StoreHeader
from data_schemas.splats import OVER
from data_schemas.stores.contract import SplatStore
from encoders.start.begin import anchors as grid_anchors
from models.features.splats import SplatRepresentation

SlotOrder = Literal["stored", "anchors", "none"]
SLOT_ORDERS: tuple[SlotOrder, ...] = get_args(SlotOrder)


def require_promised(store: SplatStore, gaussians: int | None, layout: str | None, image: bool | None) -> None:
    """Refuses a store that is not what a caller relies on.

    Args:
        store: open for reading.
        gaussians: K; None for any.
        layout: by name; None for any.
        image: True where source images are needed.

    Raises:
        StoreMismatchError: another K or layout, no Gaussians at all, or no source images.
    """
    header = store.header
    if not header.gaussians:
        raise StoreMismatchError(
            f"{store.path} holds images only",
            allowed="a store with Gaussians",
            next_step="encode the images with --gaussians 1 or more",
        )
    for name, wanted, got in (("gaussians", gaussians, header.gaussians), ("layout", layout, header.layout)):
        if wanted is not None and wanted != got:
            raise StoreMismatchError(
                f"{store.path} has {name} {got}",
                allowed=f"{name} {wanted}, as was asked for",
                next_step="open another store, or ask for what this one has",
            )
    if image and not header.images:
        raise StoreMismatchError(
            f"{store.path} holds no source images",
            allowed="a store encoded with images",
            next_step="leave image=True out, or encode it again without --no-images",
        )


def require_fitting(representation: SplatRepresentation, header: StoreHeader) -> SplatRepresentation:
    """The representation, if it is one of such splats.

    Raises:
        StoreMismatchError: it is of another layout or K.
    """
    found = representation.layout.name, representation.gaussians
    if found != (header.layout, header.gaussians):
        raise StoreMismatchError(
            f"Features of layout {found[0]} and {found[1]} Gaussians",
            allowed=f"layout {header.layout} and {header.gaussians} Gaussians, as the store has",
            next_step="give the representation of a run that was trained on such a store, or features=True",
        )
    return representation


def slot_anchors(header: StoreHeader, order: SlotOrder) -> NDArray[np.float32] | None:
    """Where the Gaussians of each index are, as generators read them.

    Args:
        header: of the store.
        order: see :class:`~pipeline.dataset.splat_dataset.SplatDataset`.

    Returns:
        float32 [gaussian, 2] of (x, y); None where the index means nothing.

    Raises:
        JobError: an order that is none, or that would change the images.
    """
    if order not in SLOT_ORDERS:
        raise JobError(f"order={order!r}", allowed=", ".join(SLOT_ORDERS))
    if order == "none":
        return None
    if order == "anchors" and header.codec == OVER:
        raise JobError(
            f"order='anchors' with codec {header.codec}, where the order is what lies in front",
            allowed="a store whose Gaussians are summed",
            next_step="leave order out",
        )
    if header.anchors is not None:
        return np.array(header.anchors, np.float32)
    return grid_anchors(header.gaussians, header.height, header.width) if order == "anchors" else None
