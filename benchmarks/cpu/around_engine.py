"""What a run costs beside the fit: reading, measuring, writing. Decides how fast an engine can be and still be fed.

    python -m benchmarks.cpu.around_engine --data-dir ../shared/data

Prints core-milliseconds an image, least of three rounds, for a block of 4,096 images of each set. A run reads the next
block, measures the last call of the engine and writes the last block while it fits, each on a thread of its own.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.encode import SETS, markdown
from data_schemas.records import RowBlock, RowState, SourceRecord, StoreHeader, content_hash
from data_schemas.splats import ADDITIVE, layout_for
from data_schemas.stores.open import create_store
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode_with_dead, to_uint8
from encoders.quality import psnr, ssim
from pipeline.encode.block_decision import quantise
from pipeline.sources import open_source

IMAGES = 4096
FITTED = 256
"""Images that are fitted at all; their numbers are repeated for the others."""


def core_ms(work: Callable[[], Any]) -> float:
    """CPU time of all threads in milliseconds an image."""
    times = []
    for _ in range(3):
        before = time.process_time()
        work()
        times.append(time.process_time() - before)
    return 1e3 * min(times) / IMAGES


def row(name: str, data_dir: Path) -> list[str]:
    """The costs of one set."""
    source = open_source(name, data_dir=data_dir / name, split="train" if name != "sprites" else "all", size=None)
    indices = list(range(min(IMAGES, len(source))))
    images = source.read(indices)
    pixels = np.stack([image.pixels for image in images if image.pixels is not None])
    _, height, width, channels = pixels.shape
    layout, gaussians = layout_for(channels), SETS[name]
    fitted = CpuEncoder(FitSettings(gaussians, steps=20)).fit(pixels[:FITTED]).splats
    splats = np.resize(fitted, (len(pixels), *fitted.shape[1:]))
    header = StoreHeader(
        codec=ADDITIVE, layout=layout.name, gaussians=gaussians, height=height, width=width, channels=channels,
        dtype="float16", source=SourceRecord(name=name), block_rows=len(pixels),
    )  # fmt: skip
    rows = RowBlock.empty(len(pixels), header)
    rows.state[:] = RowState.DONE
    if rows.image is not None:
        rows.image[:] = pixels

    def measure() -> None:
        stored, _ = quantise(splats, header)
        decoded, dead = decode_with_dead(stored, layout=layout, codec=ADDITIVE, height=height, width=width)
        seen = to_uint8(decoded)
        rows.splats[:], rows.dead[:] = stored, dead
        rows.psnr[:], rows.ssim[:] = psnr(seen, pixels), ssim(seen, pixels)

    costs = [
        core_ms(lambda: source.read(indices)),
        core_ms(lambda: [content_hash(image) for image in pixels]),
        core_ms(measure),
    ]
    with tempfile.TemporaryDirectory() as folder, create_store(Path(folder, "store.zarr"), header) as store:
        names = [str(index) for index in indices]
        store.append(names)
        rows.source_id[:] = names
        costs.append(core_ms(lambda: store.write_block(0, rows)))
    slowest = max(costs[0], costs[2], costs[3])
    return [f"{name}, K={gaussians}", *(f"{cost:.3f}" for cost in costs), f"{1e3 / slowest:,.0f}"]


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with a folder for each set.")],
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
) -> None:
    """Prints the table."""
    head = ["set", "read", "hash", "round, decode, measure", "write", "images/s of the slowest thread"]
    print(markdown([head, *(row(name, data_dir) for name in only or SETS)]))


if __name__ == "__main__":
    typer.run(main)
