"""Progress of a long command: a bar on a terminal, else a line every ten seconds; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from pipeline.cli.terminal import stderr, warn
from pipeline.format import format_duration, format_psnr, format_rate, list_parts

if TYPE_CHECKING:
    from pipeline.encode.records import EncodeProgress

SECONDS_BETWEEN_LINES = 10.0


def words(progress: EncodeProgress) -> str:
    """Rate, quality and time left, for people."""
    left = progress.seconds_left
    return list_parts(
        format_rate(progress.images_per_second, 1),
        format_psnr(progress.psnr, none=""),
        "" if left is None else f"{format_duration(left)} left",
        f"{progress.failed:,} failed" if progress.failed else "",
    )


@contextmanager
def work_progress(
    name: str, line: str, figure: ProgressColumn | None = None
) -> Iterator[Callable[[float, float, str], None]]:
    """Yields a function of (done, total, words) for long work.

    Args:
        name: of what is done, before the bar.
        line: what is said where there is no terminal, with ``done``, ``total`` and ``words`` in braces.
        figure: behind the bar, if not done and total.
    """
    console = stderr()
    if not console.is_terminal:
        yield _lines(line)
        return
    columns = (TextColumn(name), BarColumn(), figure or MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, console=console, transient=True)
    task: TaskID | None = None

    def show(done: float, total: float, words: str) -> None:
        nonlocal task
        if task is None:  # not before: a download may have shown its own bar
            bar.start()
            task = bar.add_task(name, total=total, words="")
        bar.update(task, completed=done, words=words)

    try:
        yield show
    finally:
        bar.stop()


def _lines(line: str) -> Callable[[float, float, str], None]:
    said = time.monotonic()

    def show(done: float, total: float, words: str) -> None:
        nonlocal said
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            warn(line.format(done=done, total=total, words=words))

    return show


@contextmanager
def encode_progress() -> Iterator[Callable[[EncodeProgress], None]]:
    """Yields what ``pipeline.encode.run.encode`` calls with its progress."""
    with work_progress("encode", "{done:,} of {total:,} images: {words}") as show:
        yield lambda progress: show(progress.processed, progress.images, words(progress))


@contextmanager
def download_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yields what the downloader calls with (file, bytes there, bytes in all)."""
    console = stderr()
    if not console.is_terminal:
        yield _download_lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    bar = Progress(*columns, console=console, transient=True)
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int | None) -> None:
        if name not in tasks:
            bar.start()
            tasks[name] = bar.add_task(escape(name), total=total)
        bar.update(tasks[name], completed=done, total=total)
        if total is not None and all(task.finished for task in bar.tasks):
            bar.stop()

    try:
        yield show
    finally:
        bar.stop()


def _download_lines() -> Callable[[str, int, int | None], None]:
    named: set[str] = set()

    def show(name: str, _done: int, total: int | None) -> None:
        if name not in named:
            named.add(name)
            warn(f"downloading {name}" + ("" if total is None else f" ({total / 2**20:,.1f} MiB)"))

    return show


@contextmanager
def count_progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, total) for commands that only count.

    Args:
        name: of what is done, before the bar.
    """
    console = stderr()
    if not console.is_terminal:
        yield lambda _done, _total: None
        return
    with Progress(TextColumn(name), BarColumn(), MofNCompleteColumn(), console=console, transient=True) as bar:
        task: TaskID = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, total=total, completed=done)
