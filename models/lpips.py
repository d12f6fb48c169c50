"""LPIPS (arXiv:1801.03924) on VGG16: how different two images look to a network that was trained to name things.

The network is torchvision's, the distance torchmetrics': the same to rounding, but torchvision need not be there.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import CheckpointError

BACKBONE_FILE = "vgg16-397923af.pth"
"""The usual name of the state of torchvision's VGG16."""

CONVOLUTIONS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of each layer of each stage; between stages the image is halved."""

MEAN, DEVIATION = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of the images that VGG16 was trained on, in [-1, 1]."""

SMALLEST_SIDE = 16
"""Pixels; four halvings leave one."""

FLOOR = 1e-8
"""Added to the square of the length of features: where none is active, gradients would have no bound."""


class Lpips(nn.Module):
    """Weighted squared differences of unit-normed features of five stages."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        stages, before = [], 3
        for stage in CONVOLUTIONS:
            layers = nn.ModuleList()
            for after in stage:
                layers.append(nn.Conv2d(before, after, 3, padding=1))
                before = after
            stages.append(layers)
        self.stages = nn.ModuleList(stages)
        self.weights = nn.ParameterList(torch.ones(stage[-1]) for stage in CONVOLUTIONS)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)
        self.requires_grad_(False)

    @classmethod
    def of_files(cls, backbone: Path, linear: Path) -> Lpips:
        """Reads the weights.

        Args:
            backbone: state of torchvision's VGG16 (``features.0.weight`` ...); its classifier is not used.
            linear: of the linear layers of version 0.1 (``lin0.model.1.weight`` ...).

        Raises:
            CheckpointError: a file is missing or of another network.
        """
        result = cls()
        layers = [layer for stage in result.stages for layer in _layers(stage)]
        state, weights = _state(backbone), _state(linear)
        numbers = sorted({int(name.split(".")[1]) for name in state if name.startswith("features.")})
        try:
            for number, layer in zip(numbers, layers, strict=True):
                layer.load_state_dict({part: state[f"features.{number}.{part}"] for part in ("weight", "bias")})
            for stage, weight in enumerate(result.weights):
                weight.copy_(weights[f"lin{stage}.model.1.weight"].flatten())
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{backbone} or {linear} holds weights of another network: {error}",
                allowed=f"torchvision's {BACKBONE_FILE}, and the linear layers of LPIPS 0.1",
            ) from error
        return result

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distance of images.

        Args:
            image: [image, 3, row, column] in [-1, 1], 16 pixels a side or more.
            target: the same.

        Returns:
            float32 [image].
        """
        one, two = ((value.float() - self.mean) / self.deviation for value in (image, target))
        total = torch.zeros(len(image), device=image.device)
        for number, (stage, weight) in enumerate(zip(self.stages, self.weights, strict=True)):
            if number:
                one, two = functional.max_pool2d(one, 2), functional.max_pool2d(two, 2)
            for layer in _layers(stage):
                one, two = layer(one).relu(), layer(two).relu()
            difference = _of_unit_length(one) - _of_unit_length(two)
            total = total + (difference.square() * weight[:, None, None]).sum(dim=1).flatten(1).mean(dim=1)
        return total


def _layers(stage: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in stage.children() if isinstance(layer, nn.Conv2d)]


def _of_unit_length(features: Tensor) -> Tensor:
    return features * (features.square().sum(dim=1, keepdim=True) + FLOOR).rsqrt()


def _state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}",
            allowed="weights that torch saved",
            next_step="get the file again, or name another",
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds no weights by name", allowed="the state of a network")
    return {str(name): value for name, value in state.items()}
