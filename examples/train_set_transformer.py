"""Trains a small transformer of your own on a store, as sets of Gaussians without an order, and draws samples.

    python examples/train_set_transformer.py --store demo.zarr --steps 3000

Flow matching (Lipman et al. 2023): the network answers the velocity from noise to data, Euler steps follow it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import splatspace

COLUMNS = 8


class SetNetwork(nn.Module):
    """Every Gaussian is a token, and none knows its index: a permuted set gets the permuted answer."""

    def __init__(self, features: int, width: int, layers: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features + 1, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.trunk = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.leave = nn.Linear(width, features)

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """Velocity [image, gaussian, feature] of noisy features at times [image]."""
        times = time[:, None, None].expand(-1, noisy.shape[1], 1)
        return self.leave(self.trunk(self.enter(torch.cat([noisy, times], dim=-1))))


def main() -> None:
    """Trains, samples, and writes a grid of pictures."""
    parser = argparse.ArgumentParser(description="Trains a set transformer on a store.")
    parser.add_argument("--store", type=Path, default=Path("demo.zarr"), help="made of the built-in set where missing")
    parser.add_argument("--out", type=Path, default=Path("set-samples.png"))
    for name, value in {"steps": 2000, "batch": 32, "width": 96, "layers": 4, "evaluations": 50, "samples": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    torch.manual_seed(0)
    if not options.store.exists():
        splatspace.encode(splatspace.resolve_job("demo", options.store, limit=512, gaussians=48))

    dataset = splatspace.SplatDataset(options.store, image=False, features=True, order="none")
    sampler = splatspace.ShardShuffleSampler(dataset, options.batch, drop_last=len(dataset) > options.batch)
    loader = DataLoader(dataset, sampler=sampler, batch_size=None)
    representation, header = dataset.representation, dataset.header
    assert representation is not None
    network = SetNetwork(representation.features, options.width, options.layers)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    print(f"{dataset}, {sum(map(torch.numel, network.parameters())):,} weights")
    losses: list[float] = []
    while len(losses) < options.steps:
        sampler.set_epoch(sampler.epoch + 1)
        for batch in loader:
            clean, noise = batch["features"], torch.randn_like(batch["features"])
            time = torch.rand(len(clean))
            mixed = torch.lerp(noise, clean, time[:, None, None])
            loss = (network(mixed, time) - (clean - noise)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if len(losses) % max(1, options.steps // 5) == 0:
                print(f"step {len(losses):5d}  loss {sum(losses[-100:]) / len(losses[-100:]):.3f}")

    features = torch.randn(options.samples, *representation.shape)
    with torch.no_grad():
        for moment in torch.arange(options.evaluations) / options.evaluations:
            features += network(features, moment.expand(len(features))) / options.evaluations
    splats, size = representation.decode(features).numpy(), {"height": 4 * header.height, "width": 4 * header.width}
    pictures = splatspace.to_uint8(splatspace.decode(splats, layout=dataset.layout, codec=header.codec, **size))
    rows = [torch.cat(list(row), dim=1) for row in torch.from_numpy(pictures).split(COLUMNS) if len(row) == COLUMNS]
    Image.fromarray(torch.cat(rows).squeeze(-1).numpy()).save(options.out)
    print(f"{options.out}: {len(rows) * COLUMNS} samples at 4 times the size of the training images")


if __name__ == "__main__":
    main()
