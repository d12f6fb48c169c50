"""The bar of a run: how often it is sent, that it ends where the run ends, and that no server holds the run up."""

from __future__ import annotations

import logging
import re
import threading
import time
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

import flows.artifacts.progress as progress_module
from flows.artifacts.progress import ProgressArtifact, ProgressBar
from pipeline.encode.records import BlockSummary, EncodePlan

PLAN = cast(EncodePlan, SimpleNamespace(images=8, pending=8))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What a server without a network would have got."""
    got: list[float] = []
    monkeypatch.setattr(progress_module, "create_progress_artifact", lambda **_: uuid4())
    monkeypatch.setattr(progress_module, "update_progress_artifact", lambda _, progress, **__: got.append(progress))
    return got


def test_it_is_sent_from_time_to_time_and_always_at_the_end(sent: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_UPDATES", 0.05)
    with ProgressArtifact(PLAN) as progress:
        progress.within_block(BlockSummary(images=4, fitted=1))
        end = time.monotonic() + 30
        while not sent and time.monotonic() < end:
            time.sleep(0.01)
        assert sent == [12.5]
        progress.block_done(BlockSummary(images=4, fitted=4))
        progress.block_done(BlockSummary(images=4, kept=4))
    assert sent[-1] == 100.0
    assert sent == sorted(set(sent)), "nothing is sent twice"


def test_a_run_that_ends_early_shows_how_far_it_came(sent: list[float]) -> None:
    def interrupted() -> None:
        with ProgressArtifact(PLAN) as progress:
            progress.block_done(BlockSummary(images=4, fitted=2, stopped=True))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sent == [25.0]


def test_blocks_that_are_told_twice_do_not_make_more_than_everything(sent: list[float]) -> None:
    with ProgressArtifact(PLAN) as progress:
        for _ in range(3):
            progress.block_done(BlockSummary(images=8, kept=8))
    assert sent == [100.0]


def test_the_log_of_the_run_says_from_time_to_time_how_far_it_is(
    sent: list[float], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_UPDATES", 0.02)
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, logger="splatspace"), ProgressArtifact(PLAN) as progress:
        progress.within_block(BlockSummary(images=4, fitted=1, mean_error=1e-5))
        end = time.monotonic() + 30
        while not caplog.records and time.monotonic() < end:
            time.sleep(0.01)
        progress.block_done(BlockSummary(images=8, fitted=8))
    # Prefect shows what is logged while the run is in the context, also by the thread of the bar.
    first, *_ = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r"12 %: 1 of 8 images, [0-9.,]+ images/s, 50\.00 dB, 0:0[0-9] left", first), first


def test_words_beside_the_bar_change_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[float, str]] = []
    monkeypatch.setattr(progress_module, "create_progress_artifact", lambda **_: uuid4())
    monkeypatch.setattr(
        progress_module,
        "update_progress_artifact",
        lambda _, progress, description: got.append((progress, description)),
    )
    with ProgressBar("begins") as progress:
        for step in range(10_000):
            progress.show(step / 20_000, f"step {step}")
        progress.show(0.5)
    assert got == [(50.0, "step 9999")], "what is shown in between costs no call"


@pytest.mark.parametrize("broken", ["create_progress_artifact", "update_progress_artifact"])
def test_a_server_that_is_away_changes_nothing(
    sent: list[float], broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no server")

    monkeypatch.setattr(progress_module, broken, fail)
    with caplog.at_level(logging.WARNING, logger="splatspace"), ProgressArtifact(PLAN) as progress:
        progress.block_done(BlockSummary(images=8, fitted=8))
    assert sent == []
    assert [record.getMessage() for record in caplog.records] == ["progress artifact was not made"]


def test_a_server_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch, sent: list[float]) -> None:
    answer = threading.Event()
    monkeypatch.setattr(progress_module, "SECONDS_FOR_THE_LAST", 0.1)
    monkeypatch.setattr(progress_module, "update_progress_artifact", lambda *_, **__: answer.wait(600))
    began = time.monotonic()
    with ProgressArtifact(PLAN) as progress:
        progress.block_done(BlockSummary(images=8, fitted=8))
    assert time.monotonic() - began < 300
    answer.set()
