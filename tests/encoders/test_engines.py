"""Every engine keeps the contract, and they agree with each other."""

import os
import subprocess
import sys

import numpy as np
import pytest

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, NORMALISED, OVER, RGB, RGB_ALPHA
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode_with_dead
from encoders.engines import create_encoder
from encoders.quality import psnr_of_mean_error
from encoders.recipe import OverRecipe, Recipe
from tests.encoders.encoder_contract import EncoderContract, quality
from tests.encoders.splat_examples import smooth_images

COMPILED_ELSEWHERE = """
from tests.encoders.test_engines import *
encoder = create_encoder('cpu', FitSettings(gaussians=12, steps=30))
print(*(encoder.fit(smooth_images()).core_seconds for _ in range(3)))
images = smooth_images(6, 24)
result = create_encoder('cpu', FitSettings(gaussians=25, steps=100)).fit(images)
print(psnr_of_mean_error(quality(result, images)))
"""


@pytest.fixture(scope="module")
def compiled_anew(repository, tmp_path_factory):
    """What a process prints that compiles all for the oldest x86-64 (SSE2, no fused multiply-add), without a cache."""
    folder = tmp_path_factory.mktemp("compiled")
    environment = {
        **os.environ, "PYTHONPATH": str(repository), "NUMBA_CACHE_DIR": str(folder), "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
    }  # fmt: skip
    command = [sys.executable, "-c", COMPILED_ELSEWHERE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=folder)
    return done.stdout.splitlines()


class TestCpuEngine(EncoderContract):
    engine = "cpu"

    def test_result_does_not_depend_on_workers(self):
        images = smooth_images(40, 12)
        one = self.fit(images, workers=1)
        for workers in (2, 5):
            many = self.fit(images, workers=workers)
            assert one.splats.tobytes() == many.splats.tobytes()
            np.testing.assert_array_equal(one.steps, many.steps)

    @pytest.mark.slow
    @pytest.mark.long
    def test_compilation_is_not_counted(self, compiled_anew):
        # Compiling takes tens of seconds; four small images take milliseconds.
        assert max(map(float, compiled_anew[0].split())) < 5

    @pytest.mark.parametrize("start", ["transport", "adaptive"])
    def test_dark_gaussians_are_moved_to_where_they_help(self, start):
        images = smooth_images(8, 24)
        settings = FitSettings(gaussians=40, steps=200, start=start)
        dead, error = [], []
        for recipe in (Recipe(), Recipe(reseed_every=0)):
            result = CpuEncoder(settings, recipe=recipe).fit(images)
            dead.append(decode_with_dead(result.splats, layout=RGB, codec=ADDITIVE, height=24, width=24)[1].sum())
            error.append(psnr_of_mean_error(quality(result, images)))
        assert dead[0] < dead[1]
        assert error[0] > error[1]


@pytest.mark.slow
class TestReferenceEngine(EncoderContract):
    engine = "reference"
    few_steps = 10  # slow ones

    def assert_same_fit(self, first, second):
        # Matrix products of another size round differently; optimisation carries that on.
        np.testing.assert_allclose(first, second, atol=0.02)


class TestReferenceEngineOver(TestReferenceEngine):
    codec = OVER
    codecs = (OVER,)

    def test_opacity_is_fitted(self):
        images = smooth_images()
        alpha = self.fit(images, gaussians=30, steps=60).splats[..., RGB_ALPHA.index("alpha")]
        assert alpha.min() >= 0
        assert alpha.max() <= OverRecipe().greatest_alpha
        assert alpha.std() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("start", ["transport", "adaptive", "grid"])
@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
def test_engines_reach_the_same_psnr(codec, start):
    images = smooth_images(6, 24)
    settings = FitSettings(gaussians=25, steps=100, codec=codec, start=start)
    cpu, reference = (
        psnr_of_mean_error(quality(create_encoder(engine, settings).fit(images), images, codec))
        for engine in ("cpu", "reference")
    )
    assert cpu == pytest.approx(reference, abs=0.3)


def test_auto_is_the_cpu_engine():
    assert create_encoder("auto", FitSettings(gaussians=3)).name == "cpu"


