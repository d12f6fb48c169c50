"""What a sampling keeps of a stored image (inpainting): all outside a box, or the geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import JobError, SamplingError, StoreError
from data_schemas.records import RowState
from data_schemas.splats import Layout
from data_schemas.stores.open import open_store
from models.features.splats import COLOUR, GEOMETRY
from pipeline.finite_splats import require_finite
from pipeline.render import find_row
from pipeline.sample.job import KnownPart
from pipeline.sample.run import Run
from pipeline.train.rows import order_by_anchors

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


def inside(splats: NDArray[Any], layout: Layout, box: Box, height: int, width: int) -> NDArray[np.bool_]:
    """Which Gaussians have their centre in a box.

    Args:
        splats: [..., parameter].
        layout: its columns.
        box: (left, top, right, bottom) in pixels.
        height: rows of the image in which the box is given.
        width: its columns.

    Returns:
        bool [...].
    """
    column = (splats[..., layout.index("x")].astype(np.float64) + 1) / 2 * width
    row = (splats[..., layout.index("y")].astype(np.float64) + 1) / 2 * height
    left, top, right, bottom = box
    return (left <= column) & (column <= right) & (top <= row) & (row <= bottom)


@dataclass(frozen=True)
class Kept:
    """One image of which a part is kept.

    Attributes:
        features: [1, ...] of the whole image.
        mask: bool, True where it is kept: [1, gaussian, group] or [1, 1, row, column].
        stored: the whole image as stored, [gaussian, parameter] or [row, column, channel].
        label: of the image, -1 for none.
        notes: what a user should know.
    """

    features: Tensor
    mask: Tensor
    stored: NDArray[Any]
    label: int
    notes: tuple[str, ...]


def read_kept_part(run: Run, part: KnownPart) -> Kept:
    """Reads the image and marks what is kept.

    Raises:
        StoreError: no such image, or it has no splats, or some that are not finite.
        StoreMismatchError: a store that the network cannot read.
        JobError: colours of pixels, or a box without anything in it.
    """
    if part.recolours:
        _ = run.splats  # says what is wrong where the run generates pixels
    name = "splats" if run.spec.kind == "splats" else "image"
    with open_store(part.store, "r") as store:
        run.require_same_data(store.header, part.store)
        row = find_row(store, part.image)
        if name not in store.arrays:
            raise StoreError(f"{part.store} holds no source images", next_step="encode it again without --no-images")
        content = store.read([name, "state", "label"], [row])
        if content["state"][0] != RowState.DONE:
            raise StoreError(f"Row {row} of {part.store} is not done", allowed="a row that is done")
        if name == "splats":
            require_finite(content[name], [row], store)
    stored = content[name]
    if run.spec.kind == "splats":
        stored = stored.astype(np.float32)
        anchors = run.splats.anchors
        if run.reorders and anchors is not None:
            stored = order_by_anchors(stored, run.splats.layout, anchors.numpy())
    mask, notes = _mask(run, part, stored)
    features = run.representation.encode(torch.from_numpy(stored))
    return Kept(features, mask, stored[0], int(content["label"][0]), tuple(notes))


def _mask(run: Run, part: KnownPart, stored: NDArray[Any]) -> tuple[Tensor, list[str]]:
    height, width = run.spec.height, run.spec.width
    notes = []
    if not run.objective.group_times:
        notes.append(
            f"Objective {run.objective.settings.name} was not trained with parts given: "
            "the known part is put in at every step, and the new one fits it less well."
        )
    if run.spec.kind == "pixels":
        assert part.box is not None
        if run.spec.groups != 1:
            raise SamplingError(f"{run.spec.groups} groups of pixels", allowed="1")
        left, top, right, bottom = part.box
        rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
        drawn = ((top <= rows) & (rows <= bottom))[:, None] & ((left <= columns) & (columns <= right))[None]
        _require_some(drawn, part.box, height, width)
        return torch.from_numpy(~drawn)[None, None], notes
    mask = torch.ones(1, run.spec.gaussians, run.spec.groups, dtype=torch.bool)
    if part.box is None:
        mask[..., COLOUR] = False
        return mask, notes
    drawn = inside(stored[0], run.splats.layout, part.box, height, width)
    _require_some(drawn, part.box, height, width)
    mask[0, torch.from_numpy(drawn)] = False
    assert not mask[..., GEOMETRY].all()
    notes.append(f"{int(drawn.sum())} of {run.spec.gaussians} Gaussians are drawn again; the others are kept.")
    return mask, notes


def _require_some(drawn: NDArray[np.bool_], box: Box, height: int, width: int) -> None:
    if not drawn.any():
        raise JobError(
            f"--box {','.join(f'{side:g}' for side in box)} holds nothing",
            allowed=f"a box in an image of {width} x {height} pixels",
        )
