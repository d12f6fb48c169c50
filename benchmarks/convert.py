"""How near converted stores decode to what the published renderer draws, and what a round trip changes.

    python -m benchmarks.convert

Prints the two tables of docs/convert.md. The first uses random Gaussians in the ranges that published files show, the
second stores encoded here from built-in or given images.

Draws raw ``W`` of the published kernel-stamp layout the way its authors drew it.

It exists to measure how near a converted store decodes to what a published file showed (docs/convert.md); nothing
else uses it. Each Gaussian is a small square image (the stamp) that is padded to the image, shifted by bilinear
resampling and added up; the sum is clamped to [0, 1] over black.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_schemas.errors import StoreError
from data_schemas.published_layouts.options import StampMatch
from data_schemas.published_layouts.record import PublishedRecord
from data_schemas.published_layouts.stamp import StampFrame, activate, to_splats
from data_schemas.published_layouts.stamp_hdf5 import USUAL_KERNEL_SIZE
from data_schemas.records import RowState
from data_schemas.splats import GREY
from data_schemas.stores.open import open_store
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from encoders.render import render
from pipeline.convert.convert import PUBLISHED_SINKS, convert
from pipeline.convert.torch_folder import RECORD_FILE, read_torch_file

HALF_SPAN = 5.0
"""The stamp is sampled on a lattice over [-HALF_SPAN, HALF_SPAN] in both directions."""


def render_stamps(raw: Tensor, height: int, width: int, kernel_size: int, *, fold_alpha: bool = False) -> Tensor:
    """Renders one image of raw, pre-activation Gaussians.

    Args:
        raw: float [gaussian, 7 or 9]: s_row, s_column, rho, alpha, colour(s), x, y before their activations.
        height: pixels.
        width: pixels.
        kernel_size: side of the stamp in pixels; one larger than the image is cropped to it before it is moved.
        fold_alpha: whether colours are multiplied by sigmoid(alpha), as while fitting; the published samplers did not.

    Returns:
        [height, width, channel] in [0, 1].
    """
    gaussians, channels = raw.shape[0], raw.shape[1] - 6
    scale_row, scale_column = torch.sigmoid(raw[:, 0]), torch.sigmoid(raw[:, 1])
    cross = torch.tanh(raw[:, 2]) * scale_row * scale_column
    covariance = torch.stack([scale_row**2, cross, cross, scale_column**2], dim=1).reshape(gaussians, 2, 2)
    if bool((torch.linalg.det(covariance) <= 0).any()):
        covariance = covariance + 1e-6 * torch.eye(2, dtype=raw.dtype)
    colours = raw[:, 4 : 4 + channels].clamp(0, 1)
    if fold_alpha:
        colours = colours * torch.sigmoid(raw[:, 3:4])

    lattice = torch.linspace(-HALF_SPAN, HALF_SPAN, kernel_size, dtype=raw.dtype)
    points = torch.stack(torch.meshgrid(lattice, lattice, indexing="ij"), dim=-1)
    distance = torch.einsum("abi,kij,abj->kab", points, torch.linalg.inv(covariance), points)
    stamps = torch.exp(-0.5 * distance)
    stamps = stamps / stamps.amax(dim=(1, 2), keepdim=True)

    top, left = (height - kernel_size) // 2, (width - kernel_size) // 2
    margins = (left, width - kernel_size - left, top, height - kernel_size - top)
    padded = functional.pad(stamps, margins)[:, None]
    shift = torch.zeros(gaussians, 2, 3, dtype=raw.dtype)
    shift[:, 0, 0] = shift[:, 1, 1] = 1
    shift[:, :, 2] = raw[:, -2:]
    where = functional.affine_grid(shift, [gaussians, 1, height, width], align_corners=True)
    moved = functional.grid_sample(padded, where, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]
    return torch.einsum("khw,kc->hwc", moved, colours).clamp(0, 1)


SIDE = 28
GAUSSIANS = 70
RANGES = {
    "published (sigmoid .27 to .99)": (-1.0, 4.6),
    "at the start (.62 to .73)": (0.5, 1.0),
    "narrow (.05 to .5)": (-3.0, 0.0),
}


def raw_gaussians(deviations: tuple[float, float], seed: int) -> torch.Tensor:
    """Raw numbers [GAUSSIANS, 7] of a dim image: hardly any sum reaches the clamp, which would hide differences."""
    random = torch.Generator().manual_seed(seed)
    raw = torch.rand(GAUSSIANS, 7, generator=random, dtype=torch.float64)
    raw[:, :2] = deviations[0] + raw[:, :2] * (deviations[1] - deviations[0])
    raw[:, 2] = torch.randn(GAUSSIANS, generator=random, dtype=torch.float64) * 0.6
    raw[:, 4] *= 0.35
    raw[:, 5:] = raw[:, 5:] * 2 - 1
    return raw


def stamp_table(images: int) -> None:
    """PSNR between the published drawing and the decoded conversion."""
    print(f"Published drawing against converted decode, {images} images of {GAUSSIANS} Gaussians, {SIDE}x{SIDE}, dB")
    print("| deviations | kernel | centres | fitted |")
    print("|---|---|---|---|")
    matches: tuple[StampMatch, ...] = ("centres", "fitted")
    for name, deviations in RANGES.items():
        for kernel_size in (9, 11, 17, 18):
            frame = StampFrame(SIDE, SIDE, kernel_size)
            errors = dict.fromkeys(matches, 0.0)
            for seed in range(images):
                raw = raw_gaussians(deviations, seed)
                drawn = render_stamps(raw, SIDE, SIDE, kernel_size)
                for match in matches:
                    splats = to_splats(activate(raw.numpy()), frame, alpha="ignored", match=match)
                    decoded = render(torch.from_numpy(splats)[None], GREY, "additive/1", SIDE, SIDE)[0]
                    errors[match] += float(torch.mean((decoded - drawn) ** 2)) / images
            figures = " | ".join(f"{-10 * math.log10(errors[match]):.1f}" for match in matches)
            print(f"| {name} | {kernel_size} | {figures} |")


def round_trip_table(store: Path) -> None:
    """Greatest change of an image's PSNR by a conversion there and back."""
    with open_store(store) as opened:
        header, rows = opened.header, opened.read(("splats", "image", "state"))
    done = rows["state"] == RowState.DONE
    frame = {"codec": header.codec, "height": header.height, "width": header.width}
    before = decode(rows["splats"][done], layout=header.splat_layout, **frame)
    quality = psnr(to_uint8(before), rows["image"][done])
    print(f"{store.name}: {done.sum()} images, {header.height}x{header.width}, K={header.gaussians}, {header.dtype}")
    print("| layout | greatest change of PSNR, dB | greatest change of a pixel (of 255) | notes |")
    print("|---|---|---|---|")
    for layout in PUBLISHED_SINKS:
        with tempfile.TemporaryDirectory() as folder:
            published = Path(folder, "published" if layout == "torch-folder" else "published.h5")
            try:
                notes = convert(store, published, target_layout=layout).notes
            except StoreError as error:
                print(f"| {layout} | - | - | {error.got} |")
                continue
            convert(published, Path(folder, "back.zarr"))
            with open_store(Path(folder, "back.zarr")) as opened:
                back, splats = opened.header, opened.read(("splats",))["splats"][done]
        after = decode(splats, layout=back.splat_layout, **frame)
        # Two lossless decodes differ by nothing, not by infinity minus infinity.
        changed = psnr(to_uint8(after), rows["image"][done])
        change = np.abs(np.where(changed == quality, 0.0, changed - quality)).max()
        print(f"| {layout} | {change:.5f} | {255 * np.abs(after - before).max():.4f} | {'; '.join(notes)} |")


