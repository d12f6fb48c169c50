"""The decorator of compiled functions, with a cache that follows the sources.

Numba caches a function by its own file alone: a function that calls one of another file keeps the old code of that
file after it has changed, or worse, another layout of its arguments. So the cache folder carries a digest of all
sources of this package, and lies where installed packages need not be writable.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import config
from platformdirs import user_cache_path

SETTING = "CACHE_DIR"


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where compiled code is kept: ``$NUMBA_CACHE_DIR``, ``$SPLATSPACE_CACHE`` or the user's cache folder.

    Returns:
        A folder of its own for this state of the sources.
    """
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode())
        digest.update(source.read_bytes())
    given = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("SPLATSPACE_CACHE")
    base = Path(given) if given else user_cache_path("splatspace")
    return base / "compiled" / digest.hexdigest()


def compiled(function: Callable[..., Any]) -> Any:
    """Compiles on first use, without the interpreter lock, with numpy's rules for division; cached on disk."""
    # Read by Numba while it decorates; set by name, as type checkers do not see the settings.
    before = getattr(config, SETTING)
    setattr(config, SETTING, str(cache_folder()))
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        setattr(config, SETTING, before)
