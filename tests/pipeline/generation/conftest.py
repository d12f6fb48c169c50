from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _previews(brief_previews: None) -> None:
    """Every training of this folder is one of a few steps."""
