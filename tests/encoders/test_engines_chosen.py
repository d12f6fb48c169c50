"""``--engine auto``: every way it can go, with a machine that answers as the test says."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, NORMALISED, OVER
from encoders import engines as engine_choice
from encoders.base import FitSettings
from encoders.cuda import self_check
from encoders.engines import CARD_START_SECONDS, Machine, Work, choose_engine

SETTINGS = FitSettings(gaussians=200, steps=400)
MUCH = Work(images=60_000, height=32, width=32, channels=3, workers=4)


def never(*_: object) -> None:
    raise AssertionError("this question was not to be asked")


def machine(
    *,
    driver: bool = True,
    cuda: str | None = None,
    gsplat: str | None = None,
    fault: str | None = None,
    check: Callable[..., str | None] | None = None,
) -> Machine:
    def missing(what: str | None) -> Callable[[], JobError | None]:
        return lambda: None if what is None else JobError(what)

    return Machine(lambda: driver, missing(gsplat), missing(cuda), check or (lambda *_: fault))


def test_without_a_driver_nothing_else_is_looked_at():
    choice = choose_engine(SETTINGS, MUCH, machine=Machine(lambda: False, never, never, never))
    assert (choice.engine, choice.reason) == ("cpu", "this machine has no driver of an NVIDIA GPU")


def test_a_small_job_stays_on_the_processor_without_loading_torch():
    small = Work(images=256, height=28, width=28, channels=1, workers=4)
    choice = choose_engine(FitSettings(70, steps=100), small, machine=Machine(lambda: True, never, never, never))
    assert choice.engine == "cpu"
    assert "less than a GPU takes to start" in choice.reason


def test_what_keeps_the_card_from_being_used_is_the_reason():
    choice = choose_engine(SETTINGS, MUCH, machine=machine(cuda="Engine 'cuda' needs Triton", check=never))
    assert (choice.engine, choice.reason) == ("cpu", "Engine 'cuda' needs Triton")


@pytest.mark.parametrize("work", [MUCH, None])
def test_a_card_whose_kernels_are_right_is_taken_and_said(work, caplog):
    with caplog.at_level("INFO", "splatspace"):
        choice = choose_engine(SETTINGS, work, machine=machine())
    assert choice.engine == "cuda"
    assert [record.getMessage() for record in caplog.records] == [str(choice)]
    assert str(choice).startswith("engine cuda: its kernels agree")


def test_kernels_that_are_wrong_are_said_and_not_used(caplog):
    with caplog.at_level("WARNING", "splatspace"):
        choice = choose_engine(SETTINGS, MUCH, machine=machine(fault="30.00 dB and 12.00 dB"))
    assert choice.engine == "cpu"
    assert "30.00 dB and 12.00 dB" in choice.reason
    assert "not used on this GPU" in caplog.text


@pytest.mark.parametrize("question", ["cuda", "check"])
def test_whatever_fails_on_the_way_leaves_the_processor(question, caplog):
    def broken(*_):
        raise RuntimeError("CUDA unknown error\nthis may be due to an incorrectly set up environment")

    answers = {"cuda": Machine(lambda: True, never, broken, never), "check": machine(check=broken)}
    with caplog.at_level("WARNING", "splatspace"):
        choice = choose_engine(SETTINGS, MUCH, machine=answers[question])
    assert choice.engine == "cpu"
    assert choice.reason.endswith("RuntimeError: CUDA unknown error")
    assert "CUDA unknown error" in caplog.text


@pytest.mark.parametrize(("missing", "engine"), [(None, "gsplat"), ("Engine 'gsplat' needs nvcc", "reference")])
def test_codec_over_has_engines_of_its_own(missing, engine, caplog):
    settings = FitSettings(200, codec=OVER)
    with caplog.at_level("WARNING", "splatspace"):
        choice = choose_engine(settings, MUCH, machine=machine(driver=False, gsplat=missing))
    assert choice.engine == engine
    assert ("nvcc" in choice.reason) == ("slow" in caplog.text) == (engine == "reference")


def test_the_guess_of_time_is_about_what_was_measured():
    """docs/results.md: 23.7 microseconds an image and step for CIFAR-10, 6.0 for MNIST."""
    cifar = Work(1000, 32, 32, 3, workers=1).processor_seconds(FitSettings(200, steps=400))
    mnist = Work(1000, 28, 28, 1, workers=1).processor_seconds(FitSettings(70, steps=400))
    assert cifar == pytest.approx(9.5, rel=0.5)
    assert mnist == pytest.approx(2.4, rel=0.5)
    assert MUCH.processor_seconds(SETTINGS) > CARD_START_SECONDS


def test_more_workers_than_images_do_not_help():
    one = Work(1, 1024, 1024, 3, workers=1).processor_seconds(FitSettings(5000))
    assert Work(1, 1024, 1024, 3, workers=64).processor_seconds(FitSettings(5000)) == one


def test_this_machine_is_asked_where_no_other_is_given(monkeypatch):
    monkeypatch.setattr(engine_choice.ctypes, "CDLL", never_loads)
    assert not engine_choice.has_driver()
    monkeypatch.setattr(engine_choice.ctypes, "CDLL", lambda _: object())
    assert engine_choice.has_driver()
    monkeypatch.setattr("encoders.cuda.available.require_cuda", lambda: None)
    assert engine_choice.missing_for_cuda() is None
    seen = []
    monkeypatch.setattr(self_check, "fault_on_this_card", lambda *asked: seen.append(asked[1:]))
    assert engine_choice.fault_of_kernels(SETTINGS, MUCH) is None
    assert engine_choice.fault_of_kernels(SETTINGS, None) is None
    assert seen == [(32, 32, 3), (32, 32, 3)]


def never_loads(_: str) -> object:
    raise OSError("libcuda.so.1: cannot open shared object file")


class TestSelfCheck:
    """The check of a GPU, its process and its memory; the comparison itself runs in the interpreter."""

    @pytest.fixture
    def card(self, monkeypatch, tmp_path):
        """A machine whose check is counted and answers as ``found`` says."""
        here = SimpleNamespace(calls=[], found={"cpu": 30.0, "cuda": 30.1}, name="Card A", folder=tmp_path)

        def run_check(*asked):
            here.calls.append(asked)
            return (here.found, "") if here.found else (None, "the check failed with status 1: out of memory")

        monkeypatch.setattr(self_check, "run_check", run_check)
        monkeypatch.setattr(self_check, "cache_folder", lambda: tmp_path / "compiled" / "digest")
        monkeypatch.setattr("torch.cuda.get_device_name", lambda *_: here.name)
        pytest.importorskip("triton", reason="Triton is not installed: there is none for this system")
        return here

    def fault(self, **more):
        return self_check.fault_on_this_card(FitSettings(**{"gaussians": 70, **more}), 28, 28, 1)

    def said(self):
        fault = self.fault()
        assert fault is not None
        return fault

    def test_once_for_each_card_and_kind_of_fit(self, card):
        assert self.fault() is None
        assert self.fault(steps=7) is None
        assert card.calls == [(ADDITIVE, 1, "fused")]
        assert self.fault(codec=NORMALISED) is None
        assert self.fault(gaussians=3000) is None
        assert card.calls[1:] == [(NORMALISED, 1, "fused"), (ADDITIVE, 1, "tiled")]
        card.name = "Card B"
        assert self.fault() is None
        assert len(card.calls) == 4

    @pytest.mark.parametrize(("cpu", "cuda"), [(30.0, 29.6), (30.0, float("nan")), (12.0, 12.0), (30.0, 31.0)])
    def test_wrong_kernels_are_remembered_with_the_place_of_the_memory(self, card, cpu, cuda):
        card.found = {"cpu": cpu, "cuda": cuda}
        for _ in range(2):
            fault = self.said()
            assert f"{cpu:.2f} dB on the CPU reaches {cuda:.2f} dB" in fault
            assert str(card.folder) in fault
        assert len(card.calls) == 1

    def test_what_says_nothing_about_the_kernels_is_not_remembered(self, card):
        card.found = None
        assert "out of memory" in self.said()
        card.found = {"cpu": 30.0, "cuda": 30.0}
        assert self.fault() is None
        assert len(card.calls) == 2

    def test_without_a_place_to_remember_it_is_checked_each_time(self, card):
        (card.folder / "engine-checks").write_text("a file, where a folder should be")
        assert self.fault() is None
        assert self.fault() is None
        assert len(card.calls) == 2

    def test_a_memory_that_is_damaged_is_made_again(self, card):
        assert self.fault() is None
        (kept,) = (card.folder / "engine-checks").iterdir()
        assert json.loads(kept.read_text())["card"] == "Card A"
        kept.write_text("{")
        assert self.fault() is None
        assert len(card.calls) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "status -11: no message"),
            ("raise RuntimeError('an illegal memory access was encountered')", "an illegal memory access"),
            ("import time; time.sleep(60)", "did not end within 1 seconds"),
            ("pass", "status 0"),
        ],
    )
    def test_a_crash_or_a_hang_stays_in_its_own_process(self, script, said):
        found, failure = self_check.run_check(ADDITIVE, 3, "fused", command=[sys.executable, "-c", script], seconds=1)
        assert found is None
        assert said in failure

    def test_the_outcome_comes_back(self):
        script = "import sys; open(sys.argv[-1], 'w').write('{\"cpu\": 30, \"cuda\": 30.2}')"
        command = [sys.executable, "-c", script]
        assert self_check.run_check(ADDITIVE, 3, "fused", command=command, seconds=30) == (
            {"cpu": 30, "cuda": 30.2},
            "",
        )

    def test_the_module_runs_by_itself(self, monkeypatch, tmp_path):
        monkeypatch.setattr(self_check, "compare", lambda *asked: {"cpu": 1.0, "cuda": float(asked[1])})
        self_check.main([ADDITIVE, "3", "tiled", str(tmp_path / "result.json")])
        assert json.loads((tmp_path / "result.json").read_text()) == {"cpu": 1.0, "cuda": 3.0}

    @pytest.mark.slow
    def test_without_a_card_the_process_says_what_is_missing(self, monkeypatch):
        """The real command, from a folder that is not the checkout."""
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        found, failure = self_check.run_check(ADDITIVE, 1, "fused", seconds=120)
        assert found is None
        assert "Engine 'cuda' needs" in failure

    def test_pictures_are_the_same_everywhere(self):
        images = self_check.pictures(3, 20, 3)
        assert images.shape == (3, 20, 20, 3)
        np.testing.assert_array_equal(images[:1], self_check.pictures(1, 20, 3))
        assert images.std() > 20


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("codec", "channels", "path"),
    [(ADDITIVE, 3, "fused"), (NORMALISED, 1, "fused"), (ADDITIVE, 1, "tiled"), (NORMALISED, 3, "tiled")],
)
def test_the_card_of_this_machine_is_right(codec, channels, path):
    found, failure = self_check.run_check(codec, channels, path)
    assert found is not None, failure
    assert self_check.fault_of(found) is None
