"""Engine ``cuda``: its kernels in the interpreter, what is said where it cannot run, and itself on a GPU."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, NORMALISED, OVER
from encoders.base import FitSettings
from encoders.cuda import available
from encoders.cuda.device_fit import Tiles, tiles_for
from encoders.cuda.engine import CudaEncoder
from encoders.engines import GPU_ENGINES, create_encoder
from encoders.quality import psnr_of_mean_error
from tests.encoders.encoder_contract import EncoderContract, quality
from tests.encoders.splat_examples import smooth_images


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2400)
def test_kernels_in_the_interpreter(repository, tmp_path):
    """Triton decides while it decorates, so the interpreter has a process of its own: one for both kinds of kernels."""
    # Kernels compile with older ones too, but the interpreter of Triton 3.6 does not bear NumPy 2.4.
    pytest.importorskip("triton", minversion="3.7", reason="Triton is too old, or there is none for this system")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/encoders/cuda/interpreted_cuda.py",
            "tests/encoders/cuda/interpreted_cuda_tiled.py",
        ],
        env=environment,
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
        timeout=2300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100
    assert "skipped" not in done.stdout


@pytest.fixture
def torch_with_card(monkeypatch):
    """A torch that claims to see a GPU."""
    available.require_cuda.cache_clear()
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: "Test GPU")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (9, 0))
    monkeypatch.setenv("TRITON_CACHE_DIR", "unused")
    yield monkeypatch
    available.require_cuda.cache_clear()


def test_a_torch_without_cuda_is_named(monkeypatch):
    available.require_cuda.cache_clear()
    monkeypatch.setattr("torch.version.cuda", None)
    with pytest.raises(JobError, match=r"built for CUDA; this is torch .*Next: install torch.*--engine cpu"):
        create_encoder("cuda", FitSettings(gaussians=3))


def test_a_machine_without_a_card_is_named(torch_with_card):
    torch_with_card.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(JobError, match=r"NVIDIA GPU; torch sees none.*nvidia-smi"):
        create_encoder("cuda", FitSettings(gaussians=3))


def test_a_card_that_is_too_old_is_named(torch_with_card):
    torch_with_card.setattr("torch.cuda.get_device_capability", lambda *_: (6, 1))
    with pytest.raises(JobError, match=r"Test GPU: compute capability \(6, 1\).*7\.5 or newer"):
        create_encoder("cuda", FitSettings(gaussians=3))


def test_a_missing_triton_is_named(torch_with_card):
    torch_with_card.setitem(sys.modules, "triton", None)
    with pytest.raises(JobError, match=r"Triton, which is not installed.*splatspace\[gpu\]"):
        create_encoder("cuda", FitSettings(gaussians=3))


def test_a_missing_c_compiler_is_named(torch_with_card):
    triton = pytest.importorskip("triton", reason="Triton is not installed: there is none for this system")

    class NoCompiler:
        def get_current_target(self):
            raise RuntimeError("Failed to find C compiler")

    torch_with_card.setattr(type(triton.runtime.driver), "active", property(lambda _: NoCompiler()))
    with pytest.raises(JobError, match=r"Failed to find C compiler.*gcc or clang.*python3-dev"):
        create_encoder("cuda", FitSettings(gaussians=3))


def test_other_codecs_and_batches_are_refused(torch_with_card):
    with pytest.raises(JobError, match=r"'cuda' for codec over/1"):
        CudaEncoder(FitSettings(gaussians=3, codec=OVER))
    torch_with_card.setattr("encoders.cuda.engine.require_cuda", lambda: None)
    with pytest.raises(JobError, match="A batch of 0 images"):
        CudaEncoder(FitSettings(gaussians=3), batch=0)


def test_the_processor_alone_is_refused_outside_the_interpreter():
    pytest.importorskip("triton", reason="Triton is not installed: there is none for this system")
    with pytest.raises(JobError, match="'cuda' on the CPU"):
        CudaEncoder(FitSettings(gaussians=3), device="cpu")


@pytest.mark.slow
def test_engines_are_imported_without_triton(repository):
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "from encoders.engines import create_encoder\n"
        "from encoders.cuda.engine import CudaEncoder\n"
        "from encoders.base import FitSettings\n"
        "print(create_encoder('cpu', FitSettings(gaussians=3)).name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == "cpu\n"


def test_the_card_is_not_shared():
    assert "cuda" in GPU_ENGINES


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 32), (64, 64), (1, 1), (9, 33), (50, 70)])
def test_tiles_cover_a_row_and_waste_little(height, width):
    tiles = tiles_for(height, width)
    stride = tiles.stride(width)
    assert stride >= width
    assert stride % tiles.strip == 0
    assert stride % tiles.run == 0
    assert stride - width < 8
    assert tiles.cost(height, width) <= Tiles(strip=4, run=4).cost(height, width)


class TestLaunches:
    """How images and steps are divided into launches."""

    @pytest.fixture
    def fit(self):
        pytest.importorskip("triton", reason="Triton is not installed: there is none for this system")
        from encoders.cuda.fused_batch import FusedFit
        from encoders.recipe import Recipe

        return FusedFit.of(FitSettings(gaussians=200, steps=400), Recipe(), 32, 32, 3, tiles=Tiles())

    def test_whole_waves_for_about_a_second(self, fit):
        from encoders.cuda.slabs import slab_size

        size = slab_size(fit, 10**11, 2112, 1.8e11 * 10, 1.0)
        assert size % 2112 == 0
        assert 0.5 < size * fit.pairs_per_step * 400 / 1.8e12 <= 1.0

    def test_memory_comes_first(self, fit):
        from encoders.cuda.slabs import slab_size

        assert slab_size(fit, 100 * fit.bytes_per_image, 2112, 1e15, 1.0) == 100
        assert slab_size(fit, 0, 2112, 1e15, 1.0) == 1

    def test_a_long_fit_takes_several_launches(self, fit):
        from encoders.cuda.slabs import steps_of_launches

        assert steps_of_launches(fit, 2112, 1e13, 1.0) == [401]
        ends = steps_of_launches(fit, 2112, 1e10, 1.0)
        assert len(ends) > 5
        assert ends[-1] == 401
        assert ends == sorted(set(ends))

    def test_a_record_holds_what_the_kernel_addresses(self, fit):
        # 4 tables of 8 rows and 5 derived rows of 224 Gaussians, 4 planes of 32 x 32.
        assert fit.record == 37 * 224 + 4 * 32 * 32
        assert fit.bytes_per_image > 4 * fit.record


@pytest.mark.gpu
class TestCudaEngine(EncoderContract):
    engine = "cuda"

    @pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_the_cpu_engine_reaches_the_same_psnr(self, channels, codec):
        images = smooth_images(64, 28, channels)
        settings = FitSettings(gaussians=70, steps=200, codec=codec)
        cpu, cuda = (
            psnr_of_mean_error(quality(create_encoder(engine, settings).fit(images), images, codec))
            for engine in ("cpu", "cuda")
        )
        assert cuda == pytest.approx(cpu, abs=0.3)

    @pytest.mark.parametrize(("gaussians", "size"), [(150, 32), (1024, 64), (33, 45), (3000, 200)])
    def test_the_same_bytes_again_and_in_other_batches(self, gaussians, size):
        images = smooth_images(40, size)
        settings = FitSettings(gaussians=gaussians, steps=60)
        first = CudaEncoder(settings).fit(images)
        for other in (CudaEncoder(settings).fit(images), CudaEncoder(settings, batch=7).fit(images)):
            assert first.splats.tobytes() == other.splats.tobytes()
            np.testing.assert_array_equal(first.steps, other.steps)

    @pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
    def test_one_step_is_that_of_the_reference(self, codec):
        images = smooth_images(8, 32)
        settings = FitSettings(gaussians=40, steps=1, codec=codec, start="grid")
        expected = create_encoder("reference", settings).fit(images).splats
        np.testing.assert_allclose(CudaEncoder(settings).fit(images).splats, expected, atol=1e-4)


def test_the_benchmark_refuses_politely_without_a_card(monkeypatch, tmp_path):
    import typer
    from typer.testing import CliRunner

    from benchmarks.gpu.__main__ import main

    monkeypatch.setattr("torch.version.cuda", None)
    available.require_cuda.cache_clear()
    app = typer.Typer()
    app.command()(main)
    answer = CliRunner().invoke(app, ["--data-dir", str(tmp_path)])
    assert answer.exit_code == 2
    assert "built for CUDA" in answer.output


def test_the_benchmark_counts_as_the_documentation_says(repository):
    from benchmarks.gpu.__main__ import instructions_per_step

    text = (repository / "docs" / "performance.md").read_text()
    for name, gaussians, size, channels in (("MNIST", 70, 28, 1), ("Sprites", 150, 32, 3), ("CIFAR-10", 200, 32, 3)):
        found = re.search(rf"\| {name}, K={gaussians} \| ([\d,]+) \|", text)
        assert found is not None
        counted = instructions_per_step(gaussians, size, size, channels)
        assert float(found[1].replace(",", "")) == pytest.approx(counted, rel=0.03)
