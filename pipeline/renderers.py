"""Hands compiled renderers to the networks that draw Gaussians: ``models`` and ``encoders`` do not know each other."""

from __future__ import annotations

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from encoders.differentiable.patches import PatchPixels, blend_patches
from encoders.differentiable.splats import is_traced, render_differentiable
from models.networks.render_dit import RenderDiT
from models.patches.splats import PUBLISHED_DEPTH, PUBLISHED_EPSILON, Canvas, KernelName, PatchSplats, SplatHead, blend

_FALLING = {"gaussian": True, "flat": False}
"""Kernels that are compiled, and whether a splat's colour falls off with distance."""


Network = TypeVar("Network", bound=nn.Module)


def with_compiled_patches(network: Network) -> Network:
    """The same network; its splat heads draw by :func:`blend_compiled` from now on."""
    for module in network.modules():
        if isinstance(module, SplatHead):
            module.blend = blend_compiled
    return network


def blend_compiled(
    splats: PatchSplats,
    canvas: Canvas,
    kernel: KernelName | Literal["blob"],
    *,
    shared: bool,
    published: bool = False,
) -> Tensor:
    """Draws splats: compiled for float32 on the CPU, else (GPU, ONNX, cosines) in plain torch.

    Arguments and result are those of :func:`models.patches.splats.blend`.
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


def with_renderers(network: Network, codec: str) -> Network:
    """The same network, which can draw from now on.

    Args:
        network: any; those that answer with Gaussians get a renderer.
        codec: of the Gaussians.
    """
    if isinstance(network, RenderDiT):
        layout = network.layout

        def draw(splats: Tensor, height: int, width: int) -> Tensor:
            return render_differentiable(splats, layout, codec, height, width, clip=False)

        network.renderer = draw
    return with_compiled_patches(network)
