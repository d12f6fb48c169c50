"""Starts from pixels: the compiled part of ``encoders.regression``."""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.vector import LANES, fused, load, splat, store, total


@compiled
def predict_rows(pixels, landmarks, squares, scale, weights, offsets, folds, numbers, features, result):
    """A radial basis function network for a handful of images.

    result_i = offsets + sum over landmarks l of exp(-|x_i - x_l|^2 / scale) weights[fold_i, l]. Every sum runs in the
    same order whatever images stand beside image i, so its numbers do not depend on them.

    Args:
        pixels: float32 [image * inputs], images one after the other, ``inputs`` a multiple of ``LANES``.
        landmarks: float32 [landmark * inputs].
        squares: float32 [landmark], squared lengths of the landmarks.
        scale: squared distance at which a basis function falls to 1 / e.
        weights: float32 [fold * landmark * numbers], ``numbers`` a multiple of ``LANES``.
        offsets: float32 [numbers].
        folds: int64 [image], which weights an image is given.
        numbers: outputs of an image, padded.
        features: float32 [image], overwritten.
        result: float32 [image * numbers], receives the outputs.
    """
    images, count = len(folds), len(squares)
    inputs = len(pixels) // max(images, 1)
    for image in range(images):
        for n in range(0, numbers, LANES):
            store(result, image * numbers + n, load(offsets, n))
        length = splat(0.0)
        for n in range(0, inputs, LANES):
            value = load(pixels, image * inputs + n)
            length = fused(value, value, length)
        features[image] = total(length)
    for landmark in range(count):
        # Landmarks outside, images inside: a landmark is read from memory once for all of them.
        for image in range(images):
            product = splat(0.0)
            for n in range(0, inputs, LANES):
                product = fused(load(pixels, image * inputs + n), load(landmarks, landmark * inputs + n), product)
            distance = features[image] + squares[landmark] - np.float32(2) * total(product)
            basis = splat(np.float32(np.exp(-max(distance, np.float32(0)) / np.float32(scale))))
            row = (folds[image] * count + landmark) * numbers
            for n in range(0, numbers, LANES):
                at = image * numbers + n
                store(result, at, fused(basis, load(weights, row + n), load(result, at)))
