"""What every engine promises; a test class inherits it and supplies ``engine``."""

from __future__ import annotations

import numpy as np
import pytest

from data_schemas.splats import ADDITIVE, NORMALISED, CodecName, layout_of
from encoders.base import FitSettings, FitStoppedError
from encoders.decode import decode, to_uint8
from encoders.engines import create_encoder
from encoders.quality import psnr, psnr_of_mean_error
from tests.encoders.splat_examples import smooth_images, special_images


def quality(result, images, codec=ADDITIVE):
    """PSNR [image] of a fit after rounding to 8 bits."""
    _, height, width, channels = images.shape
    decoded = decode(result.splats, layout=layout_of(codec, channels), codec=codec, height=height, width=width)
    return psnr(to_uint8(decoded), images)


class EncoderContract:
    """Inherited by the test class of each engine."""

    engine: str
    codec: CodecName = ADDITIVE
    codecs: tuple[CodecName, ...] = (ADDITIVE, NORMALISED)
    few_steps = 30

    def create(self, workers=None, **settings):
        """The engine with short settings."""
        return create_encoder(
            self.engine,
            FitSettings(**{"gaussians": 12, "steps": 30, "codec": self.codec, **settings}),
            workers=workers,
        )

    def fit(self, images, workers=None, **settings):
        """A fit with short settings."""
        return self.create(workers, **settings).fit(images)

    def quality(self, result, images):
        """PSNR [image] of a fit in the codec of this class."""
        return quality(result, images, self.codec)

    @pytest.mark.slow
    @pytest.mark.parametrize("start", ["transport", "grid", "adaptive"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_exactly_k_finite_gaussians_inside_the_columns_ranges(self, start, channels):
        for codec in self.codecs:
            layout = layout_of(codec, channels)
            for name, image in special_images(channels=channels).items():
                splats = self.fit(image, start=start, codec=codec, gaussians=7, steps=self.few_steps).splats
                assert splats.shape == (1, 7, layout.width), name
                assert splats.dtype == np.float32
                assert np.isfinite(splats).all(), name
                assert (splats[..., :2] > 0).all(), name
                assert (np.abs(splats[..., 2]) < 0.99).all(), name
                # Colours, and the opacity before them where there is one.
                assert ((splats[..., 3:-2] >= 0) & (splats[..., 3:-2] <= 1)).all(), name

    @pytest.mark.parametrize("gaussians", [1, 2, 3, 4, 9])
    def test_any_k_and_any_size(self, gaussians):
        for height, width in ((1, 1), (1, 9), (5, 3), (17, 8)):
            images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
            result = self.fit(images, gaussians=gaussians, steps=3)
            assert result.splats.shape == (2, gaussians, layout_of(self.codec, 3).width)
            assert np.isfinite(result.splats).all()

    def test_black_is_exact(self):
        images = special_images()["black"]
        assert np.isinf(self.quality(self.fit(images), images)).all()

    @pytest.mark.slow
    def test_steps_improve_the_image(self):
        images = smooth_images()
        few, many = (
            psnr_of_mean_error(self.quality(self.fit(images, steps=steps, gaussians=30), images)) for steps in (5, 120)
        )
        assert many > few + 6
        assert many > 33

    @pytest.mark.slow
    def test_result_is_the_same_again_whatever_the_batch(self):
        images = smooth_images(5, 14)
        whole = self.fit(images)
        again = self.fit(images)
        np.testing.assert_array_equal(whole.splats, again.splats)
        np.testing.assert_array_equal(whole.steps, again.steps)
        alone = self.fit(images[3:4])
        self.assert_same_fit(whole.splats[3:4], alone.splats)

    def assert_same_fit(self, first, second):
        """Equality that the engine promises for another batch: bits, unless the engine says otherwise."""
        np.testing.assert_array_equal(first, second)

    @pytest.mark.slow
    def test_an_image_stops_at_its_target(self):
        images = smooth_images(3)
        result = self.fit(images, steps=200, gaussians=30, target_psnr=28.0)
        assert (result.steps < 200).all()
        assert len(set(result.steps.tolist())) > 1
        assert (self.quality(result, images) > 27.7).all()

    @pytest.mark.slow
    def test_hard_images_go_on_for_further_rounds_each_by_itself(self):
        easy, hard = smooth_images(2), special_images(20)["noise"]
        images = np.concatenate([easy, hard])
        settings = {"steps": 40, "gaussians": 30, "target_psnr": 24.0}
        once = self.fit(images, **settings)
        often = self.fit(images, rounds=3, **settings)
        assert (often.steps[:2] <= 40).all()
        np.testing.assert_array_equal(often.steps[:2], once.steps[:2])
        assert once.steps[2] == 40
        assert often.steps[2] == 7 * 40
        assert self.quality(often, images)[2] > self.quality(once, images)[2] + 0.3
        self.assert_same_fit(often.splats[2:], self.fit(hard, rounds=3, **settings).splats)

    def test_without_steps_the_start_comes_back(self):
        result = self.fit(smooth_images(1), steps=0, start="grid")
        assert result.steps.tolist() == [0]

    @pytest.mark.slow
    def test_signed_colours_may_leave_the_range(self):
        images = smooth_images(2)
        bounded = self.fit(images, steps=150, gaussians=30)
        signed = self.fit(images, steps=150, gaussians=30, colours="signed")
        colours = layout_of(self.codec, 3).colour_slice
        assert signed.splats[..., colours].min() < 0 or signed.splats[..., colours].max() > 1
        assert bounded.splats[..., colours].min() >= 0

    def test_no_images_give_no_splats(self):
        assert self.fit(smooth_images()[:0]).splats.shape == (0, 12, layout_of(self.codec, 3).width)

    def test_a_fit_can_be_stopped(self):
        encoder = self.create()
        with pytest.raises(InterruptedError):
            encoder.fit(smooth_images(), should_stop=lambda: True)

    def test_a_fit_that_is_stopped_gives_what_is_finished_or_nothing(self):
        images = smooth_images(24)
        whole = self.fit(images, steps=2)
        looks = iter([False, False, *[True] * 1000])
        encoder = self.create(steps=2)
        with pytest.raises(InterruptedError) as stopped:
            encoder.fit(images, should_stop=lambda: next(looks))
        if isinstance(stopped.value, FitStoppedError):
            finished = stopped.value.finished
            assert finished.shape == (24,)
            assert not finished.all()
            np.testing.assert_array_equal(stopped.value.result.splats[finished], whole.splats[finished])
            np.testing.assert_array_equal(stopped.value.result.steps[finished], whole.steps[finished])

    def test_recipe_is_plain_json(self):
        import json

        recipe = self.create(gaussians=3).recipe()
        assert json.loads(json.dumps(recipe))["rate_centre"] > 0
