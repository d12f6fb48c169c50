"""Hands compiled renderers to the networks that draw Gaussians: ``models`` and ``encoders`` do not know each other."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

from encoders.differentiable_render import render_differentiable
from models.render_dit import RenderDiT
from pipeline.generation.patch_renderer import with_compiled_patches

Network = TypeVar("Network", bound=nn.Module)


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
