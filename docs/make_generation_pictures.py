"""Makes the images of docs/sample.md from the runs that ``benchmarks.generation.__main__`` left.

    python docs/make_generation_pictures.py runs/generation
    python docs/make_generation_pictures.py runs/generation composed

MNIST: a sheet of all classes with guidance, and digits whose lower half is drawn again, both by
``mnist/splatdit-labels-0`` (the images here: by 600 steps, docs/results.md). Sprites: one sample at fourteen
times the size beside its ellipses, the same as SVG, and another in new colours: none of the art itself. ``composed``
alone: samples of ``sprites/pixel-dit-0`` and the splats that fit them, by 300 steps on 2,000 images.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from data_schemas.stores.open import open_store
from encoders.decode import decode, to_uint8
from pipeline.export.export import export_image
from pipeline.images import below_each_other, picture_of, side_by_side
from pipeline.report.ellipses import draw_ellipses
from pipeline.sample.job import KnownPart, SampleJob
from pipeline.sample.run import Run, load_run
from pipeline.sample.sample import sample

IMAGES = Path(__file__).parent / "images"
SMALL, TILE, LARGE = 32, 128, 448
DIGIT, CHARACTER = 7, 0
ANEW = 6
SHOWN = 2
COMPOSED = 9


def stored(store: Path, image: int, side: int) -> Image.Image:
    """A stored image, decoded at another size."""
    with open_store(store, "r") as opened:
        header = opened.header
        splats = opened.read(["splats"], [image])["splats"]
    pixels = decode(splats, layout=header.splat_layout, codec=header.codec, height=side, width=side)
    return picture_of(to_uint8(pixels)[0])


def part_anew(run: Run, store: Path, image: int, work: Path, box: tuple[int, int, int, int] | None) -> Image.Image:
    """The stored image, then samples that keep a part of it."""
    known = KnownPart(str(store), str(image), box)
    side = SMALL if box is None else TILE
    made = sample(run, SampleJob(out=work, number=ANEW, size=side, known=known, guidance=2.0 if box else 1.0))
    tiles = [stored(store, image, side), *(Image.open(path) for path in made.pictures)]
    return side_by_side([tile.resize((TILE, TILE), Image.Resampling.NEAREST) for tile in tiles])


def composed(runs: Path, work: Path) -> None:
    """Pixels that a generator drew, what the splats for them show as large and larger, and the way between two."""
    pixels = load_run(runs / "sprites" / "pixel-dit-0", device="cpu")
    ends = (0, COMPOSED - 1)
    made = sample(pixels, SampleJob(out=work / "composed", number=COMPOSED, splats=True, size=TILE, interpolate=ends))
    assert made.store is not None  # the fit writes one
    assert made.strip is not None
    with open_store(made.store, "r") as opened:
        header, content = opened.header, opened.read(["image", "splats"])
    near = [picture_of(image).resize((TILE, TILE), Image.Resampling.NEAREST) for image in content["image"]]
    shown = [stored(made.store, row, header.height) for row in range(COMPOSED)]
    rows = [
        near,
        [picture.resize((TILE, TILE), Image.Resampling.NEAREST) for picture in shown],
        [Image.open(path) for path in made.pictures],
        [draw_ellipses(splats, header.splat_layout, header.height, header.width, TILE) for splats in content["splats"]],
    ]
    strip = Image.open(made.strip)
    sheet = below_each_other([*(side_by_side(row) for row in rows), strip], gap=4)
    sheet.resize((sheet.width * 3 // 4, sheet.height * 3 // 4)).quantize(128).save(
        IMAGES / "composed.png", optimize=True
    )


def main(runs: Path, only: str = "") -> None:
    """Draws everything into docs/images, or ``composed`` only."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        composed(runs, Path(folder))
    if only == "composed":
        return
    mnist = runs / "mnist" / "mnist.zarr"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        digits = load_run(runs / "mnist" / "splatdit-labels-0", device="cpu")
        sheet = sample(digits, SampleJob(out=work / "classes", number=100, guidance=2.0))
        Image.open(sheet.grid).save(IMAGES / "generated-classes.png", optimize=True)
        half = (0, 14, 28, 28)
        part_anew(digits, mnist, DIGIT, work / "inpainted", half).save(IMAGES / "inpainted.png", optimize=True)

        characters = load_run(runs / "sprites" / "splatdit-0", device="cpu")
        made = sample(characters, SampleJob(out=work / "large", number=SHOWN + 1, size=LARGE))
        assert made.store is not None  # a generator of splats writes one
        painted = part_anew(characters, made.store, CHARACTER, work / "painted", None)
        painted.save(IMAGES / "recoloured.png", optimize=True)
        with open_store(made.store, "r") as opened:
            header, splats = opened.header, opened.read(["splats"], [SHOWN])["splats"][0].astype(np.float32)
        ellipses = draw_ellipses(splats, header.splat_layout, header.height, header.width, LARGE)
        near = picture_of(characters.rendered(splats[None])[0]).resize((LARGE, LARGE), Image.Resampling.NEAREST)
        views = [near, ellipses, Image.open(made.pictures[SHOWN])]
        side_by_side(views).save(IMAGES / "generated-large.png", optimize=True)
        export_image(str(made.store), str(SHOWN), IMAGES / "generated.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
