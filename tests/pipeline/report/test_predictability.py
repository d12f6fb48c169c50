from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import logm

from data_schemas.records import RowState
from data_schemas.splats import GREY, RGB, RGB_ALPHA
from encoders.base import FitSettings
from encoders.engines import create_encoder
from pipeline.report import predictability
from pipeline.report.predictability import MINIMUM_IMAGES, measure_predictability, predictability_of, reduce_images
from pipeline.report.splat_coordinates import log_covariance, splat_numbers, whiten


@pytest.mark.parametrize(
    ("sigma_x", "sigma_y", "rho"),
    [(0.1, 0.2, 0.5), (1e-4, 0.3, -0.99), (0.3, 0.3, 0.0), (0.2, 0.2, 1e-12), (5.0, 0.01, 0.999)],
)
def test_log_covariance_is_the_matrix_logarithm(sigma_x: float, sigma_y: float, rho: float):
    covariance = np.array([[sigma_x**2, rho * sigma_x * sigma_y], [rho * sigma_x * sigma_y, sigma_y**2]])
    expected = np.asarray(logm(covariance))
    found = [float(v) for v in log_covariance(np.array(sigma_x), np.array(sigma_y), np.array(rho))]
    np.testing.assert_allclose(found, [expected[0, 0], expected[1, 1], expected[0, 1]], rtol=1e-6, atol=1e-8)


def test_log_covariance_stays_finite_outside_the_range():
    found = log_covariance(np.array([0.0, 1.0]), np.array([1.0, -1.0]), np.array([1.0, -1.5]))
    assert np.isfinite(found).all()


def test_numbers_are_grouped_and_dark_splats_found():
    splats = np.zeros((2, 3, 9), np.float32)
    splats[..., :2] = 0.1
    splats[..., RGB_ALPHA.index("alpha")] = 1
    splats[:, 0, RGB_ALPHA.index("g")] = 0.5
    splats[:, 1, RGB_ALPHA.index("g")] = -0.5  # a signed colour can be seen
    numbers, group, visible = splat_numbers(splats, RGB_ALPHA)
    assert numbers.shape == (2, 3, 9)
    assert group.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert visible.tolist() == [[True, True, False]] * 2


def test_whitened_numbers_have_mean_0_and_variance_1_where_they_count():
    rng = np.random.default_rng(0)
    numbers = rng.normal(3, 7, (200, 2, 2))
    numbers[:, 1, 1] = 4.0
    counted = rng.random(numbers.shape) < 0.7
    counted[:, 0, 0] = True
    result = whiten(numbers, np.array([0, 2]), counted)
    assert result.constant == 1
    assert result.group.tolist() == [0, 2, 0]
    assert result.counted is not None
    for column in range(3):
        values = result.values[result.counted[:, column], column].astype(np.float64)
        assert values.mean() == pytest.approx(0, abs=1e-6)
        assert values.std() == pytest.approx(1, abs=1e-6)
        assert not result.values[~result.counted[:, column], column].any()


def test_splats_that_follow_from_the_pixels_are_foretold_and_noise_is_not(make_store):
    store = make_store(400, gaussians=4)
    good = measure_predictability(store).figures
    assert good is not None
    assert good.r2 > 0.8
    store.rows.splats[:] = np.random.default_rng(1).uniform(0.1, 0.9, store.rows.splats.shape)
    noise = measure_predictability(store).figures
    assert noise is not None
    assert -0.1 < noise.r2 < 0.02


def test_shuffled_slots_are_harder_than_ordered_ones(make_store):
    store = make_store(300, gaussians=8)
    ordered = measure_predictability(store).figures
    rng = np.random.default_rng(0)
    for row in range(len(store)):
        store.rows.splats[row] = store.rows.splats[row][rng.permutation(8)]
    shuffled = measure_predictability(store).figures
    assert ordered is not None
    assert shuffled is not None
    assert ordered.r2_position is not None
    assert shuffled.r2_position is not None
    assert shuffled.r2_position < ordered.r2_position - 0.5
    assert shuffled.r2 < ordered.r2


