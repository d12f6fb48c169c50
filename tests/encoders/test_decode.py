"""The fast decoder against the plain renderer."""

import numpy as np
import pytest
import torch

from data_schemas.errors import StoreMismatchError
from data_schemas.splats import ADDITIVE, CODECS, GREY, GREY_ALPHA, LAYOUTS, OVER, RGB
from encoders.decode import decode, decode_with_dead, to_uint8
from encoders.render import render
from tests.encoders.splat_examples import random_splats


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (28, 28), (33, 17)])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_decode_equals_render(layout, codec, height, width):
    splats = random_splats(layout)
    expected = render(torch.from_numpy(splats).double(), layout, codec, height, width).numpy()
    decoded = decode(splats, layout=layout, codec=codec, height=height, width=width)
    np.testing.assert_allclose(decoded, expected, atol=1e-5)


def test_result_does_not_depend_on_workers_or_batch():
    splats = random_splats(RGB, images=21)
    whole = decode(splats, layout=RGB, codec=ADDITIVE, height=16, width=16, workers=1)
    np.testing.assert_array_equal(whole, decode(splats, layout=RGB, codec=ADDITIVE, height=16, width=16, workers=5))
    np.testing.assert_array_equal(whole[7:8], decode(splats[7:8], layout=RGB, codec=ADDITIVE, height=16, width=16))


def test_degenerate_covariances_stay_finite():
    splats = random_splats(GREY, images=1, gaussians=4)
    splats[0, :, 0] = [0, 1e-8, 0.2, 1e30]
    splats[0, :, 2] = [0, 0, 1, -1]
    splats[0, :, 4] = [0, 1e20, 0, 0]
    decoded = decode(splats, layout=GREY, codec=ADDITIVE, height=9, width=9)
    assert np.isfinite(decoded).all()


def test_half_precision_is_decoded_as_its_exact_values():
    splats = random_splats(RGB).astype(np.float16)
    np.testing.assert_array_equal(
        decode(splats, layout=RGB, codec=ADDITIVE, height=8, width=8),
        decode(splats.astype(np.float32), layout=RGB, codec=ADDITIVE, height=8, width=8),
    )


def test_no_images_give_no_images():
    assert decode(random_splats(RGB)[:0], layout=RGB, codec=ADDITIVE, height=4, width=5).shape == (0, 4, 5, 3)


@pytest.mark.parametrize("codec", ["over/2", "additive/2"])
def test_other_codecs_are_refused(codec):
    with pytest.raises(StoreMismatchError, match=codec):
        decode(random_splats(RGB), layout=RGB, codec=codec, height=4, width=4)


def test_splats_of_another_layout_are_refused():
    with pytest.raises(StoreMismatchError, match=r"\(3, 13, 8\).*grey"):
        decode(random_splats(RGB), layout=GREY, codec=ADDITIVE, height=4, width=4)


def test_dead_gaussians_are_those_that_no_pixel_shows():
    splats = random_splats(GREY, images=1, gaussians=5)
    splats[0, :, :] = [0.3, 0.3, 0, 0.5, 0, 0]
    splats[0, 1, 3] = 0.4 / 255  # too faint
    splats[0, 2, 4] = 9  # off the canvas
    splats[0, 3, 3] = -0.5  # negative light is a contribution
    splats[0, 4, :2] = 1e-5  # between pixel centres
    splats[0, 4, 4:] = 0.123
    assert decode_with_dead(splats, layout=GREY, codec=ADDITIVE, height=8, width=8)[1].tolist() == [3]


def test_a_gaussian_is_dead_where_others_hide_it():
    names = {name: i for i, name in enumerate(GREY_ALPHA.names)}
    splats = np.zeros((1, 5, GREY_ALPHA.width), np.float32)
    splats[..., [names["sigma_x"], names["sigma_y"]]] = 0.3
    splats[..., [names["alpha"], names["grey"]]] = 0.9, 0.5
    splats[0, 0, [names["alpha"], names["sigma_x"], names["sigma_y"]]] = 1, 1e4, 1e4  # covers the canvas
    splats[0, 1:, names["x"]] = -0.5
    frame = {"layout": GREY_ALPHA, "codec": OVER, "height": 8, "width": 8}
    assert decode_with_dead(splats, **frame)[1].tolist() == [4]
    assert decode_with_dead(splats[:, ::-1], **frame)[1].tolist() == [0]
    splats[0, 0, names["alpha"]] = 0.4 / 255  # nearly clear
    splats[0, 2, names["grey"]] = 0  # black, and in front of what lies behind
    assert decode_with_dead(splats, **frame)[1].tolist() == [1]


def test_rounding_is_half_up():
    values = np.array([0, 0.5 / 255, 0.4999 / 255, 1.5 / 255, 1, -3, 7], np.float32)
    assert to_uint8(values).tolist() == [0, 1, 0, 2, 255, 0, 255]
