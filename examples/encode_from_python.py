"""Encodes images from Python: a named set, a folder or arrays of your own; then draws some of them larger.

    python examples/encode_from_python.py --store rings.zarr

Running it again continues: images that are finished are not fitted again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import splatspace

SCALE = 8


def rings(count: int, side: int = 32) -> np.ndarray:
    """Pictures of coloured rings, uint8 [image, y, x, channel]."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    centre, colour = random.uniform(0.3, 0.7, (count, 2, 1, 1)), random.uniform(0.2, 1, (count, 1, 1, 3))
    distance = np.hypot(y - centre[:, 0], x - centre[:, 1])
    waves = 0.5 + 0.5 * np.cos(random.uniform(15, 40, (count, 1, 1)) * distance)
    return (255 * waves[..., None] * colour).astype(np.uint8)


def main() -> None:
    """Encodes, tells how well, and draws the first images beside their sources."""
    parser = argparse.ArgumentParser(description="Encodes images from Python.")
    parser.add_argument("--store", type=Path, default=Path("rings.zarr"), help="where the store is made")
    parser.add_argument("--images", help="a preset, a folder, a .zip, an .npz or an .npy; by default rings made here")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--gaussians", type=int, default=80)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    images = options.images
    if images is None:
        images = str(options.store.with_suffix(".npy"))
        np.save(images, rings(options.limit))
    job = splatspace.resolve_job(
        images, options.store, limit=options.limit, gaussians=options.gaussians, steps=options.steps
    )
    summary = splatspace.encode(job, progress=lambda now: print(f"  {now.processed} of {now.images} images", end="\r"))
    print(f"\n{summary.rows_done} images in {summary.store}, {summary.psnr:.2f} dB (of the mean error)")
    print(f"{summary.fitted} fitted now in {summary.wall_seconds:.1f} s, {summary.kept} were there already")
    for image in summary.failed:
        print(f"  not encoded: {image}")

    with splatspace.open_store(options.store) as store:
        header = store.header
        rows = store.read(["splats", "image", "state", "psnr"])
    shown = np.flatnonzero(rows["state"] == 1)[:6]
    larger = {"height": SCALE * header.height, "width": SCALE * header.width}
    drawn = splatspace.to_uint8(
        splatspace.decode(rows["splats"][shown], layout=header.splat_layout, codec=header.codec, **larger)
    )
    sources = rows["image"][shown].repeat(SCALE, axis=1).repeat(SCALE, axis=2)
    picture = np.concatenate([np.concatenate(list(sources), axis=1), np.concatenate(list(drawn), axis=1)])
    out = options.store.with_suffix(".png")
    Image.fromarray(picture.squeeze()).save(out)
    print(
        f"{out}: pixels above, the same images drawn from {header.gaussians} Gaussians at {SCALE} times the size below"
    )


if __name__ == "__main__":
    main()
