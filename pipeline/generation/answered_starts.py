"""Where a fit begins: with the Gaussians that a trained network answers with when it is shown the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_schemas.errors import SamplingError
from encoders.frame import from_splats
from models.render_dit import RenderDiT
from pipeline.generation.run import Run

IMAGES_AT_ONCE = 8
"""The network always sees so many: products of another size round otherwise, and a fit would show it."""


class AnsweredStarts:
    """Starts of ``encoders.fit_cpu.CpuEncoder`` from a network that draws.

    Args:
        run: of a model that looks at pixels and answers with Gaussians.

    Raises:
        SamplingError: another kind of run.
    """

    def __init__(self, run: Run) -> None:
        if not isinstance(run.model, RenderDiT):
            raise SamplingError(
                f"{run.path} does not answer with Gaussians", allowed="a run of train splats --model render-dit"
            )
        self._run, self._model = run, run.model

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixel-frame parameters (``encoders.frame``) to begin with.

        Args:
            images: uint8 [image, row, column, channel].

        Returns:
            float32 [image, gaussian, 5 + channel].
        """
        height, width = images.shape[1:3]
        if not len(images):  # the engine compiles with none
            return np.empty((0, self._run.spec.gaussians, 5 + images.shape[3]), np.float32)
        parts = [self._answered(images[at : at + IMAGES_AT_ONCE]) for at in range(0, len(images), IMAGES_AT_ONCE)]
        splats = np.concatenate(parts)
        layout = self._model.layout
        if layout.has_alpha:
            splats = np.delete(splats, layout.index("alpha"), axis=-1)
        return from_splats(splats, height, width)

    def _answered(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(images)
        whole = np.concatenate([images, np.repeat(images[-1:], IMAGES_AT_ONCE - count, axis=0)])
        device = next(self._model.parameters()).device
        features = self._run.representation.encode(torch.from_numpy(whole)).to(device)
        with torch.inference_mode():
            answer = self._model(features, torch.ones(len(whole), device=device), None, whole=True)
        return answer.splats[:count].cpu().numpy()

    def recipe(self) -> dict[str, Any]:
        """What decides the starts, for the record of a store."""
        config = self._run.config
        return {"network": config["model"], "preset": config["preset"], "step": config.get("step")}