def test_invisible_geometry_lowers_r2_but_not_r2_visible(make_store):
    store = make_store(400, gaussians=6)
    before = measure_predictability(store).figures
    assert before is not None
    assert before.r2_visible is None
    rng = np.random.default_rng(0)
    splats = store.rows.splats
    dark = splats[..., RGB.index("rho")] < 0  # follows from the image, unlike the geometry below
    splats[..., RGB.colour_slice] = np.where(dark[..., None], 0, splats[..., RGB.colour_slice])
    splats[..., RGB.index("x")] = np.where(dark, rng.uniform(-1, 1, dark.shape), splats[..., RGB.index("x")])
    splats[..., RGB.index("y")] = np.where(dark, rng.uniform(-1, 1, dark.shape), splats[..., RGB.index("y")])
    after = measure_predictability(store).figures
    assert after is not None
    assert after.r2_visible is not None
    assert after.invisible_share == pytest.approx(0.5, abs=0.1)
    assert after.r2_visible > after.r2 + 0.03


def test_the_sample_is_seeded_and_bounded(make_store):
    store = make_store(200)
    first, again = (measure_predictability(store, max_images=80, seed=5).figures for _ in range(2))
    other = measure_predictability(store, max_images=80, seed=6).figures
    assert first == again
    assert first is not None
    assert other is not None
    assert first.images == 80
    assert first.r2 != other.r2


def test_without_source_images_the_decoded_ones_stand_in(make_store):
    with_source = measure_predictability(make_store(100, noise=0)).figures
    without = measure_predictability(make_store(100, noise=0, with_images=False)).figures
    assert with_source is not None
    assert without is not None
    assert (with_source.pixels, without.pixels) == ("source", "decoded")
    assert with_source.r2 == without.r2  # without noise the decoded image is the source


def test_constant_numbers_are_left_out_and_counted(make_store):
    store = make_store(100, gaussians=4)
    store.rows.splats[:, 0] = store.rows.splats[0, 0]
    found = measure_predictability(store).figures
    assert found is not None
    assert found.constant_numbers == 8
    assert found.numbers == 24


def test_many_gaussians_are_sampled(make_store, monkeypatch):
    monkeypatch.setattr(predictability, "_MAXIMUM_SLOTS", 3)
    found = measure_predictability(make_store(100, gaussians=7)).figures
    assert found is not None
    assert found.gaussians == 3


def test_too_few_images_give_a_reason(make_store, fail_row):
    store = make_store(MINIMUM_IMAGES)
    assert measure_predictability(store).figures is not None
    fail_row(store, 0)
    result = measure_predictability(store)
    assert result.figures is None
    assert "too few images: 49," in result.reason
    assert predictability_of(store.rows.splats[:3], store.rows.image[:3], RGB).figures is None


def test_equal_images_equal_splats_and_bad_splats_give_a_reason(make_store):
    store = make_store(60)
    store.rows.splats[7, 0, 0] = np.nan
    assert "not finite" in measure_predictability(store).reason
    store.rows.splats[:] = store.rows.splats[0]
    assert "splats of all images are equal" in measure_predictability(store).reason
    store.rows.image[:] = 3
    assert "all images of the sample are equal" in measure_predictability(store).reason


def test_a_codec_that_cannot_be_decoded_needs_source_images(make_store):
    store = make_store(60, with_images=False)
    store.set_header(store.header.model_copy(update={"codec": "over/2"}))
    assert "over/2" in measure_predictability(store).reason
    store = make_store(60)
    store.set_header(store.header.model_copy(update={"codec": "over/2"}))
    assert measure_predictability(store).figures is not None


def test_empty_store_gives_a_reason(make_store):
    store = make_store(60)
    store.rows.state[:] = RowState.EMPTY
    assert "too few images: 0," in measure_predictability(store).reason


def test_large_images_are_reduced_by_box_means():
    image = np.random.default_rng(0).integers(0, 256, (2, 130, 64, 3), dtype=np.uint8)
    small = reduce_images(image)
    assert small.shape == (2, 44, 22, 3)
    np.testing.assert_allclose(small[1, 3, 4], image[1, 9:12, 12:15].reshape(9, 3).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(small[1, 43, 21], image[1, 129:130, 63:64].reshape(1, 3).mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(reduce_images(image[:, :64]), image[:, :64])


@pytest.mark.slow
@pytest.mark.shared_data
def test_free_placement_is_less_predictable_than_anchors(shared_data):
    import gzip

    with gzip.open(shared_data / "mnist_t10k_first9000" / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)[:600]
    r2 = {}
    for start in ("grid", "adaptive"):
        fitted = create_encoder("cpu", FitSettings(gaussians=36, steps=100, start=start)).fit(images)
        found = predictability_of(fitted.splats, images, GREY).figures
        assert found is not None
        r2[start] = found.r2
    assert r2["grid"] > r2["adaptive"] + 0.1
