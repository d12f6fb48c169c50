"""Splats and images for the tests of renderers and engines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import Layout


def random_splats(layout: Layout, images: int = 3, gaussians: int = 13, seed: int = 0) -> NDArray[np.float32]:
    """Wide, thin, tilted, sub-pixel and off-canvas Gaussians, float32 [image, gaussian, parameter]."""
    rng = np.random.default_rng(seed)
    splats = np.empty((images, gaussians, layout.width), np.float32)
    for name, low, high in (
        ("sigma_x", 0.01, 0.5),
        ("sigma_y", 0.01, 0.5),
        ("rho", -0.98, 0.98),
        ("x", -1.3, 1.3),
        ("y", -1.3, 1.3),
    ):
        splats[..., layout.index(name)] = rng.uniform(low, high, (images, gaussians))
    splats[..., layout.colour_slice] = rng.uniform(-0.4, 0.9, (images, gaussians, layout.channels))
    if layout.has_alpha:
        splats[..., layout.index("alpha")] = rng.uniform(0, 1, (images, gaussians))
    return splats


def smooth_images(images: int = 4, size: int = 20, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Images of a few soft discs on black, uint8 [image, size, size, channel]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    result = np.zeros((images, size, size, channels))
    for image in result:
        for _ in range(5):
            cx, cy, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(2, size / 3)
            disc = 1 / (1 + np.exp((np.hypot(x - cx, y - cy) - radius) * 1.5))
            image += disc[..., None] * rng.uniform(0, 0.6, channels)
    return np.round(255 * np.clip(result, 0, 1)).astype(np.uint8)


def special_images(size: int = 12, channels: int = 3) -> dict[str, NDArray[np.uint8]]:
    """Images that break careless encoders, each uint8 [1, size, size, channel]."""
    rng = np.random.default_rng(1)
    shape = (1, size, size, channels)
    one_pixel = np.zeros(shape, np.uint8)
    one_pixel[0, 0, -1] = 255
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "flat": np.full(shape, 77, np.uint8),
        "faint": np.full(shape, 1, np.uint8),
        "one pixel": one_pixel,
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "checkers": np.broadcast_to(
            (np.indices((size, size)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None], shape
        ),
    }
