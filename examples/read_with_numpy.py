"""Reads a store with numpy and zarr alone, by the formula of docs/store-format.md, and measures it again.

    python examples/read_with_numpy.py --store demo.zarr

Copy ``decode`` into a program that has neither SplatSpace nor torch.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import zarr


def decode(splats: np.ndarray, names: list[str], codec: str, height: int, width: int) -> np.ndarray:
    """Gaussians to pixels, at any size.

    Args:
        splats: float [gaussian, parameter] of one image.
        names: what the parameters are called, the coordinate ``parameter`` of the store.
        codec: the store's attribute.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        uint8 [y, x, channel].
    """
    column = dict(zip(names, splats.astype(np.float64).T, strict=True))
    colours = np.stack([column[name] for name in ("r", "g", "b", "grey") if name in column], axis=1)
    dx = ((2 * np.arange(width) + 1) / width - 1)[None, :, None] - column["x"]
    dy = ((2 * np.arange(height) + 1) / height - 1)[:, None, None] - column["y"]
    u, v, rho = dx / column["sigma_x"], dy / column["sigma_y"], column["rho"]
    weights = np.exp(-0.5 * (u * u - 2 * rho * u * v + v * v) / (1 - rho * rho)) * column.get("alpha", 1)
    if codec == "over/1":  # times what the Gaussians in front let pass
        weights[..., 1:] *= np.cumprod(1 - weights, axis=-1)[..., :-1]
    image = weights @ colours
    if codec == "normalised/1":
        image /= 1e-3 + weights.sum(axis=-1, keepdims=True)
    elif codec not in ("additive/1", "over/1"):
        raise SystemExit(f"The store has codec {codec}, which this program does not know.")
    return np.floor(255 * np.clip(image, 0, 1) + 0.5).astype(np.uint8)


def main() -> None:
    """Decodes some images and compares their PSNR with what the store says."""
    parser = argparse.ArgumentParser(description="Decodes a store with numpy and zarr alone.")
    parser.add_argument("--store", required=True, help="a .zarr with source images")
    parser.add_argument("--images", type=int, default=8)
    options = parser.parse_args()

    store: Any = zarr.open_group(options.store, mode="r")
    codec, height, width, count = (store.attrs[key] for key in ("codec", "height", "width", "gaussians"))
    names = [str(name) for name in store["parameter"][:]]
    done = np.flatnonzero(store["state"][:] == 1)[: options.images]
    print(f"{options.store}: {store['state'].shape[0]} rows of {count} Gaussians ({', '.join(names)}), codec {codec}")
    print("row   PSNR as stored   decoded here   bytes of Gaussians / of pixels")
    for row in done.tolist():
        splats, pixels = store["splats"][row], store["image"][row]
        decoded = decode(splats, names, codec, height, width)
        error = np.mean((decoded.astype(np.float64) - pixels) ** 2)
        psnr = 10 * np.log10(255**2 / error) if error else np.inf
        print(f"{row:3d}   {store['psnr'][row]:11.3f} dB   {psnr:9.3f} dB   {splats.nbytes:7,} / {pixels.nbytes:,}")


if __name__ == "__main__":
    main()
