"""Which token of an image answers for which slot: every anchor belongs to the patch that it lies in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from data_schemas.errors import JobError


@dataclass(frozen=True)
class SlotPlaces:
    """K slots spread over the tokens of an image.

    Attributes:
        anchors: float32 [gaussian, 2], (x, y) in [-1, 1].
        token: int64 [gaussian], the token that answers for a slot.
        inner: int64 [gaussian], the number of the slot among those of its token.
        most: slots of the token that has most.
    """

    anchors: Tensor
    token: Tensor
    inner: Tensor
    most: int

    @property
    def flat(self) -> Tensor:
        """int64 [gaussian]: where a slot lies among ``tokens * most`` answers."""
        return self.token * self.most + self.inner

    @property
    def spacing(self) -> float:
        """Side of the square that a slot has for itself, in normalised units (the image is 2 wide)."""
        return 2 / math.sqrt(len(self.anchors))


def places_of(anchors: tuple[tuple[float, float], ...] | None, *, height: int, width: int, patch: int) -> SlotPlaces:
    """Gives each anchor the patch that it lies in.

    Args:
        anchors: K points (x, y) in [-1, 1].
        height: rows of the image in pixels.
        width: columns of the image in pixels.
        patch: side of a patch in pixels; the last patches of an axis may hang over the edge.

    Returns:
        The places, slot by slot in the order of the anchors.

    Raises:
        JobError: no anchors, or fewer anchors than patches: some tokens would have nothing to say.
    """
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    if not anchors:
        raise JobError("a generator of splats by their rendering without anchors", allowed="K anchors")
    if len(anchors) < rows * columns:
        raise JobError(
            f"{len(anchors)} Gaussians for {rows * columns} patches of {patch} pixels",
            allowed=f"{rows * columns} Gaussians or more, or larger patches",
            next_step="encode with more --gaussians, or train with larger patches",
        )
    points = torch.tensor(anchors, dtype=torch.float32, device="cpu")
    column = ((points[:, 0] + 1) / 2 * width / patch).floor().long().clamp(0, columns - 1)
    row = ((points[:, 1] + 1) / 2 * height / patch).floor().long().clamp(0, rows - 1)
    token = row * columns + column
    counts = [0] * (rows * columns)
    inner = []
    for number in token.tolist():
        inner.append(counts[number])
        counts[number] += 1
    return SlotPlaces(points, token, torch.tensor(inner, device="cpu"), max(counts))
