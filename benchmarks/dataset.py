"""How fast training code gets items of a store: row by row, through ``SplatDataset``, and from tensors in memory.

    python -m benchmarks.dataset

Prints the table of docs/performance.md. The store is made here: random Gaussians and pixels in the sizes of sprites.
Items for a second of the CPU, of one process with all its threads, the best of some repeats; what is compared
takes turns. Files are in the page cache of the system.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data_schemas.records import RowBlock, RowState, SourceRecord, StoreHeader
from data_schemas.stores.open import create_store, open_store
from pipeline.dataset.shard_shuffle import ShardShuffleSampler
from pipeline.dataset.splat_dataset import SplatDataset

BATCH = 64
STREAMED_MEMORY = 24
"""MiB, about half of what the set needs."""


class Tensors(Dataset[Any]):
    """What a set in memory costs at best: the same items, of float32 tensors that are there."""

    def __init__(self, whole: dict[str, torch.Tensor]) -> None:
        self._whole = whole
        self._labels, self._rows = whole["label"].tolist(), whole["row"].tolist()

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One item."""
        splats, image = self._whole["splats"][index], self._whole["image"][index]
        return {"splats": splats, "image": image, "label": self._labels[index], "row": self._rows[index]}


def make_store(path: Path, rows: int, block_rows: int) -> None:
    """Random Gaussians and pixels in the sizes of sprites: 150 Gaussians, 32 x 32 pixels, float16."""
    header = StoreHeader(
        codec="additive/1", layout="rgb", gaussians=150, height=32, width=32, channels=3, dtype="float16",
        source=SourceRecord(name="random"), block_rows=block_rows,
    )  # fmt: skip
    random = np.random.default_rng(0)
    with create_store(path, header) as store:
        store.append([str(row) for row in range(rows)])
        for block in range(rows // block_rows):
            part = RowBlock.empty(block_rows, header)
            part.splats[:] = random.uniform(0.05, 0.9, part.splats.shape)
            assert part.image is not None
            part.image[:] = random.integers(0, 256, part.image.shape)
            part.state[:] = RowState.DONE
            store.write_block(block, part)


def row_by_row(path: Path, rows: int) -> Callable[[], int]:
    """A plain loop over the store in random order."""

    def read() -> int:
        order = np.random.default_rng(1).permutation(rows)
        items = []
        with open_store(path) as store:
            for row in order.tolist():
                content = store.read(["splats", "image", "label"], [row])
                items.append((
                    torch.from_numpy(content["splats"][0]).float(),
                    torch.from_numpy(content["image"][0]).permute(2, 0, 1).float() / 255,
                ))  # fmt: skip
        return len(items)

    return read


def through(loader: Iterable[dict[str, Any]]) -> Callable[[], int]:
    """One epoch of a loader."""
    return lambda: sum(len(batch["row"]) for batch in loader)


def rates(ways: dict[str, Callable[[], int]], repeats: int) -> dict[str, float]:
    """Items for a second of the CPU of each way, the best of some turns."""
    best = dict.fromkeys(ways, 0.0)
    for _ in range(repeats):
        for name, way in ways.items():
            began = time.process_time()
            count = way()
            best[name] = max(best[name], count / (time.process_time() - began))
    return best


def table(path: Path, *, few: int, repeats: int) -> dict[str, float]:
    """Items for a second of the CPU, for every way of reading one store.

    Args:
        path: of the store.
        few: rows that are read one by one.
        repeats: turns.
    """
    held = SplatDataset(path)
    streamed = SplatDataset(path, memory=STREAMED_MEMORY)
    tensors = Tensors(held[:])
    shuffled = {"batch_size": BATCH, "shuffle": True}
    streams = ShardShuffleSampler(streamed, BATCH)
    return rates(
        {
            "store row by row, random order": row_by_row(path, few),
            "SplatDataset larger than memory, ShardShuffleSampler": through(
                DataLoader(streamed, sampler=streams, batch_size=None)
            ),
            "SplatDataset in memory, ShardShuffleSampler": through(
                DataLoader(held, sampler=ShardShuffleSampler(held, BATCH), batch_size=None)
            ),
            "SplatDataset in memory, DataLoader(shuffle=True)": through(DataLoader(held, **shuffled)),
            "float32 tensors in memory, DataLoader(shuffle=True)": through(DataLoader(tensors, **shuffled)),
        },
        repeats,
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="The table of docs/performance.md on reading stores for training.")
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--block-rows", type=int, default=1024)
    parser.add_argument("--few", type=int, default=256, help="rows that are read one by one")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("zarr", "h5"):
            path = Path(folder, f"random.{suffix}")
            make_store(path, options.rows, options.block_rows)
            found[suffix] = table(path, few=options.few, repeats=options.repeats)
    print("| items for a second of the CPU | zarr | HDF5 |")
    print("|---|---|---|")
    for name in found["zarr"]:
        print(f"| {name} | {found['zarr'][name]:,.0f} | {found['h5'][name]:,.0f} |")


if __name__ == "__main__":
    main()
