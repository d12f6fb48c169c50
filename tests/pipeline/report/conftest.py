"""A store in memory, for tests of what reads stores: any row can be made to hold anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_schemas.records import RowBlock, RowState, RunRecord, SourceRecord, StoreHeader, content_hash
from data_schemas.splats import layout_for
from data_schemas.stores.contract import ARRAYS, SplatStore, block_range
from encoders.decode import decode, decode_with_dead, to_uint8
from encoders.quality import psnr, ssim

START = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)


class MemoryStore(SplatStore):
    """One block of rows that is the whole store."""

    def __init__(self, header: StoreHeader, rows: RowBlock, path: str = "memory.zarr") -> None:
        super().__init__(Path(path), header, len(rows), writable=False, lock=None)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def arrays(self) -> tuple[str, ...]:
        return tuple(name for name in ARRAYS if name != "image" or self.rows.image is not None)

    @property
    def nbytes_stored(self) -> dict[str, int]:
        # Object arrays have no size of their own: names count a byte for each pointer byte, which is enough here.
        return {name: int(getattr(self.rows, name).nbytes) for name in self.arrays}

    def read(self, names: Sequence[str], rows: slice | Sequence[int] = slice(None)) -> dict[str, NDArray[Any]]:
        selection = rows if isinstance(rows, slice) else np.asarray(rows, np.int64)
        return {name: getattr(self.rows, name)[selection].copy() for name in names}

    def read_block(self, block: int) -> RowBlock:
        numbers = block_range(block, self._header.block_rows, len(self))
        selected = self.read(self.arrays, slice(numbers.start, numbers.stop))
        return RowBlock(**{"image": None, **selected})

    def set_header(self, header: StoreHeader) -> None:
        self._header = header

    def close(self) -> None:
        """It can be read again."""

    def _read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return getattr(self.rows, name)[start:stop]

    def _append(self, source_ids: list[str]) -> None:
        raise NotImplementedError

    def _write_block(self, block: int, rows: RowBlock) -> None:
        raise NotImplementedError

    def _set_header(self, header: StoreHeader) -> None:
        raise NotImplementedError

    def _commit(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


def random_splats(images: int, gaussians: int, channels: int, seed: int) -> NDArray[np.float32]:
    """Splats that vary smoothly with two hidden numbers per image, plus noise: neither all nor nothing is predicted."""
    rng = np.random.default_rng(seed)
    layout = layout_for(channels)
    hidden = rng.uniform(-1, 1, (images, 2))
    base = rng.uniform(-0.8, 0.8, (gaussians, 2))
    splats = np.zeros((images, gaussians, layout.width))
    splats[..., layout.index("sigma_x")] = 0.2 * np.exp(
        0.3 * hidden[:, :1] + 0.05 * rng.normal(size=(images, gaussians))
    )
    splats[..., layout.index("sigma_y")] = 0.25
    splats[..., layout.index("rho")] = 0.3 * hidden[:, 1:]
    splats[..., layout.index("x")] = base[:, 0] + 0.2 * hidden[:, :1] + 0.02 * rng.normal(size=(images, gaussians))
    splats[..., layout.index("y")] = base[:, 1] + 0.2 * hidden[:, 1:] + 0.02 * rng.normal(size=(images, gaussians))
    colours = 0.4 + 0.3 * hidden[:, None, :1] + 0.05 * rng.normal(size=(images, gaussians, channels))
    splats[..., layout.colour_slice] = np.clip(colours, 0, 1)
    return splats.astype(np.float32)


def make_memory_store(
    images: int = 60,
    *,
    gaussians: int = 6,
    size: tuple[int, int] = (12, 10),
    channels: int = 3,
    noise: int = 6,
    seed: int = 0,
    labels: Sequence[str] = ("circle", "square", "star"),
    with_images: bool = True,
    path: str = "memory.zarr",
    runs: int = 1,
    licence: str = "CC0-1.0",
    name: str = "made up",
) -> MemoryStore:
    """A complete store whose source images are its decoded ones with up to ``noise`` grey levels added."""
    header = StoreHeader(
        codec="additive/1",
        layout="rgb" if channels == 3 else "grey",
        gaussians=gaussians,
        height=size[0],
        width=size[1],
        channels=channels,
        images=with_images,
        start="grid",
        engine="cpu",
        settings={"steps": 200, "target_psnr": None, "learning_rate": 0.01},
        source=SourceRecord(
            name=name, split="train", licence=licence, attribution="Someone", label_names=tuple(labels)
        ),
        created=START,
        updated=START,
        runs=tuple(
            RunRecord(
                started=START,
                finished=START,
                images=images,
                reused=0,
                wall_seconds=3.0,
                fit_seconds=2.0,
                core_seconds=6.0,
                workers=4,
                engine="cpu",
                device="cpu (4 workers)",
                versions={"numpy": "2.0"},
            )
            for _ in range(runs)
        ),
    )
    block = RowBlock.empty(images, header)
    if images:
        layout = header.splat_layout
        shape = {"height": size[0], "width": size[1]}
        block.splats[:] = random_splats(images, gaussians, channels, seed)
        decoded = to_uint8(decode(block.splats, layout=layout, codec=header.codec, workers=1, **shape))
        rng = np.random.default_rng(seed + 1)
        level = rng.integers(0, noise + 1, (images, 1, 1, 1)) if noise else np.zeros((images, 1, 1, 1), np.int64)
        added = np.rint(rng.uniform(-1, 1, decoded.shape) * level).astype(np.int64)
        source = np.clip(decoded + added, 0, 255).astype(np.uint8)
        block.psnr[:], block.ssim[:] = psnr(decoded, source), ssim(decoded, source)
        block.dead[:] = decode_with_dead(block.splats, layout=layout, codec=header.codec, **shape, workers=1)[1]
        block.steps[:] = 200
        block.label[:] = np.arange(images) % len(labels) if labels else -1
        block.source_id[:] = [f"{index:05d}.png" for index in range(images)]
        block.content_hash[:] = [content_hash(pixels) for pixels in source]
        block.state[:] = RowState.DONE
        if with_images and block.image is not None:
            block.image[:] = source
    return MemoryStore(header, block, path)


def fail(store: MemoryStore, row: int, reason: str = "the file ends early") -> None:
    """Makes a row what the encoder leaves of an image that it cannot read."""
    block = RowBlock.empty(1, store.header)
    for name in store.arrays:
        if name != "source_id":
            getattr(store.rows, name)[row] = getattr(block, name)[0]
    store.rows.state[row] = RowState.FAILED
    store.rows.failure[row] = reason


@pytest.fixture
def make_store() -> Callable[..., MemoryStore]:
    """``make_store(images, **options)``: a complete store in memory."""
    return make_memory_store


@pytest.fixture
def fail_row() -> Callable[..., None]:
    """``fail_row(store, row, reason)``: makes a row failed."""
    return fail
