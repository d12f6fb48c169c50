from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipeline.mirrors import Mirror, serving


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as state:
        yield state


@pytest.fixture(scope="session", autouse=True)
def _previews(brief_previews: None) -> None:
    """Every training of this folder is one of a few steps."""
