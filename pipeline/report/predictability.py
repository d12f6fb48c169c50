"""Predictability: the share of the splat numbers of an image that its pixels predict.

A generator learns a map to splat arrays. Where equal images have unequal arrays (another order, another random
start), no model can recover the difference, so a store with high PSNR may still be hard to learn. The measure:

1. Draw at most ``max_images`` done images with a seeded generator, and, of an image of more than 512 Gaussians,
   512 slots. Images of more than 64 pixels a side are reduced by box means.
2. Write each Gaussian as (x, y), the three entries of the matrix logarithm of its covariance, and its colours and
   opacity. The logarithm is unique and unconstrained: no angle to wrap, no bound on a correlation.
3. Clip each number (slot and parameter) to its 0.5 to 99.5 percentile over the sample, and scale it to mean 0 and
   variance 1. Numbers that do not vary are left out and counted.
4. Predict all of them from the pixels by kernel ridge regression (Gaussian kernel whose width is the median distance
   between images) in 5 folds, each predicted by a fit to the other four.
5. R2 = 1 - squared error / variance, summed over all numbers. The best of 3 ridges by this same out-of-fold R2 is
   reported, so it is optimistic by what a choice among 3 can add: next to nothing against hundreds of thousands of
   numbers.

Gaussians that cannot be seen (colour times opacity under half a grey level) have arbitrary geometry. ``r2`` keeps
them, for a generator that learns the stored numbers has to produce them too. ``r2_visible`` leaves their position
and shape out of scaling and score, and fits the mean in their place (which pulls predictions to the mean, so it is a
lower bound): where it is well above ``r2``, arbitrary geometry is what makes the store hard.

The folds need no fit of their own (``pipeline.kernel_ridge``): three inverses stand for fifteen fits.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_schemas.errors import StoreMismatchError
from data_schemas.splats import Layout
from data_schemas.stores.contract import SplatStore
from encoders.decode import decode, to_uint8
from pipeline.kernel_ridge import FOLDS, RIDGES, kernel_width, out_of_fold_error, shuffled_folds, squared_distances
from pipeline.report.predictability_record import MAXIMUM_IMAGES, Decoder, Predictability, PredictabilityResult
from pipeline.report.splat_coordinates import Whitened, splat_numbers, whiten

MINIMUM_IMAGES = 50

_MAXIMUM_SLOTS = 512
_MAXIMUM_SIDE = 64
_ROWS_AT_ONCE = 256


def _kernel(pixels: NDArray[Any]) -> NDArray[np.float64] | None:
    """Gaussian kernel of the pixels; None where all images are equal."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float32) / 255.0
    squared = squared_distances(flat - flat.mean(axis=0)).astype(np.float64)
    width = kernel_width(squared)
    return np.exp(-squared / width) if width > 0 else None


def _error(
    kernel: NDArray[np.float64], targets: Whitened, folds: list[NDArray[np.int64]], ridge: float
) -> NDArray[np.float64]:
    """Squared error by number, each image predicted from the other folds: float64 [number]."""
    return out_of_fold_error(kernel, targets.values, folds, ridge, targets.counted)


def _r2(error: NDArray[np.float64], targets: Whitened, group: int | None = None) -> float | None:
    chosen = np.ones(len(error), bool) if group is None else targets.group == group
    entries = len(targets.values) * int(chosen.sum())
    if targets.counted is not None:
        entries = int(targets.counted[:, chosen].sum())
    # Each counted entry has variance 1 by construction, so the variance is the number of entries.
    return round(1.0 - float(error[chosen].sum()) / entries, 4) if entries else None


