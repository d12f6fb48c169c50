"""How far apart engines are that differ in rounding and cut-offs only, on real images and equal starts.

    python -m benchmarks.gpu.parity --data-dir ../shared/data

Fits some MNIST images with the compiled CPU engine and with dense autograd (engine ``reference``, whose sums leave
nothing out, as those of engine ``cuda``), and prints how the PSNR of the same image differs. A fit is chaotic: rounding
alone moves single images by decibels, so the figures that count are the mean and its standard error.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.encode import SETS, markdown
from data_schemas.splats import ADDITIVE, NORMALISED, CodecName, layout_for
from encoders.autograd.reference import ReferenceEncoder
from encoders.base import Encoder, FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode, to_uint8
from encoders.quality import psnr, psnr_of_mean_error
from pipeline.sources import open_source

APART = 50
"""Every so many images of the set one is taken."""


def quality(encoder: Encoder, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """PSNR [image] of a fit after rounding to 8 bits; lossless images count as 100 dB."""
    _, height, width, channels = images.shape
    decoded = decode(
        encoder.fit(images).splats,
        layout=layout_for(channels),
        codec=encoder.settings.codec,
        height=height,
        width=width,
    )
    return np.minimum(psnr(to_uint8(decoded), images), np.float32(100))


def row(images: NDArray[np.uint8], codec: CodecName, steps: int) -> list[str]:
    """One codec after so many steps."""
    settings = FitSettings(SETS["mnist"], steps, codec=codec)
    cpu, dense = quality(CpuEncoder(settings), images), quality(ReferenceEncoder(settings), images)
    apart = dense - cpu
    return [
        codec,
        str(steps),
        f"{psnr_of_mean_error(cpu):.2f}",
        f"{psnr_of_mean_error(dense):.2f}",
        f"{apart.mean():+.3f} +- {apart.std() / np.sqrt(len(apart)):.3f}",
        f"{apart.std():.2f}",
        f"{np.abs(apart).max():.2f}",
    ]


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folder mnist.")],
    images: Annotated[int, typer.Option(min=2, help="How many images.")] = 64,
) -> None:
    """Prints the table."""
    source = open_source("mnist", data_dir=data_dir / "mnist", split="train", size=None)
    read = source.read(range(0, images * APART, APART))
    pixels = np.stack([image.pixels for image in read if image.pixels is not None])
    head = ["codec", "steps", "cpu, dB", "dense, dB", "dense - cpu, dB", "of one image", "most"]
    rows = [row(pixels, codec, steps) for codec in (ADDITIVE, NORMALISED) for steps in (5, 50, 200)]
    print(markdown([head, *rows]))


if __name__ == "__main__":
    typer.run(main)
