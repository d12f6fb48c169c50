"""What the commands share: where text goes, how errors leave, JSON, signals, lists of numbers as options."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.logging import RichHandler
from rich.segment import Segment
from typer.core import TyperGroup

from data_schemas.errors import JobError, SplatSpaceError
from data_schemas.printable import printable, printable_json

logger = logging.getLogger("splatspace")

INTERRUPTED = 130
"""Exit code of a command that the user stopped."""

MOST_NAMED = 10
"""Names in one warning; the rest are counted."""


class _WrittenOut:
    """What is printed, with the steering characters of its texts written out; rich's own stay."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._content, options):
            yield segment if segment.control else Segment(printable(segment.text, keep="\n"), segment.style)


class _WriteOut(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_WrittenOut(renderable) for renderable in renderables]


class _OneLine(logging.Formatter):
    """A message is one line, whatever names it holds; a traceback below it has its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def stdout() -> Console:
    """Where results go. Names in them come from outside: every console writes out what would steer a terminal."""
    return _console(stderr=False)


def stderr() -> Console:
    """Where everything that is not a result goes."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, soft_wrap=True)
    console.push_render_hook(_WriteOut())
    return console


def say(text: str) -> None:
    """A line of a result; never read as markup."""
    stdout().print(printable(text), markup=False)


def warn(text: str) -> None:
    """A line beside the result."""
    stderr().print(printable(text), markup=False)


_answered: ContextVar[bool] = ContextVar("answered", default=False)
"""Whether this command has printed its JSON object."""


def print_json(content: Any) -> None:
    """One JSON object on stdout."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False, default=str)
    sys.stdout.write(printable_json(text) + "\n")
    _answered.set(True)


def print_failure(message: str, code: int) -> None:
    """The JSON object of a command that failed before it could print its own; nothing where it has."""
    # Processes that a training starts beside this one share its stdout.
    if not _answered.get() and os.environ.get("LOCAL_RANK", "0") == "0":
        print_json({"error": message, "exit_code": code})


class Commands(TyperGroup):
    """The commands; with ``--json`` each leaves one JSON object on stdout, also where it was called wrongly."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """See ``click.Command.main``."""
        given = sys.argv[1:] if args is None else list(args)
        _answered.set(False)
        try:
            return super().main(args, *rest, **options)
        except SystemExit as leaving:
            if leaving.code and "--json" in given:
                code = leaving.code if isinstance(leaving.code, int) else 1
                print_failure(_message(leaving.__context__), code)
            raise


def _message(cause: BaseException | None) -> str:
    """What was wrong with a call, in the words of the parser of the command line."""
    describe = getattr(cause, "format_message", None)
    return str(describe()) if describe is not None else str(cause or "stopped")


def as_epilog(examples: Sequence[str]) -> str:
    """Examples under a help page."""
    return "\n\n".join(["Examples:", *examples])


def start_logging(verbose: bool) -> None:
    """Logs of the package go to stderr: warnings, or with ``verbose`` everything."""
    for handler in list(logger.handlers):
        if isinstance(handler, RichHandler):
            logger.removeHandler(handler)
    handler = RichHandler(console=stderr(), show_time=verbose, show_path=False, markup=False, rich_tracebacks=False)
    handler.setFormatter(_OneLine("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    # Which engine was chosen and why: one line that everybody is to see.
    logging.getLogger("splatspace.engine").setLevel(logging.DEBUG if verbose else logging.INFO)


def reporting_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Makes a command leave with one line and the right exit code instead of a traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        verbose = logger.isEnabledFor(logging.DEBUG)
        try:
            with interrupt_on_terminate():
                command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except SplatSpaceError as error:
            if verbose:
                traceback.print_exc()
            _leave(f"{'Stopped' if error.exit_code == INTERRUPTED else 'Error'}: {error}", error.exit_code, kwargs)
        except KeyboardInterrupt:
            _leave(
                "Stopped: what was finished is kept, and nothing is half made. "
                "Next: run the same command again; it continues where it can.",
                INTERRUPTED,
                kwargs,
            )
        except BrokenPipeError:
            raise
        except Exception as error:
            if verbose:
                traceback.print_exc()
            hint = "" if verbose else " Next: run splatspace --verbose with the same command to see where."
            first_line = next(iter(str(error).splitlines()), "no message").rstrip(".")
            _leave(f"Error: unexpected {type(error).__name__}: {first_line}.{hint}", 1, kwargs)

    return run


def _leave(line: str, code: int, options: Mapping[str, Any]) -> NoReturn:
    """Says why a command ends and ends it; on stdout, too, where it was asked for JSON."""
    warn(line)
    if options.get("as_json"):
        print_failure(line, code)
    raise typer.Exit(code) from None


@contextmanager
def interrupt_on_terminate() -> Iterator[None]:
    """SIGTERM interrupts like Ctrl-C, so that a command removes what it has half made; every command runs inside of it.

    The system's own answer to SIGTERM ends the process where it stands. A second SIGTERM changes nothing: the removal
    is under way. Commands that can stop at a good moment ask for :func:`stop_on_signal` on top.
    """

    def interrupt(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        raise KeyboardInterrupt

    # A caller who has his own answer (Prefect's, or "ignore") keeps it.
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (or SIGTERM) asks politely first: yields a function that answers whether it was pressed.

    A second Ctrl-C interrupts at once, which is safe too: a store is never left torn.
    """
    asked = threading.Event()

    def ask(number: int, _frame: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number == signal.SIGINT:
            warn("Stopping: what is under way is finished first; press Ctrl-C again to leave at once.")

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def numbers_of(option: str, text: str, count: int | None = None) -> tuple[float, ...]:
    """Reads ``1,2.5,3``.

    Args:
        option: its name, for the message.
        text: what was given.
        count: how many there have to be; None for any number but zero.

    Raises:
        JobError: other text, or another count.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)) or (count is not None and len(values) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise JobError(f"{option} {text}", allowed=f"{wanted} with commas between them")
    return values
