"""Writes docs/cli-reference.md from the command line itself: ``python docs/make_cli_reference.py``.

A test compares the page with the command line, so that help and page cannot differ.
"""

from __future__ import annotations

import html
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from pipeline.cli.app import app

PAGE = Path(__file__).parent / "cli-reference.md"

HEAD = """# Command line: every option

Generated from the command line by `python docs/make_cli_reference.py`; do not edit. [The commands in use](cli.md).

"""


def reference() -> str:
    """The page."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="splatspace")
    text = html.unescape(get_docs_for_click(obj=command, ctx=context, name="splatspace"))
    _, _, below = text.partition("\n")
    return HEAD + below.strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
