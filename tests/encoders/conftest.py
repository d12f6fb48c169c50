"""What the tests of interpreted kernels run in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def quick_interpreter() -> Iterator[None]:
    """Triton's interpreter patches its language once a module instead of at every call: most of its time."""
    from triton.runtime import interpreter

    from encoders.cuda.device_fit import interpreting

    assert interpreting()
    patch, patched = interpreter._patch_lang, set()

    def once(function: Callable[..., Any]) -> SimpleNamespace:
        if id(function.__globals__) not in patched:
            patched.add(id(function.__globals__))
            patch(function)
        return SimpleNamespace(restore=lambda: None)  # the patches stay

    with pytest.MonkeyPatch.context() as replaced:
        replaced.setattr(interpreter, "_patch_lang", once)
        yield
