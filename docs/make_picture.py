"""Makes docs/images/overview.png from the built-in data set.

    python docs/make_picture.py

Columns: source, splats as one-sigma ellipses, decoded at the source's size, error, decoded at sixteen times the size.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from data_schemas.splats import ADDITIVE, RGB
from encoders.base import FitSettings
from encoders.decode import decode, to_uint8
from encoders.engines import create_encoder
from encoders.quality import psnr
from pipeline.report.ellipses import draw_ellipses
from pipeline.sources import open_source

IMAGES = (1, 4, 10)
GAUSSIANS = 150
ERROR_FACTOR = 50
SIDE = 512


def main() -> None:
    """Encodes three characters and draws them."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pixels = np.stack([item.pixels for item in open_source("demo").read(IMAGES) if item.pixels is not None])
    _, height, width, _ = pixels.shape
    splats = create_encoder("cpu", FitSettings(gaussians=GAUSSIANS)).fit(pixels).splats.astype(np.float16)
    decoded = to_uint8(decode(splats, layout=RGB, codec=ADDITIVE, height=height, width=width))
    large = to_uint8(decode(splats, layout=RGB, codec=ADDITIVE, height=SIDE, width=SIDE))
    quality = psnr(decoded, pixels)
    titles = ("source, 32x32", f"{GAUSSIANS} splats, one sigma", "decoded, 32x32", f"error x{ERROR_FACTOR}",
              f"decoded, {SIDE}x{SIDE}")  # fmt: skip
    figure, axes = pyplot.subplots(
        len(IMAGES), len(titles), figsize=(2 * len(titles), 2.08 * len(IMAGES) + 0.3), layout="constrained"
    )
    for row, (source, numbers, near, far) in enumerate(zip(pixels, splats, decoded, large, strict=True)):
        error = np.clip(ERROR_FACTOR * np.abs(near.astype(int) - source), 0, 255).astype(np.uint8)
        ellipses = np.asarray(draw_ellipses(numbers.astype(np.float32), RGB, height, width, SIDE))
        for axis, picture in zip(axes[row], (source, ellipses, near, error, far), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
        axes[row][2].set_xlabel(f"{quality[row]:.1f} dB", fontsize=9)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    target = Path(__file__).parent / "images" / "overview.png"
    figure.savefig(target, dpi=90)
    print(target)


if __name__ == "__main__":
    main()
