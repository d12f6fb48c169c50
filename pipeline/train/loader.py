"""Batches that follow from the seed and the step alone, so that a training can be continued anywhere.

Position p of the endless stream of images lies in epoch p // N. Each epoch is a permutation of all images. Where the
latents do not fit into memory, shards are permuted, gathered into groups that fit, and images are permuted within
their group: chance of bounded memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.features.pixels import PixelRepresentation
from models.features.splats import SplatRepresentation
from pipeline.train.rows import CHUNK_ROWS, TrainingRows

MEBIBYTE = 2**20
DEFAULT_LATENTS = 4096
"""MiB of latents that are held in memory when nothing else was asked for; a third of a device with less."""


def mix_seed(*parts: int | str) -> int:
    """A seed of 63 bits that follows from all parts."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    Attributes:
        clean: float32 features [image, ...] on the device.
        label: int64 [image], the class, -1 where there is none; None where the model is not conditioned.
        target: float32 [image, y, x, channel] in [0, 1]; None without a loss in image space.
        rows: int64 [image], rows of the store.
    """

    clean: Tensor
    label: Tensor | None
    target: Tensor | None
    rows: NDArray[np.int64]


@dataclass
class _Group:
    """Latents in memory: those of some positions."""

    features: Tensor
    images: Tensor | None
    place: NDArray[np.int64]


class Loader:
    """Hands out the batch of any step.

    Args:
        data: what to learn from.
        representation: with its statistics; on the CPU.
        device: where batches are needed.
        batch: images of a step, over all processes.
        seed: of all permutations.
        most_bytes: of latents in memory.
        rank: of this process.
        world: processes; each takes its share of every batch.

    Attributes:
        resident: whether all latents are in memory.
    """

    def __init__(
        self,
        data: TrainingRows,
        representation: SplatRepresentation | PixelRepresentation,
        *,
        device: torch.device,
        batch: int,
        seed: int,
        most_bytes: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._data, self._representation, self._device = data, representation, device
        self._batch, self._seed = batch, seed
        self._share = slice(rank * batch // world, (rank + 1) * batch // world)
        self._with_images = data.job.render_loss > 0
        header = data.header
        size = 4 * int(np.prod(representation.shape))
        size += header.height * header.width * header.channels if self._with_images else 0
        self.resident = len(data) * size <= most_bytes
        self._shards = self._split(max(CHUNK_ROWS // 16, header.block_rows), most_bytes // 2 // size)
        self._group_rows = max(1, most_bytes // 2 // size)
        self._orders: dict[int, list[NDArray[np.int64]]] = {}
        self._held: dict[tuple[int, int], _Group] = {}
        self._reading: dict[tuple[int, int], Future[_Group]] = {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="latents")
        self._everything = self._read(np.arange(len(data)), device) if self.resident else None

    def _split(self, shard: int, most: int) -> list[NDArray[np.int64]]:
        shard = max(1, min(shard, most))
        return [np.arange(start, min(start + shard, len(self._data))) for start in range(0, len(self._data), shard)]

    def _read(self, positions: NDArray[np.int64], device: torch.device) -> _Group:
        """Latents of some positions (ascending reading is fastest)."""
        ordered = np.sort(positions)
        features, images = [], []
        for start in range(0, len(ordered), CHUNK_ROWS):
            part = ordered[start : start + CHUNK_ROWS]
            features.append(self._representation.encode(torch.from_numpy(self._data.stored(part))).to(device))
            if self._with_images:
                images.append(torch.from_numpy(self._data.images(part)).to(device))
        return _Group(torch.cat(features), torch.cat(images) if images else None, ordered)

    def _order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Groups of positions of one epoch, each permuted; one group where all latents are in memory."""
        if epoch not in self._orders:
            random = np.random.default_rng(mix_seed(self._seed, "epoch", epoch))
            if self.resident:
                groups = [random.permutation(len(self._data))]
            else:
                groups, waiting, count = [], [], 0
                for shard in random.permutation(len(self._shards)):
                    rows = self._shards[shard]
                    if waiting and count + len(rows) > self._group_rows:
                        groups.append(random.permutation(np.concatenate(waiting)))
                        waiting, count = [], 0
                    waiting.append(rows)
                    count += len(rows)
                groups.append(random.permutation(np.concatenate(waiting)))
            self._orders = {kept: order for kept, order in self._orders.items() if kept >= epoch - 1}
            self._orders[epoch] = groups
        return self._orders[epoch]

    def _places(self, step: int) -> list[tuple[int, int, NDArray[np.int64]]]:
        """(epoch, group, positions) of the images of a step, in the order of the batch."""
        stream = np.arange(step * self._batch, (step + 1) * self._batch)[self._share]
        found = []
        for epoch in range(int(stream[0]) // len(self._data), int(stream[-1]) // len(self._data) + 1):
            inside = stream[stream // len(self._data) == epoch] % len(self._data)
            start = 0
            for number, group in enumerate(self._order(epoch)):
                taken = inside[(inside >= start) & (inside < start + len(group))] - start
                if len(taken):
                    found.append((epoch, number, group[taken]))
                start += len(group)
        return found

    def rows(self, step: int) -> NDArray[np.int64]:
        """Rows of the store that this process learns from in a step, in the order of the batch."""
        return self._data.rows[np.concatenate([positions for _, _, positions in self._places(step)])]

    def names(self, rows: Sequence[int]) -> list[str]:
        """What the images of rows are called in their source, for people."""
        return [str(name) for name in self._data.store.read(["source_id"], rows)["source_id"]]

    def _group(self, epoch: int, number: int) -> _Group:
        if self._everything is not None:
            return self._everything
        key = (epoch, number)
        if key not in self._held:
            waiting = self._reading.pop(key, None)
            group = waiting.result() if waiting else self._read(self._order(epoch)[number], torch.device("cpu"))
            self._held = {key: group}
            following = (epoch, number + 1) if number + 1 < len(self._order(epoch)) else (epoch + 1, 0)
            # One read ahead at a time: two groups are in memory.
            positions = self._order(following[0])[following[1]]
            self._reading = {following: self._reader.submit(self._read, positions, torch.device("cpu"))}
        return self._held[key]

    def batch(self, step: int) -> Batch:
        """This process's images of a step."""
        features, images, used = [], [], []
        for epoch, number, positions in self._places(step):
            group = self._group(epoch, number)
            index = torch.from_numpy(np.searchsorted(group.place, positions)).to(group.features.device)
            features.append(group.features[index])
            if group.images is not None:
                images.append(group.images[index])
            used.append(positions)
        chosen = np.concatenate(used)
        clean = torch.cat(features).to(self._device)
        if flip := self._data.job.flip:
            chance = np.random.default_rng(mix_seed(self._seed, "flip", step)).random(self._batch)[self._share]
            mirrored = torch.from_numpy(chance < flip).to(self._device)
            clean = torch.where(mirrored[:, None, None, None], clean.flip(-1), clean)
        label = torch.from_numpy(self._data.class_numbers[chosen]).to(self._device) if self._data.classes else None
        target = torch.cat(images).to(self._device).float() / 255 if images else None
        return Batch(clean, label, target, self._data.rows[chosen])

    def close(self) -> None:
        """Stops reading ahead."""
        self._reader.shutdown(wait=True, cancel_futures=True)


def latent_bytes(asked: int | None, device: torch.device) -> int:
    """Most bytes of latents in memory.

    Args:
        asked: MiB; None: ``DEFAULT_LATENTS``, at most a third of what a CUDA device has free.
        device: where they would be.
    """
    if asked is not None:
        return asked * MEBIBYTE
    if device.type == "cuda":
        return min(DEFAULT_LATENTS * MEBIBYTE, torch.cuda.mem_get_info(device)[0] // 3)
    return DEFAULT_LATENTS * MEBIBYTE
