"""Pictures between two samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.splats import OVER
from models.registry import model_named
from pipeline.generation.latents import order_by_anchors
from pipeline.generation.run import Run

FRAMES = 9


def between(run: Run, first: Tensor, second: Tensor, *, frames: int = FRAMES) -> NDArray[np.float32]:
    """Moves every Gaussian straight from one sample to the other, in the features of the network.

    Slot by slot where the index of a Gaussian means the same in both; else each Gaussian of the second is given to
    the nearest of the first (in codec ``over/1`` the index is the depth and stays).

    Args:
        run: a generator of splats.
        first: features [gaussian, feature].
        second: features [gaussian, feature].
        frames: pictures, both ends included.

    Returns:
        Splats [frame, gaussian, parameter].

    Raises:
        SamplingError: a generator of pixels.
    """
    representation = run.splats
    slots = model_named(run.config["model"]).needs_slots or representation.anchors is not None
    if not slots and run.codec != OVER:
        splats: NDArray[Any] = run.stored(torch.stack([first, second]))
        layout = representation.layout
        centres = splats[0][:, [layout.index("x"), layout.index("y")]]
        matched = order_by_anchors(splats[1:], layout, centres)
        second = representation.encode(torch.from_numpy(matched))[0]
    share = torch.linspace(0, 1, frames)[:, None, None]
    return run.stored((1 - share) * first + share * second)
