"""How different two images look, without trained networks: edges at several scales, and waves by what eyes see.

All take images in [-1, 1], [image, channel, row, column], and give float32 [image].

LPIPS (arXiv:1801.03924) on VGG16: how different two images look to a network that was trained to name things.

The network is torchvision's, the distance torchmetrics': the same to rounding, but torchvision need not be there.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import CheckpointError

SCALES = 3
"""Sizes at which edges are compared: whole, half, quarter."""

BLOCK = 8
"""Pixels of a side of the blocks whose waves are compared."""

FINEST_WEIGHT = 0.1
"""Weight of the finest wave against the coarsest."""

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


def gradient_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the steps between neighbouring pixels, over ``SCALES`` scales."""
    total = torch.zeros(image.shape[0], device=image.device)
    for scale in range(SCALES):
        for axis in (-1, -2):
            if image.shape[axis] < 2:
                continue
            step = (image.diff(dim=axis) - target.diff(dim=axis)).abs()
            total = total + step.flatten(1).mean(dim=1) * 2**scale
        if min(image.shape[-2:]) < 2:
            break
        image, target = functional.avg_pool2d(image, 2), functional.avg_pool2d(target, 2)
    return total


def cosine_waves(side: int) -> Tensor:
    """The orthonormal cosine transform of one axis: float32 [wave, place]."""
    wave, place = torch.arange(side)[:, None], torch.arange(side)[None, :]
    table = torch.cos(math.pi / side * (place + 0.5) * wave) * math.sqrt(2 / side)
    table[0] /= math.sqrt(2)
    return table


def wave_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean square error of the waves in blocks of ``BLOCK`` pixels, coarse ones counting more.

    Colours are first split into brightness and two differences, of which eyes see less; as in JPEG, but with weights
    that fall linearly with the wave number.
    """
    error = image.float() - target.float()
    if error.shape[1] == 3:
        red, green, blue = error.unbind(1)
        bright = 0.299 * red + 0.587 * green + 0.114 * blue
        error = torch.stack([bright, 0.564 * (blue - bright), 0.713 * (red - bright)], dim=1)
    side = min(BLOCK, *error.shape[-2:])
    error = functional.pad(error, (0, -error.shape[-1] % side, 0, -error.shape[-2] % side))
    blocks = error.unflatten(-2, (-1, side)).unflatten(-1, (-1, side)).transpose(-3, -2)
    waves = cosine_waves(side).to(error.device)
    number = torch.arange(side, device=error.device)
    weights = 1 - (1 - FINEST_WEIGHT) * (number[:, None] + number[None, :]) / max(1, 2 * (side - 1))
    return ((waves @ blocks @ waves.T).square() * weights).flatten(1).mean(dim=1)


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
