"""Lines of the log: the level of a run's process, and that waiting is said once."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Iterator

import pytest
from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings

import flows.logs
from flows.logs import WaitingOnce, follow_prefect

SKIPPED = "%d scheduled runs skipped (at capacity)"


@pytest.fixture
def project() -> Iterator[logging.Logger]:
    logger = logging.getLogger("splatspace")
    before = logger.level
    yield logger
    logger.setLevel(before)


@pytest.mark.parametrize("level", ["INFO", "DEBUG", "ERROR"])
def test_the_project_has_the_level_of_prefect(project: logging.Logger, level: str) -> None:
    project.setLevel(logging.NOTSET)
    with temporary_settings({PREFECT_LOGGING_LEVEL: level}):
        follow_prefect()
    assert logging.getLevelName(project.level) == level


@pytest.mark.parametrize("flow", ["encode", "report", "train", "evaluate", "ablate"])
def test_the_process_of_every_flow_shows_them(project: logging.Logger, flow: str) -> None:
    module = importlib.import_module(f"flows.{flow}")
    project.setLevel(logging.NOTSET)
    importlib.reload(module)
    assert project.level == logging.INFO


def said(monkeypatch: pytest.MonkeyPatch, *heard: tuple[float, int]) -> list[str]:
    """Lines of the runner that remain, of those at (second, runs that wait)."""
    once, lines = WaitingOnce(seconds=10), []
    for second, waiting in heard:
        monkeypatch.setattr(flows.logs.time, "monotonic", lambda second=second: second)
        record = logging.LogRecord("prefect.runner", logging.INFO, "", 0, SKIPPED, (waiting,), None)
        if once.filter(record):
            lines.append(record.getMessage())
    return lines


def test_a_run_that_waits_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = "1 run is waiting: one is done at a time", "2 runs are waiting: one is done at a time"
    assert said(monkeypatch, *((2.0 * n, 1) for n in range(30))) == [one]
    assert said(monkeypatch, (0, 1), (2, 1), (4, 2), (6, 2), (8, 1)) == [one, two, one]
    assert said(monkeypatch, (0, 1), (2, 1), (60, 1)) == [one, one], "another one, after a while without"


def test_other_lines_stay_as_they_are() -> None:
    for message, arguments in (("Runner 'a' started", ()), ("%s and %s", ("a", "b"))):
        record = logging.LogRecord("prefect.runner", logging.INFO, "", 0, message, arguments, None)
        assert WaitingOnce(10).filter(record)
        assert record.msg == message


def test_prefect_still_says_it_in_these_words() -> None:
    from prefect.runner import _scheduled_run_poller

    assert SKIPPED in inspect.getsource(_scheduled_run_poller)
