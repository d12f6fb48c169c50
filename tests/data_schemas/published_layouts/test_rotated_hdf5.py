import numpy as np
import pytest

from data_schemas.published_layouts import rotated_hdf5 as rotated
from data_schemas.published_layouts.rows import UnreadableImageError
from data_schemas.splats import GREY, RGB


def rasterised(fields, height, width, *, pixel_centre, angle):
    """The additive rasteriser of the rotated layout, from its description: pixel coordinates, R diag(s^2) R^T."""
    offset = 0.0 if pixel_centre == "integer" else 0.5
    rows, columns = np.mgrid[:height, :width] + offset
    image = np.zeros((height, width, 3))
    for (s1, s2), (turn,), (opacity,), colour, (x, y) in zip(
        *(fields[name] for name in ("scaling", "rotation", "opacity", "features", "xyz")), strict=True
    ):
        # Down is positive, so a turn "up" on the screen is a negative angle here.
        turn = -turn if angle == "up" else turn
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        inverse = np.linalg.inv(turned @ np.diag([s1**2, s2**2]) @ turned.T)
        offsets = np.stack([columns - (0.5 * width * x + 0.5 * width), rows - (0.5 * height * y + 0.5 * height)], -1)
        image += opacity * colour * np.exp(-0.5 * np.einsum("ijk,kl,ijl->ij", offsets, inverse, offsets))[..., None]
    return np.clip(image, 0, 1)


def decoded(splats, height, width):
    """The codec's formula in numpy."""
    rows, columns = np.mgrid[:height, :width]
    xs, ys = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    image = np.zeros((height, width, 3))
    for sigma_x, sigma_y, rho, r, g, b, x, y in splats:
        u, v = (xs - x) / sigma_x, (ys - y) / sigma_y
        weight = np.exp(-0.5 * (u * u - 2 * rho * u * v + v * v) / (1 - rho**2))
        image += weight[..., None] * np.array([r, g, b])
    return np.clip(image, 0, 1)


def fields(seed=0, gaussians=12):
    rng = np.random.default_rng(seed)
    return {
        "scaling": rng.uniform(0.4, 4, (gaussians, 2)),
        "rotation": rng.uniform(0, 2 * np.pi, (gaussians, 1)),
        "opacity": rng.uniform(0.5, 1, (gaussians, 1)),
        "features": rng.uniform(-0.3, 0.5, (gaussians, 3)),
        "xyz": rng.uniform(-0.99, 0.99, (gaussians, 2)),
    }


@pytest.mark.parametrize("pixel_centre", ["integer", "half"])
@pytest.mark.parametrize("angle", ["up", "down"])
@pytest.mark.parametrize("size", [(32, 32), (20, 36)])
def test_the_converted_image_is_the_rasterised_one(pixel_centre, angle, size):
    published = fields()
    splats = rotated.to_splats(published, *size, pixel_centre=pixel_centre, angle=angle)
    np.testing.assert_allclose(
        decoded(splats, *size), rasterised(published, *size, pixel_centre=pixel_centre, angle=angle), atol=1e-9
    )


@pytest.mark.parametrize("pixel_centre", ["integer", "half"])
@pytest.mark.parametrize("angle", ["up", "down"])
def test_round_trip(pixel_centre, angle):
    splats = rotated.to_splats(fields(3), 24, 40, pixel_centre=pixel_centre, angle=angle)
    published = rotated.from_splats(splats, RGB, 24, 40, pixel_centre=pixel_centre, angle=angle)
    assert np.all((published["rotation"] >= 0) & (published["rotation"] < np.pi))
    assert np.all(published["opacity"] == 1)
    again = rotated.to_splats(published, 24, 40, pixel_centre=pixel_centre, angle=angle)
    np.testing.assert_allclose(again, splats, atol=1e-9)


def test_conventions_differ():
    images = {
        (pixel_centre, angle): decoded(
            rotated.to_splats(fields(), 32, 32, pixel_centre=pixel_centre, angle=angle), 32, 32
        ).tobytes()
        for pixel_centre in ("integer", "half")
        for angle in ("up", "down")
    }
    assert len(set(images.values())) == 4


def test_grey_becomes_three_equal_colours():
    splats = np.array([[0.1, 0.2, 0.3, 0.7, 0.0, 0.1]])
    published = rotated.from_splats(splats, GREY, 28, 28, pixel_centre="integer", angle="up")
    assert published["features"].tolist() == [[0.7, 0.7, 0.7]]


@pytest.mark.parametrize(("name", "value"), [("xyz", np.nan), ("scaling", np.inf), ("scaling", -1.0)])
def test_impossible_numbers_are_refused(name, value):
    broken = fields()
    broken[name][0, 0] = value
    with pytest.raises(UnreadableImageError):
        rotated.to_splats(broken, 32, 32, pixel_centre="integer", angle="up")


@pytest.mark.parametrize("scaling", [[0, 0], [0, 3], [1e-20, 1e6]])
def test_degenerate_gaussians_give_numbers(scaling):
    flat = fields()
    flat["scaling"][:] = scaling
    assert np.all(np.isfinite(rotated.to_splats(flat, 32, 32, pixel_centre="integer", angle="up")))