def predictability_of(
    splats: NDArray[Any],
    pixels: NDArray[Any],
    layout: Layout,
    *,
    seed: int = 0,
    source: Literal["source", "decoded"] = "source",
) -> PredictabilityResult:
    """Measures how well pixels predict splats (see the module).

    Args:
        splats: float [image, gaussian, parameter], finite.
        pixels: uint8 or float [image, height, width, channel] in 0 to 255.
        layout: names the parameters.
        seed: decides the folds, and which slots where there are more than 512.
        source: what the pixels are, for the record.

    Returns:
        The measure, or the reason why there is none (fewer than 50 images, nothing varies).
    """
    images = len(splats)
    if images < MINIMUM_IMAGES:
        return _too_few(images)
    splats = splats[:, _slots(splats.shape[1], seed)]
    kernel = _kernel(pixels)
    if kernel is None:
        return PredictabilityResult(None, "all images of the sample are equal: there is nothing to predict from")
    numbers, group, visible = splat_numbers(splats, layout)
    targets = whiten(numbers, group, None)
    if targets.values.shape[1] == 0:
        return PredictabilityResult(None, "the splats of all images are equal: there is nothing to predict")
    folds = shuffled_folds(images, seed)
    # One thread of linear algebra: on a busy machine several wait for each other, up to ten times as long in all,
    # and the last digits would depend on their number.
    with threadpool_limits(1, user_api="blas"):
        errors = {ridge: _error(kernel, targets, folds, ridge) for ridge in RIDGES}
        ridge = min(RIDGES, key=lambda candidate: float(errors[candidate].sum()))
        r2 = _r2(errors[ridge], targets)
        assert r2 is not None  # some number varies: checked above
        r2_visible = None
        if not visible.all():
            seen = whiten(numbers, group, visible[:, :, None] | (group == 2)[None, None, :])
            r2_visible = _r2(_error(kernel, seen, folds, ridge), seen)
    return PredictabilityResult(
        Predictability(
            r2=r2,
            r2_position=_r2(errors[ridge], targets, 0),
            r2_shape=_r2(errors[ridge], targets, 1),
            r2_colour=_r2(errors[ridge], targets, 2),
            r2_visible=r2_visible,
            invisible_share=round(float(1.0 - visible.mean()), 4),
            images=images,
            gaussians=splats.shape[1],
            numbers=targets.values.shape[1],
            constant_numbers=targets.constant,
            pixels=source,
            folds=FOLDS,
            ridges=RIDGES,
            ridge=ridge,
            seed=seed,
        )
    )


def _too_few(images: int) -> PredictabilityResult:
    return PredictabilityResult(None, f"too few images: {images}, and it takes {MINIMUM_IMAGES} or more")


def _slots(gaussians: int, seed: int) -> NDArray[np.int64]:
    """Which slots take part: all, or a seeded choice that bounds memory and time."""
    if gaussians <= _MAXIMUM_SLOTS:
        return np.arange(gaussians)
    return np.sort(np.random.default_rng([seed, gaussians]).choice(gaussians, _MAXIMUM_SLOTS, replace=False))


def reduce_images(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Box means of images so that no side is longer than 64 pixels.

    Args:
        images: uint8 [image, height, width, channel].

    Returns:
        float32 [image, row, column, channel] in 0 to 255; equal to ``images`` where they are small.
    """
    height, width = images.shape[1:3]
    box = -(-max(height, width) // _MAXIMUM_SIDE)
    if box == 1:
        return images.astype(np.float32)
    rows, columns = np.arange(0, height, box), np.arange(0, width, box)
    total = np.add.reduceat(np.add.reduceat(images, rows, axis=1, dtype=np.int64), columns, axis=2)
    area = np.diff([*rows, height])[:, None] * np.diff([*columns, width])[None, :]
    return (total / area[None, :, :, None]).astype(np.float32)


def measure_predictability(
    store: SplatStore, *, max_images: int = MAXIMUM_IMAGES, seed: int = 0, decoder: Decoder = decode
) -> PredictabilityResult:
    """Measures the predictability of a store on a seeded sample of its done images.

    Args:
        store: any store; without source images the decoded ones stand in for them, and the record says so.
        max_images: most images of the sample.
        seed: decides the sample and the folds; the same store and seed give the same figures.
        decoder: decodes splats where the store has no source images.

    Raises:
        StoreCorruptError: a row of the sample fails its checksum.
    """
    header = store.header
    done = store.finished_rows()
    if len(done) < MINIMUM_IMAGES:
        return _too_few(len(done))
    if len(done) > max_images:
        done = np.sort(np.random.default_rng(seed).choice(done, max_images, replace=False))
    has_source = "image" in store.arrays
    layout = header.splat_layout
    slots = _slots(header.gaussians, seed)
    splats: list[NDArray[Any]] = []
    pixels: list[NDArray[np.float32]] = []
    # In portions, each reduced at once: a sample of large images must not fill the memory.
    for first in range(0, len(done), _ROWS_AT_ONCE):
        read = store.read(
            ["splats", "image"] if has_source else ["splats"], [int(row) for row in done[first : first + _ROWS_AT_ONCE]]
        )
        splats.append(read["splats"][:, slots])
        if has_source:
            pixels.append(reduce_images(read["image"]))
        else:
            try:
                decoded = decoder(
                    read["splats"], layout=layout, codec=header.codec, height=header.height, width=header.width
                )
            except StoreMismatchError as error:
                return PredictabilityResult(None, f"the store holds no source images, and: {error}")
            pixels.append(reduce_images(to_uint8(decoded)))
    sample = np.concatenate(splats)
    unusable = int((~np.isfinite(sample).all(axis=(1, 2))).sum())
    if unusable:
        return PredictabilityResult(None, f"{unusable} done images of the sample hold splats that are not finite")
    return predictability_of(
        sample, np.concatenate(pixels), layout, seed=seed, source="source" if has_source else "decoded"
    )