def drawn_table(store: Path) -> None:
    """How near the published renderer draws an exported folder to the store's own images."""
    with open_store(store) as opened:
        header, rows = opened.header, opened.read(("splats", "image", "state"))
    done = np.flatnonzero(rows["state"] == RowState.DONE)
    frame = {"codec": header.codec, "height": header.height, "width": header.width}
    own = decode(rows["splats"], layout=header.splat_layout, **frame)
    with tempfile.TemporaryDirectory() as folder:
        convert(store, Path(folder, "published"))
        record = PublishedRecord.parse(Path(folder, "published", RECORD_FILE).read_bytes(), RECORD_FILE)
        kernel_size = record.kernel_size or USUAL_KERNEL_SIZE
        drawn = np.stack([
            render_stamps(
                torch.from_numpy(read_torch_file(Path(folder, "published", f"gaussian_representation_{row}.pt"))["W"]),
                header.height, header.width, kernel_size,
            ).numpy()
            for row in done
        ])  # fmt: skip
    error = float(np.mean((drawn - own[done]) ** 2))
    source = float(np.mean((drawn - rows["image"][done] / 255.0) ** 2))
    print(f"{store.name} as a torch folder, stamps of {kernel_size} px, drawn by the published renderer:")
    print(
        f"{-10 * math.log10(error):.1f} dB from the store's images, {-10 * math.log10(source):.1f} dB from the source's"
    )


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="The figures of docs/convert.md.")
    parser.add_argument("stores", nargs="*", type=Path, help="stores with images, for the table of round trips")
    parser.add_argument("--images", type=int, default=20, help="random images of the first table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stamp_table(options.images)
    for store in options.stores:
        print()
        round_trip_table(store)
        with contextlib.suppress(StoreError):  # the table above says why
            drawn_table(store)


if __name__ == "__main__":
    main()
