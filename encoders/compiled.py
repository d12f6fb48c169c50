"""The decorator of compiled functions, with a cache that follows the sources, and their calls on several threads.

Numba caches a function by its own file alone: a function that calls one of another file keeps the old code of that
file after it has changed, or worse, another layout of its arguments. So the cache folder carries a digest of all
sources of this package, and lies where installed packages need not be writable. Compiled calls hold no interpreter
lock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit
from numba.core import config

from data_schemas.files import cache_folder as user_cache_folder

SETTING = "CACHE_DIR"

Part = TypeVar("Part")
Result = TypeVar("Result")


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where compiled code is kept: ``$NUMBA_CACHE_DIR``, ``$SPLATSPACE_CACHE`` or the user's cache folder.

    Returns:
        A folder of its own for this state of the sources.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(given) if given else user_cache_folder()) / "compiled" / digest.hexdigest()


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles on first use, without the interpreter lock, with numpy's rules for division; cached on disk."""
    # Read by Numba while it decorates; set by name, as type checkers do not see the settings.
    before = getattr(config, SETTING)
    setattr(config, SETTING, str(cache_folder()))
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        setattr(config, SETTING, before)


def is_compiled(function: Any) -> bool:
    """Whether a function that ``compiled`` has made need not be compiled any more, for it is in memory or on disk."""
    kept = Path(function.stats.cache_path).glob(f"*.{function.__name__}-*.nbi")
    return bool(function.signatures) or any(kept)


def parts_of(images: int, threads: int) -> list[slice]:
    """Ranges of images: some for each thread, so that none waits long for another."""
    size = -(-images // (1 if threads == 1 else 4 * threads))
    return [slice(first, min(first + size, images)) for first in range(0, images, size)] if images else []


def on_threads(call: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> list[Result]:
    """The results of all parts in order; in this thread where one is enough."""
    if threads == 1 or len(parts) <= 1:
        return [call(part) for part in parts]
    return list(_pool(os.getpid(), threads).map(call, parts))


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay: starting them would cost as much as a small batch. A forked process has none of them."""
    return ThreadPoolExecutor(threads, thread_name_prefix="splats")
