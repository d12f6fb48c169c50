"""Trains a small transformer of your own on a store, as sets of Gaussians without an order, and draws samples.

    python examples/train_set_transformer.py --store demo.zarr --steps 3000

Flow matching (Lipman et al. 2023): the network answers the velocity from noise to data, Euler steps follow it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import splatspace


class SetNetwork(nn.Module):
    """Every Gaussian is a token, and none knows its index: a permuted set gets the permuted answer."""

    def __init__(self, features: int, width: int, layers: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features + 1, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.trunk = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.leave = nn.Linear(width, features)

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """Velocity [image, gaussian, feature] of noisy features at times [image, 1, 1]."""
        return self.leave(self.trunk(self.enter(torch.cat([noisy, time.expand(*noisy.shape[:2], 1)], dim=-1))))


def main() -> None:
    """Trains, samples, and writes the pictures in a row."""
    parser = argparse.ArgumentParser(description="Trains a set transformer on a store.")
    parser.add_argument("--store", type=Path, default=Path("demo.zarr"), help="made of the built-in set where missing")
    for name, value in {"steps": 2000, "batch": 32, "width": 96, "layers": 4, "evaluations": 50, "samples": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    if not options.store.exists():
        splatspace.encode(splatspace.resolve_job("demo", options.store, limit=512, gaussians=48))

    dataset = splatspace.SplatDataset(options.store, image=False, features=True, order="none")
    sampler = splatspace.ShardShuffleSampler(dataset, options.batch)
    representation = dataset.representation
    assert representation is not None
    torch.manual_seed(0)
    network = SetNetwork(representation.features, options.width, options.layers)
    optimiser, losses = torch.optim.AdamW(network.parameters(), 1e-3), []
    print(f"{dataset}, {sum(map(torch.numel, network.parameters())):,} weights")
    while len(losses) < options.steps:
        sampler.set_epoch(sampler.epoch + 1)
        for batch in DataLoader(dataset, sampler=sampler, batch_size=None):
            clean, noise = batch["features"], torch.randn_like(batch["features"])
            time = torch.rand(len(clean), 1, 1)
            loss = (network(torch.lerp(noise, clean, time), time) - (clean - noise)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if len(losses) % max(1, options.steps // 5) == 0:
                print(f"step {len(losses):5d}  loss {np.mean(losses[-100:]):.3f}", flush=True)

    features = torch.randn(options.samples, *representation.shape)
    with torch.no_grad():
        for moment in torch.arange(options.evaluations) / options.evaluations:
            features += network(features, moment.expand(len(features), 1, 1)) / options.evaluations
    header, splats = dataset.header, representation.decode(features).numpy()
    size = {"height": 4 * header.height, "width": 4 * header.width}
    pictures = splatspace.to_uint8(splatspace.decode(splats, layout=dataset.layout, codec=header.codec, **size))
    Image.fromarray(np.concatenate(list(pictures), axis=1).squeeze()).save(out := options.store.with_suffix(".png"))
    print(f"{out}: {len(pictures)} samples at 4 times the size of the training images")


if __name__ == "__main__":
    main()
