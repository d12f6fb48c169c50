"""Weights of VGG16 drawn by chance, saved as torchvision's are."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.image_losses import CONVOLUTIONS


def vgg_features(seed: int = 0) -> nn.Sequential:
    """Layers in the order of torchvision's ``vgg16().features``; activations keep their size from layer to layer."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    before = 3
    for stage in CONVOLUTIONS:
        for after in stage:
            convolution = nn.Conv2d(before, after, 3, padding=1)
            nn.init.normal_(convolution.weight, std=(2 / 9 / before) ** 0.5)
            layers += [convolution, nn.ReLU()]
            before = after
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def save_vgg(features: nn.Sequential, path: Path) -> None:
    """In the format of torch before 1.6, which the published file has, with a layer of the classifier."""
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    state["classifier.6.bias"] = torch.zeros(1000)
    torch.save(state, path, _use_new_zipfile_serialization=False)
