"""Makes the images of docs/cats.md from the runs that ``benchmarks.cats.__main__ race`` left; none shows an original.

    python -m docs.make_cats_pictures runs/cats

``cats-parts.png``: how the heads of the modern recipe make images: of splats, one image at eight times its size, as
round blobs and as ellipses, and the steps between pixels of both recipes, where patches would show as a grid; of
kernels, whole image, filtered image and drift; of tables, patterns and their cosines. ``cats-roll-out.png``: what the
modern splats predict over the steps of sampling. Samples of all heads are the race's own sheet (``--sheet``).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from benchmarks.generation.tables import titled
from pipeline.images import below_each_other, side_by_side
from pipeline.sample.job import SampleJob
from pipeline.sample.run import load_run
from pipeline.sample.sample import sample

IMAGES = Path(__file__).parent / "images"
SHOWN, SIDE = 8, 256


def anatomy(run: Path, work: Path) -> dict[str, Image.Image]:
    """The images of ``--anatomy`` by name."""
    made = sample(load_run(run, device="cpu"), SampleJob(out=work, number=SHOWN, anatomy=True))
    return {path.stem: Image.open(path).convert("RGB") for path in made.anatomy}


def square(picture: Image.Image) -> Image.Image:
    """A square image in the common size, its pixels kept sharp."""
    return picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def first_of(row: Image.Image) -> Image.Image:
    """The first of square images beside each other."""
    return square(row.crop((0, 0, row.height, row.height)))


def seams(picture: Image.Image) -> Image.Image:
    """The first images of an image of seams, with their steps below."""
    return picture.crop((0, 0, 2 * picture.height, picture.height)).resize((2 * SIDE, SIDE), Image.Resampling.LANCZOS)


def main(runs: Path) -> None:
    """Draws both images into docs/images."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            name: anatomy(runs / f"{name}-0", Path(folder) / name)
            for name in ("splats-published", "splats-modern", "kpn-modern", "lut-modern", "outer-modern")
        }
    splats, kernels = parts["splats-modern"], parts["kpn-modern"]["drift"]
    tables = [
        titled(square(parts[name][part]), f"{name.split('-')[0]}: {words}")
        for name in ("lut-modern", "outer-modern")
        for part, words in (("table", "patterns"), ("gram", "their cosines"))
    ]
    rows = [
        side_by_side(
            [
                titled(first_of(splats["zoom-8x"]), "splats, drawn at 8x"),
                titled(first_of(splats["blobs"]), "as round blobs"),
                titled(square(splats["ellipses"]), "as ellipses"),
            ]
        ),
        side_by_side(
            [
                titled(seams(parts["splats-published"]["seams"]), "published splats at 4x; below: steps"),
                titled(seams(splats["seams"]), "modern splats at 4x; below: steps"),
            ]
        ),
        titled(
            kernels.resize((4 * SIDE, round(kernels.height * 4 * SIDE / kernels.width)), Image.Resampling.NEAREST),
            "kpn: whole image, filtered noise, drift",
        ),
        side_by_side(tables),
    ]
    below_each_other(rows, gap=8).save(IMAGES / "cats-parts.png", optimize=True)
    splats["roll-out"].save(IMAGES / "cats-roll-out.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
