"""What the decoders of images say besides their result, held out for each file instead of printed.

Pillow warns by ``warnings`` and by ``logging``, and libtiff prints its errors; none of them names the file.
Everything here is by thread, since files are read in many: neither the filters of ``warnings`` nor the standard
error stream can be turned aside for one thread alone.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import PIL

MOST_MESSAGES = 3
"""Messages that are kept of one file; decoders may say one thing for each line of pixels."""

_MOST_LETTERS = 160
_PILLOW = r"PIL\."


class _Collector(threading.local):
    """The messages of the file that this thread is reading; None while it reads none."""

    messages: list[str] | None = None


_collector = _Collector()


@contextmanager
def collect_messages() -> Iterator[list[str]]:
    """Gathers what Pillow and its libraries say in this thread, each message once.

    Yields:
        The messages, filled while the block runs; at most MOST_MESSAGES.
    """
    _listen_to_warnings()
    _listen_to_logs()
    _listen_to_libtiff()
    outer, _collector.messages = _collector.messages, []
    try:
        yield _collector.messages
    finally:
        _collector.messages = outer


def _keep(message: str) -> bool:
    """Keeps a message of this thread's file; False where it reads none."""
    messages = _collector.messages
    if messages is None:
        return False
    text = " ".join(message.split())[:_MOST_LETTERS].rstrip(". ")
    if text and text not in messages and len(messages) < MOST_MESSAGES:
        messages.append(text)
    return True


def _listen_to_warnings() -> None:
    """Puts a listener before ``warnings.showwarning``, again wherever somebody has put back what was there before.

    ``warnings.catch_warnings`` would not do: it swaps the state of the whole process, so that two threads which
    overlap leave each other's behind.
    """
    shown = warnings.showwarning
    if getattr(shown, "listens_to_pillow", False):
        return

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        if not _keep(str(message)):
            shown(message, category, filename, lineno, *rest)

    show.listens_to_pillow = True  # type: ignore[attr-defined]
    # Without this, Python passes on the first warning of each line of code only: the second file would be silent.
    warnings.filterwarnings("always", module=_PILLOW)
    warnings.showwarning = show


class _LogListener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Having a handler keeps logging from its last resort, which is stderr; of other threads it is still wanted.
        if not _keep(record.getMessage()) and not logging.getLogger().handlers and logging.lastResort is not None:
            logging.lastResort.handle(record)


@cache
def _listen_to_logs() -> None:
    logging.getLogger("PIL").addHandler(_LogListener(logging.WARNING))


@cache
def _listen_to_libtiff() -> Callable[..., None] | None:
    """Takes over libtiff's error handler, which prints to the file descriptor of stderr.

    Only the library that Pillow's own wheels bring, which nobody else uses; a Pillow built against the system's
    libtiff goes on printing.

    Returns:
        The handler: it must live as long as the library may call it.
    """
    folder = Path(PIL.__file__).parent
    found = [*folder.parent.glob("pillow.libs/libtiff*.so*"), *folder.glob(".dylibs/libtiff*.dylib")]
    if len(found) != 1:
        return None
    try:
        library, c = ctypes.CDLL(str(found[0])), ctypes.CDLL(None)
        set_handler, format_into = library.TIFFSetErrorHandler, c.vsnprintf
    except (OSError, AttributeError):
        return None
    kind = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)
    format_into.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

    def handle(module: bytes | None, form: bytes, arguments: int) -> None:
        # The arguments are C's va_list, a pointer on every platform that Pillow has wheels for, only to be passed on.
        text = ctypes.create_string_buffer(2 * _MOST_LETTERS)
        format_into(text, len(text), form, arguments)
        words = b": ".join(part for part in (module, text.value) if part).decode("utf-8", "replace")
        if not _keep(words):
            sys.stderr.write(words + "\n")

    handler = kind(handle)
    set_handler.argtypes, set_handler.restype = (kind,), ctypes.c_void_p
    set_handler(handler)
    return handler
