"""Starts that are predicted from the pixels: the network itself."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from data_schemas.errors import StoreCorruptError, StoreMismatchError
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.frame import COLOUR
from encoders.recipe import Recipe
from encoders.start.begin import StartRecipe, begin
from encoders.start.regression import FOLDS, SHARE, RegressedStarts, StartRegression, fold_of, inputs_of

GAUSSIANS, SIDE = 5, 12


def images(count: int, *, side: int = SIDE, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def regression(*, spread: float = 0.2) -> StartRegression:
    generator = np.random.default_rng(4)
    inputs = inputs_of(images(9))
    frame = (GAUSSIANS, COLOUR + 3)
    return StartRegression(
        landmarks=inputs,
        weights=generator.normal(scale=spread, size=(FOLDS, 9, GAUSSIANS * 8)).astype(np.float32),
        offsets=generator.uniform(0, 5, GAUSSIANS * 8).astype(np.float32),
        scale=60.0,
        shape=(SIDE, SIDE, 3),
        frame=frame,
    )


def test_the_prediction_is_that_of_the_formula() -> None:
    network, pictures = regression(), images(14)
    inputs = inputs_of(pictures).astype(np.float64)
    distance = np.square(inputs[:, None] - network.landmarks[None]).sum(axis=2)
    basis = np.exp(-distance / network.scale)
    expected = [network.offsets + basis[i] @ network.weights[fold_of(image)] for i, image in enumerate(pictures)]
    found = network.predict(pictures)
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), atol=1e-4)
    assert len({fold_of(image) for image in pictures}) > 1, "images of one fold would not show whose weights are used"


def test_a_prediction_does_not_depend_on_the_images_beside_it() -> None:
    network, pictures = regression(), images(11)
    together = network.predict(pictures)
    for number, image in enumerate(pictures):
        np.testing.assert_array_equal(network.predict(image[None])[0], together[number])
    assert network.predict(pictures[:0]).shape == (0, GAUSSIANS, 8)


def test_inputs_of_large_images_are_box_means() -> None:
    large = images(2, side=70, channels=1)
    found = inputs_of(large)
    boxes = found[:, : 24 * 24].reshape(2, 24, 24)
    np.testing.assert_allclose(boxes[0, 3, 5], large[0, 9:12, 15:18].mean() / 255, rtol=1e-5)
    # The last row and column of boxes hold what is left: one pixel.
    np.testing.assert_allclose(boxes[1, 23, 23], large[1, 69, 69, 0] / 255, rtol=1e-5)


def test_starts_lie_between_the_usual_ones_and_the_prediction() -> None:
    network, pictures = regression(), images(3)
    settings = FitSettings(GAUSSIANS, steps=4)
    starts = RegressedStarts(network, settings, StartRecipe())(pictures)
    usual = begin(pictures, settings)
    np.testing.assert_allclose(
        starts[..., :COLOUR], usual[..., :COLOUR] + SHARE * (network.predict(pictures) - usual)[..., :COLOUR], rtol=1e-5
    )
    assert starts[..., COLOUR:].min() >= 0
    assert starts[..., COLOUR:].max() <= 1


def test_an_engine_fits_from_starts_and_records_them() -> None:
    pictures, settings = images(3), FitSettings(GAUSSIANS, steps=6)
    starts = RegressedStarts(regression(), settings, StartRecipe())
    usual = CpuEncoder(settings, workers=1)
    refined = CpuEncoder(settings, workers=1, recipe=Recipe(rate_centre=0.05), starts=starts)
    assert "refine" not in usual.recipe()
    assert refined.recipe()["refine"] == {"method": "regressed", "share": SHARE, "digest": regression().digest}
    assert np.abs(refined.fit(pictures).splats - usual.fit(pictures).splats).max() > 0.05
    np.testing.assert_array_equal(refined.fit(pictures).splats[1:2], refined.fit(pictures[1:2]).splats)


def test_another_size_or_number_of_gaussians_is_refused() -> None:
    network = regression()
    with pytest.raises(StoreMismatchError, match="4 for"):
        RegressedStarts(network, FitSettings(4), StartRecipe())(images(1))
    with pytest.raises(StoreMismatchError, match=r"\(16, 16, 3\)"):
        RegressedStarts(network, FitSettings(GAUSSIANS), StartRecipe())(images(1, side=16))


def test_a_file_is_read_back_whole_or_refused() -> None:
    network = regression()
    content = network.to_bytes()
    again = StartRegression.from_bytes(content, "a.npz")
    assert again.digest == network.digest
    np.testing.assert_array_equal(again.predict(images(2)), network.predict(images(2)))
    other = regression(spread=0.3)
    assert other.digest != network.digest
    for damaged in (content[: len(content) // 2], b"", b"nothing", bytes(len(content))):
        with pytest.raises(StoreCorruptError, match=r"a\.npz is no whole regression"):
            StartRegression.from_bytes(damaged, "a.npz")
