"""A stand-in for the hub, for each test a new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_schemas.files import CACHE_VARIABLE
from tests.hub_stand_in import HubStandIn, install_stand_in


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubStandIn:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return install_stand_in(monkeypatch, tmp_path / "hub")