def test_an_engine_never_fits_another_codec_than_asked_for(monkeypatch, caplog):
    with pytest.raises(JobError, match=r"'cpu' does not fit codec over/1.*reference, gsplat"):
        create_encoder("cpu", FitSettings(gaussians=3, codec=OVER))
    with pytest.raises(JobError, match=r"'gsplat' does not fit codec additive/1.*cpu, reference"):
        create_encoder("gsplat", FitSettings(gaussians=3))
    monkeypatch.setattr("torch.version.cuda", None)
    with caplog.at_level("WARNING", "splatspace"):
        encoder = create_encoder("auto", FitSettings(gaussians=3, codec=OVER))
    assert (encoder.name, encoder.settings.codec) == ("reference", OVER)
    assert "engine reference: no other fits codec over/1 here, and it is slow" in caplog.text
    assert "torch built for CUDA" in caplog.text


def test_unknown_engines_are_refused():
    with pytest.raises(JobError, match=r"'tpu'.*auto, cpu, reference"):
        create_encoder("tpu", FitSettings(gaussians=3))
    with pytest.raises(JobError, match="0 workers"):
        create_encoder("cpu", FitSettings(gaussians=3), workers=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gaussians", -1),
        ("gaussians", 100_001),
        ("steps", -1),
        ("target_psnr", float("nan")),
        ("target_psnr", 0.0),
        ("rounds", 0),
        ("rounds", 11),
        ("codec", "over/2"),
        ("colours", "neon"),
        ("start", "random"),
        ("seed", -1),
    ],
)
def test_settings_outside_their_range_are_refused(field, value):
    with pytest.raises(JobError):
        FitSettings(**{"gaussians": 3, field: value})


def test_rounds_need_a_target_and_an_end():
    with pytest.raises(JobError, match=r"3 rounds.*no target.*--target-psnr"):
        FitSettings(gaussians=3, rounds=3)
    with pytest.raises(JobError, match=r"1,023,000 steps.*1,000,000"):
        FitSettings(gaussians=3, rounds=10, steps=1000, target_psnr=40.0)
    assert FitSettings(gaussians=3, rounds=3, steps=100, target_psnr=40.0).most_steps == 700


def test_a_further_round_is_twice_as_long_and_begins_at_a_share_of_the_rates():
    recipe = Recipe(restart=0.25)
    rates = recipe.schedule(100, 3)
    assert rates.shape == (700, 3)
    np.testing.assert_array_equal(rates[:100], recipe.schedule(100))
    start = np.array([recipe.rate_centre, recipe.rate_shape, recipe.rate_colour]) * 0.25
    # Adam's corrections are spent by then.
    np.testing.assert_allclose(rates[[100, 300]], [start, start], rtol=1e-3)
    assert (np.diff(rates[300:, 0]) < 0).all()
    assert rates[299, 0] < 1e-4 * recipe.rate_centre
    assert recipe.schedule(0, 2).shape == (0, 3)


@pytest.mark.slow
@pytest.mark.long
def test_a_processor_without_wide_vectors_gets_the_same_quality(compiled_anew):
    images = smooth_images(6, 24)
    result = create_encoder("cpu", FitSettings(gaussians=25, steps=100)).fit(images)
    assert float(compiled_anew[1]) == pytest.approx(psnr_of_mean_error(quality(result, images)), abs=0.3)


@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
def test_what_the_cpu_engine_cuts_off_costs_no_quality(codec, monkeypatch):
    """Dark pixels beside thin strokes, as in handwriting: the normalised sum there hangs on far Gaussians."""
    row, column = np.mgrid[:24, :24]
    images = np.stack(
        [
            np.round(255 * np.exp(-(((np.hypot(row - 12, column - 10 - 0.4 * i) - 5 - 0.1 * i) / 0.9) ** 2)))
            for i in range(16)
        ]
    )[..., None].astype(np.uint8)
    settings = FitSettings(gaussians=40, steps=150, codec=codec)
    as_it_is = psnr_of_mean_error(quality(CpuEncoder(settings).fit(images), images, codec))
    monkeypatch.setattr("encoders.cpu.engine.CUT", 6.0)
    monkeypatch.setattr("encoders.cpu.engine.NORMALISED_CUT", 6.0)
    whole = psnr_of_mean_error(quality(CpuEncoder(settings).fit(images), images, codec))
    assert as_it_is == pytest.approx(whole, abs=0.2)
