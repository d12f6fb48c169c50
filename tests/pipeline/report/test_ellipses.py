from __future__ import annotations

import math

import numpy as np
import pytest

from data_schemas.errors import JobError
from data_schemas.splats import GREY, RGB, RGB_ALPHA
from pipeline.report.ellipses import BACKGROUND, draw_ellipses, ellipse_points


def test_points_lie_on_the_one_sigma_ellipse():
    splat = np.array([0.3, 0.1, -0.7, 1, 1, 1, 0.2, -0.4])
    points = ellipse_points(splat, RGB, 200, 100) / (200, 100) * 2 - 1 - (0.2, -0.4)
    covariance = np.array([[0.09, -0.7 * 0.03], [-0.7 * 0.03, 0.01]])
    distance = np.einsum("ni,ij,nj->n", points, np.linalg.inv(covariance), points)
    np.testing.assert_allclose(distance, 1)


def test_colour_stands_where_the_splat_is():
    splats = np.array([[0.2, 0.2, 0, 1, 0, 0, -0.5, -0.5], [0.2, 0.2, 0, 0, 0, 1, 0.5, 0.5]], np.float32)
    pixels = np.asarray(draw_ellipses(splats, RGB, 32, 32, 200)).astype(int)
    upper_left, lower_right, between = pixels[50, 50], pixels[150, 150], pixels[100, 100]
    assert upper_left[0] > 120 > 60 > upper_left[2]
    assert lower_right[2] > 120 > 60 > lower_right[0]
    assert tuple(between) == BACKGROUND


def test_area_is_that_of_the_ellipse():
    splats = np.array([[0.4, 0.2, 0.5, 1, 0, 0]], np.float32)
    pixels = np.asarray(draw_ellipses(splats, GREY, 64, 64, 400, outline=False)).astype(int)
    covered = (pixels[..., 0] > BACKGROUND[0] + 60).sum()
    assert covered == pytest.approx(math.pi * 80 * 40 * math.sqrt(1 - 0.25), rel=0.02)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, (90, 90)), (20, 40, (90, 45)), (40, 20, (45, 90))])
def test_size_follows_the_aspect(height: int, width: int, size: tuple[int, int]):
    assert draw_ellipses(np.zeros((0, 8), np.float32), RGB, height, width, 90).size == size


def test_transparent_splats_are_not_filled():
    splats = np.array([[0.5, 0.5, 0, 0, 1, 1, 1, 0, 0]], np.float32)
    pixels = np.asarray(draw_ellipses(splats, RGB_ALPHA, 32, 32, 64))
    assert tuple(pixels[32, 32]) == BACKGROUND


def test_needles_giants_and_numbers_that_are_not_finite_are_drawn_or_left_out():
    splats = np.array(
        [
            [1e-7, 0.5, 0.999, 1, 1, 1, 0, 0],
            [1e6, 1e6, 0, 1, 0, 0, 0, 0],
            [np.nan, 0.1, 0, 1, 1, 1, 0, 0],
            [0.1, 0.1, 0, np.inf, 1, 1, 0, 0],
            [0.1, 0.1, 0, 0, 5, -3, 40, 40],
        ],
        np.float32,
    )
    pixels = np.asarray(draw_ellipses(splats, RGB, 32, 32, 64))
    assert pixels[5, 5, 0] > 100  # inside the giant


@pytest.mark.parametrize("size", [0, -1, 5000])
def test_size_out_of_range_is_an_error(size: int):
    with pytest.raises(JobError, match="1 to 4096"):
        draw_ellipses(np.zeros((1, 8)), RGB, 32, 32, size)


def test_splats_of_another_layout_are_an_error():
    with pytest.raises(JobError, match="layout 'grey'"):
        draw_ellipses(np.zeros((1, 8)), GREY, 32, 32, 64)
