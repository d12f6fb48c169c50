import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import JobError, StoreError
from data_schemas.published_layouts.options import ConversionOptions, usual_image_size
from data_schemas.published_layouts.record import header_of_published
from data_schemas.published_layouts.rows import (
    Survey,
    UnreadableImageError,
    in_published_order,
    trailing_number,
    usual_count,
)
from data_schemas.published_layouts.stamp import (
    StampFrame,
    activate,
    deactivate,
    from_splats,
    holding_kernel_size,
    to_splats,
)
from data_schemas.splats import GREY, RGB

FRAME = StampFrame(28, 28, 17)


def physical(*, first=0.5, second=0.5, rho=0.0, alpha=1.0, colour=0.8, x=0.0, y=0.0):
    return np.array([[first, second, rho, alpha, colour, x, y]], float)


def pixels(splats, side=28):
    return ((splats[0, -2:] + 1) * side - 1) / 2


def test_positive_x_lies_left_of_the_centre():
    column, row = pixels(to_splats(physical(x=0.5), FRAME, alpha="ignored", match="centres"))
    assert column == pytest.approx(6.25)
    assert row == pytest.approx(13.0)


def test_positive_y_lies_above_the_centre():
    column, row = pixels(to_splats(physical(y=0.5), FRAME, alpha="ignored", match="centres"))
    assert column == pytest.approx(13.0)
    assert row == pytest.approx(6.25)


def test_first_deviation_acts_on_rows_in_units_of_the_stamp():
    splats = to_splats(physical(first=0.9, second=0.3), FRAME, alpha="ignored", match="centres")
    assert splats[0, GREY.index("sigma_y")] * 14 == pytest.approx(1.44)
    assert splats[0, GREY.index("sigma_x")] * 14 == pytest.approx(0.48)


@pytest.mark.parametrize(("kernel_size", "largest"), [(9, 0.8), (11, 1.0), (17, 1.6)])
def test_the_stamp_decides_the_pixels_of_a_unit(kernel_size, largest):
    assert StampFrame(28, 28, kernel_size).pixels_per_unit == pytest.approx(largest)


@pytest.mark.parametrize(("use", "wanted"), [("ignored", 0.8), ("folded", 0.2)])
def test_opacity_is_ignored_or_folded(use, wanted):
    splats = to_splats(physical(alpha=0.25), FRAME, alpha=use, match="centres")
    assert splats[0, GREY.index("grey")] == pytest.approx(wanted)


def test_activations():
    raw = np.array([[0.0, 100.0, 0.0, -800.0, 1.7, 1.5, -3.0], [0, 0, 30.0, 0, -0.2, 0, 0]])
    values = activate(raw)
    np.testing.assert_allclose(values[0], [0.5, 1, 0, 0, 1, 1.5, -3])
    np.testing.assert_allclose(values[1, [2, 4]], [1, 0])


finite = st.floats(1e-3, 0.99, allow_nan=False)


@given(finite, finite, st.floats(-0.999, 0.999), st.floats(0, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_centres_round_trip_through_raw_numbers(first, second, rho, colour, x, y):
    splats = np.array([[first / 10, second / 10, rho, colour, x, y]])
    raw = deactivate(from_splats(splats, GREY, FRAME))
    again = to_splats(activate(raw), FRAME, alpha="folded", match="centres")
    np.testing.assert_allclose(again, splats, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("match", ["centres", "fitted"])
@pytest.mark.parametrize(
    "values",
    [
        {"first": 0.0, "second": 0.0},
        {"rho": 1.0},
        {"rho": -1.0, "first": 0.0},
        {"first": 1e-30, "second": 1.0, "rho": 0.999},
        {"x": 40.0, "y": -40.0},
        {"colour": 0.0},
    ],
)
def test_degenerate_gaussians_give_numbers(values, match):
    splats = to_splats(np.concatenate([physical(**values), physical()]), FRAME, alpha="ignored", match=match)
    assert np.all(np.isfinite(splats))
    assert np.all(splats[:, :2] > 0)
    assert np.all(np.abs(splats[:, 2]) < 1)


@pytest.mark.parametrize("values", [{"x": np.nan}, {"first": np.inf}, {"second": -0.1}, {"rho": 1.5}])
def test_impossible_numbers_are_refused(values):
    with pytest.raises(UnreadableImageError):
        to_splats(physical(**values), FRAME, alpha="ignored", match="centres")


def test_rgb_has_three_colours():
    values = np.array([[0.5, 0.5, 0, 1, 0.1, 0.2, 0.3, 0, 0]])
    splats = to_splats(values, StampFrame(32, 32, 17), alpha="ignored", match="centres")
    np.testing.assert_allclose(splats[0, RGB.colour_slice], [0.1, 0.2, 0.3])


def header(side=28):
    return header_of_published("x", layout="t", gaussians=1, height=side, width=side, channels=1, bounded=True)


def survey_of(**deviations):
    return Survey(deviations, [], 0, 0, 0, len(deviations))


@pytest.mark.parametrize(("widest", "size"), [(0.5, 17), (1.55, 17), (1.6, 19), (2.5, 27), (5.0, 53)])
def test_the_least_stamp_that_holds_every_gaussian_is_chosen(widest, size):
    chosen = holding_kernel_size(header(), survey_of(a=widest), None, 17, bounded=True)
    assert chosen == size
    assert widest < (chosen - 1) / 10


def test_images_too_wide_for_any_stamp_are_named():
    with pytest.raises(StoreError, match=r"'wide'.*too wide|too wide.*'wide'"):
        holding_kernel_size(header(), survey_of(fine=1.0, wide=500.0), None, 17, bounded=True)


def test_a_stamp_that_was_asked_for_must_hold_every_gaussian():
    assert holding_kernel_size(header(), survey_of(a=0.7), 9, 17, bounded=True) == 9
    with pytest.raises(StoreError, match="too wide for stamps of 9 px"):
        holding_kernel_size(header(), survey_of(a=0.9), 9, 17, bounded=True)
    with pytest.raises(StoreError, match="odd sizes"):
        holding_kernel_size(header(), survey_of(a=0.1), 18, 17, bounded=True)


def test_single_pixels_have_no_stamps():
    with pytest.raises(StoreError, match="at least 2 pixels"):
        holding_kernel_size(header(1), survey_of(a=0.1), None, 17, bounded=True)


def test_names_are_ordered_by_their_number():
    assert in_published_order(["img_10", "img_2", "notes", "img_1"]) == ["img_1", "img_2", "img_10", "notes"]
    assert trailing_number("gaussian_representation_007") == 7
    assert trailing_number("W") is None


def test_the_usual_count_is_what_most_images_have():
    assert usual_count([70, 69, 70, None], None) == 70
    assert usual_count([69, 70], None) == 69
    assert usual_count([70, 70], 69) == 69
    with pytest.raises(StoreError, match="can be read"):
        usual_count([None], None)


def test_an_unknown_image_size_is_asked_for():
    assert usual_image_size(150, {150: (32, 32)}, None) == (32, 32)
    assert usual_image_size(150, {150: (32, 32)}, (64, 48)) == (64, 48)
    with pytest.raises(JobError, match="--size"):
        usual_image_size(151, {150: (32, 32)}, None)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": (0, 5)},
        {"gaussians": 0},
        {"kernel_size": 1},
        {"alpha": "kept"},
        {"stamp": "x"},
        {"pixel_centre": "x"},
        {"angle": "left"},
        {"saturation": "hard"},
        {"key_prefix": "x"},
    ],
)
def test_options_outside_their_range(options):
    with pytest.raises(JobError, match="Allowed"):
        ConversionOptions(**options)
