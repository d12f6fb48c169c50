"""What the tests of pushing look with: the command line, and a card as a hub reads it."""

from __future__ import annotations

from typing import Any

import yaml
from typer.testing import CliRunner, Result

from pipeline.cli import app


def fields_of(card: bytes | str) -> dict[str, Any]:
    """What a hub reads of a card."""
    text = card.decode() if isinstance(card, bytes) else card
    _, head, _ = text.split("---\n", 2)
    return yaml.safe_load(head)


def splatspace(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])
