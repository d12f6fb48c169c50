"""Progress of long commands: lines now and then, or a bar on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.cli import progress_bar
from pipeline.cli.progress_bar import encode_progress, work_progress
from pipeline.encode.records import EncodeProgress

LINE = "step {done:,} of {total:,}: {words}"


def test_without_a_terminal_a_line_is_said_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: now[0])
    with work_progress("train", LINE) as show:
        for done, seconds in enumerate((0.0, 9.9, 0.2, 5.0, 5.1)):
            now[0] += seconds
            show(1000 * done, 4000, f"loss {done}")
    assert capsys.readouterr().err.splitlines() == ["step 2,000 of 4,000: loss 2", "step 4,000 of 4,000: loss 4"]


def test_a_terminal_shows_a_bar_from_the_first_progress_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(progress_bar, "stderr", lambda: Console(file=written, force_terminal=True, width=100))
    with work_progress("train", LINE) as show:
        assert written.getvalue() == ""
        show(3, 4, "loss 0.5")
    assert "train" in written.getvalue()
    assert "3/4" in written.getvalue()
    assert "loss 0.5" in written.getvalue()


def test_encoding_says_images_rate_and_quality(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bar, "SECONDS_BETWEEN_LINES", 0.0)
    with encode_progress() as show:
        show(EncodeProgress(2000, 1500, 1400, 100, 0, 31.234, 60.0, 25.0, 20.0))
    assert capsys.readouterr().err == "1,500 of 2,000 images: 25.0 images/s, 31.23 dB, 0:20 left\n"
