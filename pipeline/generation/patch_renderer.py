"""Hands the compiled renderer of patch splats to networks: ``models`` and ``encoders`` do not know each other."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from encoders.differentiable_render import is_traced
from encoders.patch_render import PatchPixels, blend_patches
from models.head_splats import SplatHead
from models.splat_patches import PUBLISHED_DEPTH, PUBLISHED_EPSILON, Canvas, KernelName, PatchSplats, blend

_FALLING = {"gaussian": True, "flat": False}
"""Kernels that are compiled, and whether a splat's colour falls off with distance."""


Network = TypeVar("Network", bound=nn.Module)


def with_compiled_patches(network: Network) -> Network:
    """The same network; its splat heads draw by :func:`compiled_blend` from now on."""
    for module in network.modules():
        if isinstance(module, SplatHead):
            module.blend = compiled_blend
    return network


def compiled_blend(
    splats: PatchSplats,
    canvas: Canvas,
    kernel: KernelName | Literal["blob"],
    *,
    shared: bool,
    published: bool = False,
) -> Tensor:
    """Draws splats: compiled for float32 on the processor, else (graphics card, ONNX, cosines) in plain torch.

    Arguments and result are those of :func:`models.splat_patches.blend`.
    """
    colour = splats.colour
    usual = all(value.device.type == "cpu" and value.dtype == torch.float32 for value in splats)
    if is_traced() or not usual or kernel not in _FALLING or colour.shape[-1] not in (1, 3) or not len(colour):
        return blend(splats, canvas, kernel, shared=shared, published=published)
    columns, places = canvas.basis.shape[1], canvas.basis.shape[-1]
    pixels = PatchPixels(
        x=canvas.basis[:, :, 3],
        y=canvas.basis[:, :, 4],
        fading=canvas.fading if shared else None,
        pixel=(canvas.row * columns + canvas.column) * places + canvas.place,
    )
    return blend_patches(
        *splats,
        pixels,
        falling=_FALLING[kernel],
        level=PUBLISHED_DEPTH if published else None,
        epsilon=PUBLISHED_EPSILON if published else 0.0,
    )
