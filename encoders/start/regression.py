"""Starts that are predicted from the pixels: a small network, learned from a first fit of some images of the set.

What an optimiser makes of an image holds much that its pixels do not decide: which of two Gaussians took which stroke.
A generator has to learn that noise. The regression holds what is left when it is averaged away, and a second fit that
begins there stays nearer to it (``pipeline.encode.refine`` learns it and says how).

The network has one hidden layer of radial basis functions around images of the set, so its output weights follow from
a linear system: no training run, no random numbers but the choice of images, the same answer on every run.

Starts from pixels: the compiled part of ``encoders.start.regression``.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreCorruptError, StoreMismatchError
from data_schemas.records import content_hash
from encoders.base import FitSettings
from encoders.compiled import compiled
from encoders.frame import COLOUR
from encoders.start.begin import StartRecipe, begin
from encoders.vector import LANES, fused, load, splat, store, total

FOLDS = 5
MOST_SIDE = 32
"""Pixels a side that the network looks at; larger images are reduced by box means."""

SHARE = 0.5
"""How far starts are moved from the usual ones to what is predicted."""

_ARRAYS = ("landmarks", "weights", "offsets", "scale", "shape", "frame")


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


def fold_of(pixels: NDArray[np.uint8]) -> int:
    """The fold of an image, by its content: equal images share one, whatever their names.

    Args:
        pixels: uint8 [height, width, channel].
    """
    return int(content_hash(pixels)[0]) % FOLDS


def inputs_of(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the network looks at.

    Args:
        images: uint8 [image, height, width, channel].

    Returns:
        float32 [image, input] in [0, 1], zeros up to a multiple of ``LANES``.
    """
    count, height, width, channels = images.shape
    box = -(-max(height, width) // MOST_SIDE)
    values = images.astype(np.float32)
    if box > 1:
        rows, columns = np.arange(0, height, box), np.arange(0, width, box)
        values = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
        area = np.diff([*rows, height])[:, None] * np.diff([*columns, width])[None, :]
        values /= area[None, :, :, None].astype(np.float32)
    flat = values.reshape(count, values.shape[1] * values.shape[2] * channels) * np.float32(1 / 255)
    return np.pad(flat, ((0, 0), (0, -flat.shape[1] % LANES)))


@dataclass(frozen=True)
class StartRegression:
    """The network.

    An image whose fold is f is given the weights that were learned without the images of fold f, so no image's own
    first fit takes part in what is predicted for it.

    Attributes:
        landmarks: float32 [landmark, input], inputs of the images around which the basis functions stand.
        weights: float32 [FOLDS, landmark, number].
        offsets: float32 [number].
        scale: squared distance at which a basis function falls to 1 / e.
        shape: (height, width, channels) of the images.
        frame: (K, parameters) of what is predicted; ``number`` is their product, padded to a multiple of ``LANES``.
    """

    landmarks: NDArray[np.float32]
    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]
    scale: float
    shape: tuple[int, int, int]
    frame: tuple[int, int]

    @cached_property
    def digest(self) -> str:
        """BLAKE2b of all numbers: stores whose regressions differ hold different splats."""
        digest = hashlib.blake2b(digest_size=16)
        for name, values in self._arrays().items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values).tobytes())
        return "blake2b:" + digest.hexdigest()

    @cached_property
    def _squares(self) -> NDArray[np.float32]:
        return np.square(self.landmarks.astype(np.float64)).sum(axis=1).astype(np.float32)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixel-frame parameters (encoders.frame); those of an image depend on its pixels alone.

        Args:
            images: uint8 [image, height, width, channel].

        Returns:
            float32 [image, gaussian, parameter].
        """
        count, numbers = len(images), len(self.offsets)
        result = np.empty(count * numbers, np.float32)
        predict_rows(
            inputs_of(images).reshape(-1),
            self.landmarks.reshape(-1),
            self._squares,
            self.scale,
            self.weights.reshape(-1),
            self.offsets,
            np.array([fold_of(image) for image in images], np.int64),
            numbers,
            np.empty(count, np.float32),
            result,
        )
        gaussians, parameters = self.frame
        return result.reshape(count, numbers)[:, : gaussians * parameters].reshape(count, gaussians, parameters)

    def _arrays(self) -> dict[str, Any]:
        return {
            "landmarks": self.landmarks,
            "weights": self.weights,
            "offsets": self.offsets,
            "scale": np.array(self.scale, np.float64),
            "shape": np.array(self.shape, np.int64),
            "frame": np.array(self.frame, np.int64),
        }

    def to_bytes(self) -> bytes:
        """As an .npz file."""
        file = io.BytesIO()
        np.savez(file, digest=np.array(self.digest), **self._arrays())
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, name: object) -> StartRegression:
        """Reads what :meth:`to_bytes` wrote.

        Args:
            content: of the file.
            name: of the file, for messages.

        Raises:
            StoreCorruptError: truncated, changed or of another kind.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {key: file[key] for key in _ARRAYS}
                digest = str(file["digest"])
            height, width, channels = (int(number) for number in arrays["shape"])
            gaussians, parameters = (int(number) for number in arrays["frame"])
            found = cls(
                landmarks=arrays["landmarks"],
                weights=arrays["weights"],
                offsets=arrays["offsets"],
                scale=float(arrays["scale"]),
                shape=(height, width, channels),
                frame=(gaussians, parameters),
            )
        except (ValueError, KeyError, OSError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise _damage_error(name, str(error)) from error
        if found.digest != digest:
            raise _damage_error(name, "its numbers are not those that were written")
        return found


class RegressedStarts:
    """Where the second fit begins: between the usual start and what the regression predicts.

    The usual start knows this very image, the regression what fits of its like have in common.

    Args:
        regression: of the set.
        settings: K, start and seed.
        recipe: constants of the usual start.
    """

    def __init__(self, regression: StartRegression, settings: FitSettings, recipe: StartRecipe) -> None:
        self._regression, self._settings, self._recipe = regression, settings, recipe

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixel-frame parameters float32 [image, gaussian, 5 + channel] (encoders.frame).

        Args:
            images: uint8 [image, height, width, channel].

        Raises:
            StoreMismatchError: a regression of another K or size of images.
        """
        starts = begin(images, self._settings, self._recipe)
        regression = self._regression
        if regression.shape != images.shape[1:] or regression.frame != starts.shape[1:]:
            raise StoreMismatchError(
                f"a regression of {regression.frame[0]} Gaussians for images of {regression.shape}, where "
                f"{starts.shape[1]} for {images.shape[1:]} are fitted",
                next_step="leave the regression out of the job: it is learned for the job's own settings",
            )
        starts += np.float32(SHARE) * (regression.predict(images) - starts)
        starts[..., COLOUR:] = np.clip(starts[..., COLOUR:], 0, 1)
        return starts

    def recipe(self) -> dict[str, Any]:
        """What decides these starts beside the usual ones, for the store's attributes."""
        return {"method": "regressed", "share": SHARE, "digest": self._regression.digest}


def _damage_error(name: object, why: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{name} is no whole regression ({why})",
        allowed="the file as it was written",
        next_step="delete it: it is made again from the first fit beside it",
    )
