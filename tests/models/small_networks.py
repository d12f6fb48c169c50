"""Specifications, inputs and networks that the tests of the models share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from data_schemas.splats import layout_named
from encoders.render import render
from models.base import DataSpec, Denoiser
from models.networks.render_dit import RenderDiT
from models.registry import build_model


def grid_anchors(columns: int, rows: int) -> tuple[tuple[float, float], ...]:
    """Anchors row by row in [-1, 1]."""
    return tuple(
        ((2 * column + 1) / columns - 1, (2 * row + 1) / rows - 1) for row in range(rows) for column in range(columns)
    )


def splat_spec(columns: int = 4, rows: int = 3, features: int = 6, classes: int = 0) -> DataSpec:
    """Splats on a small grid of anchors."""
    return DataSpec(
        "splats",
        gaussians=columns * rows,
        features=features,
        height=12,
        width=12,
        channels=1,
        classes=classes,
        anchors=grid_anchors(columns, rows),
    )


def ready_model(name: str, preset: str, spec: DataSpec, **changes: Any) -> Denoiser:
    """As ``build_model``; networks that draw get the plain renderer, as they get a compiled one in ``pipeline``."""
    model = build_model(name, preset, spec, **changes)
    if isinstance(model, RenderDiT):
        layout = layout_named(spec.layout)

        def draw(splats: Tensor, height: int, width: int) -> Tensor:
            return render(splats, layout, "additive/1", height, width, clip=False)

        model.renderer = draw
    return model


def awakened(model: Denoiser, seed: int = 0) -> Denoiser:
    """The model with every weight drawn again, those that start at zero included, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 and len(parameter) else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def noise(*shape: int, seed: int = 1) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
