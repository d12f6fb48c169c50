"""The benchmark of graphics cards, as far as it runs without one: an engine of the processor stands in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from benchmarks import encode_gpu
from benchmarks.card_report import Card, Report
from data_schemas.errors import SourceError
from encoders.base import FitResult, FitSettings
from encoders.cuda import available
from encoders.fit_cpu import CpuEncoder
from tests.encoders.splat_examples import smooth_images


class StandIn(CpuEncoder):
    """Engine cuda for whoever does not look closely."""

    name = "cuda"
    spoil = 0.0

    def __init__(self, settings: FitSettings, *, workers: int | None = None, batch: int | str = "auto") -> None:
        super().__init__(settings, workers=workers)

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        result = super().fit(images, should_stop=should_stop)
        result.splats[..., 3] *= 1 - self.spoil
        return result


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command on a machine that claims to have a card, with few images."""

    def load(name: str, _folder: Path, _images: int) -> NDArray[np.uint8]:
        if name == "cifar10":
            raise SourceError("CIFAR-10 is not complete")
        return smooth_images(40, 12, 1 if name == "mnist" else 3)

    def no_card(*_: Any, **__: Any) -> list[Any]:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(available, "require_cuda", lambda: None)
    monkeypatch.setattr(encode_gpu, "card", lambda: Card("Test card", 132, 1.755e9, "580"))
    monkeypatch.setattr(encode_gpu, "load", load)
    monkeypatch.setattr(encode_gpu, "SETS", {"mnist": 6, "sprites": 8, "cifar10": 9})
    monkeypatch.setattr(encode_gpu, "TARGETS", {"mnist": (20.0, 15_000), "sprites": (99.0, 5_000)})
    monkeypatch.setattr(encode_gpu, "STEPS_TRIED", (10, 20))
    monkeypatch.setattr(encode_gpu, "CudaEncoder", StandIn)
    monkeypatch.setattr(encode_gpu, "instructions_per_step", lambda *_: 1000.0)
    for part in ("ratios", "large_image", "variants"):
        monkeypatch.setattr(encode_gpu, part, no_card)
    monkeypatch.setattr(encode_gpu, "end_to_end", lambda name, *_: [name, "40", "10", "80 % (aim 70 %)"])
    app = typer.Typer()
    app.command()(encode_gpu.main)

    def run(*options: str) -> Result:
        return CliRunner().invoke(app, ["--data-dir", str(tmp_path), "--out", str(tmp_path / "out.md"), *options])

    return run


@pytest.mark.slow
def test_what_can_be_measured_is_measured_whatever_fails(benchmark: Callable[..., Result], tmp_path: Path) -> None:
    answer = benchmark()
    assert answer.exit_code == 3, answer.output
    written = (tmp_path / "out.md").read_text()
    assert written.strip() == answer.output.strip(), "the file holds what was printed"
    assert written.startswith("Test card, 132 multiprocessors, at most 1755 MHz, driver 580")
    assert re.search(r"torch \S+, .*CUDA \S+, Python 3\.\d+\.\d+, 20\d\d-", written)
    assert "cifar10 is left out: CIFAR-10 is not complete" in written
    assert len(re.findall(r"\| (?:mnist|sprites), K=\d \| \S+/1 .*\| yes \| yes \|", written)) == 4
    assert re.search(r"\| mnist, K=6 \| (10|20) \|", written)
    assert "80 % (aim 70 %)" in written
    assert written.count("Not measured: RuntimeError: no kernel image is available") == 2 + 3 + 2
    assert "for execution" not in written


@pytest.mark.slow
def test_a_wrong_engine_is_not_timed(
    benchmark: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StandIn, "spoil", 0.5)
    answer = benchmark("--only", "mnist")
    assert answer.exit_code == 1
    assert "| NO |" in answer.output
    assert "## Speed" not in (tmp_path / "out.md").read_text()


def test_an_engine_that_crashes_is_not_timed(benchmark: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(encode_gpu, "check", crash)
    answer = benchmark("--only", "mnist")
    assert answer.exit_code == 1
    assert "illegal memory access" in answer.output
    assert "## Speed" not in answer.output


def test_without_any_set_there_is_nothing_to_trust(benchmark: Callable[..., Result]) -> None:
    assert benchmark("--only", "cifar10").exit_code == 1


def test_no_part_is_begun_after_the_time(tmp_path: Path) -> None:
    report = Report(tmp_path / "out.md", minutes=0.0)
    report.table("Speed", ["set"], [lambda: pytest.fail("begun")])
    assert "The rest was left out: the time was up." in (tmp_path / "out.md").read_text()
    assert report.failures == 0
