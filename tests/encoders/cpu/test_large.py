"""Large images, whose steps threads share: the same bytes for any number of threads."""

import numpy as np
import pytest

from data_schemas.splats import NORMALISED
from encoders.base import LARGE_PIXELS, FitSettings, FitStoppedError
from encoders.cpu.engine import CpuEncoder
from encoders.cpu.large import fit_large
from encoders.start.begin import begin
from encoders.team import Team
from tests.encoders.splat_examples import smooth_images

SETTINGS = FitSettings(gaussians=60, steps=45)  # dark Gaussians are moved once, after 25 steps


@pytest.fixture
def small_is_large(monkeypatch):
    """Images that are fitted in a moment count as large."""
    monkeypatch.setattr("encoders.cpu.engine.LARGE_PIXELS", 1)
    monkeypatch.setattr("encoders.start.begin.LARGE_PIXELS", 1)


def images_of(number, channels=3):
    """Wider than high, and neither a multiple of 8."""
    return np.ascontiguousarray(smooth_images(number, 61, channels)[:, :45])


CASES = [
    pytest.param(SETTINGS, 3, id="rgb"),
    pytest.param(FitSettings(60, 45, start="adaptive", target_psnr=26.0), 3, id="adaptive, until a target"),
    pytest.param(FitSettings(60, 30, start="grid", codec=NORMALISED), 3, id="normalised", marks=pytest.mark.slow),
    pytest.param(FitSettings(60, 30, colours="signed"), 1, id="grey", marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("settings", "channels"), CASES)
def test_bytes_do_not_depend_on_workers_and_the_fit_is_that_of_one_call(settings, channels, monkeypatch):
    images = images_of(1, channels)
    expected = CpuEncoder(settings, workers=1).fit(images)
    monkeypatch.setattr("encoders.cpu.engine.LARGE_PIXELS", 1)
    monkeypatch.setattr("encoders.start.begin.LARGE_PIXELS", 1)
    one, two, three = (CpuEncoder(settings, workers=workers).fit(images) for workers in (1, 2, 3))
    assert one.splats.tobytes() == two.splats.tobytes() == three.splats.tobytes()
    assert one.steps.tolist() == two.steps.tolist() == three.steps.tolist() == expected.steps.tolist()
    if settings.target_psnr is not None:
        assert one.steps[0] < settings.steps
    # The compiler is free to round the two programs apart; 45 steps carry that on a little.
    np.testing.assert_allclose(one.splats, expected.splats, atol=0.02)
    assert one.core_seconds > 0


@pytest.mark.parametrize("start", ["transport", "adaptive", "grid"])
def test_a_start_is_the_same_whoever_shares_it(start):
    images, settings = images_of(2), FitSettings(150, start=start)
    expected = begin(images, settings)
    for threads in (1, 3):
        with Team(threads) as team:
            np.testing.assert_array_equal(begin(images, settings, None, team), expected)


def test_a_transport_that_overflows_keeps_the_level_before_whoever_shares_it():
    image = np.zeros((1, 40, 40, 3), np.uint8)
    image[0, -1, -1] = 255
    settings = FitSettings(150)
    expected = begin(image, settings)
    with Team(2) as team:
        np.testing.assert_array_equal(begin(image, settings, None, team), expected)


@pytest.mark.usefixtures("small_is_large")
def test_an_image_is_the_same_alone_and_among_others():
    # Two workers: four images one a thread, the fifth by both.
    images = images_of(5)
    many = CpuEncoder(SETTINGS, workers=2).fit(images)
    for number in (0, 4):
        alone = CpuEncoder(SETTINGS, workers=3).fit(images[number : number + 1])
        assert alone.splats.tobytes() == many.splats[number : number + 1].tobytes()


@pytest.mark.usefixtures("small_is_large")
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_stopped_fit_gives_the_images_that_are_finished(workers, looks):
    images, settings = images_of(3), FitSettings(20, 3)
    whole = CpuEncoder(settings, workers=workers).fit(images)
    answers = iter([False] * looks + [True] * 3)
    with pytest.raises(FitStoppedError) as stopped:
        CpuEncoder(settings, workers=workers).fit(images, should_stop=lambda: next(answers))
    finished = stopped.value.finished
    assert finished.sum() == looks
    np.testing.assert_array_equal(stopped.value.result.splats[finished], whole.splats[finished])


def test_only_the_size_decides_what_is_large(monkeypatch):
    calls = []

    def fit(image, *others):
        calls.append(image.shape)
        return fit_large(image, *others)

    monkeypatch.setattr("encoders.cpu.large.fit_large", fit)
    side = int(LARGE_PIXELS**0.5)
    settings = FitSettings(20, 1, start="grid")
    for height in (side, side - 1):
        CpuEncoder(settings, workers=2).fit(np.zeros((2, height, side, 3), np.uint8))
    assert calls.count((side, side, 3)) == 2
    assert (side - 1, side, 3) not in calls
