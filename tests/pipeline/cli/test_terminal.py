"""What reaches the terminal: names from outside never steer it."""

from __future__ import annotations

import json
import logging

import pytest
from rich.table import Table
from rich.text import Text

from data_schemas.errors import SourceError
from data_schemas.printable import markdown_text, printable, text_of_markdown
from pipeline.cli.terminal import print_json, say, start_logging, stdout, warn

NASTY = "a\x1b[2J\x07\r\n\x9b31m\u202egnp.exe\udcff"
SHOWN = r"a\x1b[2J\x07\r\n\x9b31m\u202egnp.exe\udcff"


def test_lines_and_warnings_are_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"row 1 {NASTY}")
    warn(f"Warning: {NASTY}")
    out, err = capsys.readouterr()
    assert out == f"row 1 {SHOWN}\n"
    assert err == f"Warning: {SHOWN}\n"


def test_tables_keep_their_lines_and_colours(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", title=Text("a\x1b[2Jb"))
    table.add_row(Text("x\x9b1m", style="bold"))
    table.add_row("second")
    stdout().print(table)
    text = capsys.readouterr().out
    assert r"a\x1b[2Jb" in text
    assert r"x\x9b1m" in text
    assert len(text.splitlines()) > 4
    assert not any(character in text for character in "\x1b\x9b")


def test_log_lines_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("splatspace")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    # What pytest keeps of a log goes to another process, which takes no lone surrogates.
    monkeypatch.setattr(logger, "propagate", False)
    start_logging(verbose=False)
    logging.getLogger("splatspace.sources").warning("%s: left out", NASTY)
    text = capsys.readouterr().err
    assert "".join(text.split("WARNING")[1].split()) == f"{SHOWN}:leftout".replace(" ", "")
    assert len(text.strip().splitlines()) == 1


def test_json_holds_the_same_text_without_raw_characters(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"name": NASTY, "é": ["ü\x7f", 1]}
    print_json(content)
    text = capsys.readouterr().out
    assert json.loads(text) == content
    assert "é" in text
    assert printable(text, keep="\n") == text


def test_errors_write_names_out() -> None:
    assert str(SourceError(f"{NASTY} is empty", next_step="go")) == f"{SHOWN} is empty. Next: go."


def test_text_for_markdown_is_text_and_comes_back() -> None:
    text = "[x](y) <b>*bold*</b> a_b | `c` & d\n# e"
    assert markdown_text(text) == r"\[x\](y) &lt;b&gt;\*bold\*&lt;/b&gt; a\_b \| \`c\` &amp; d \# e"
    assert text_of_markdown(markdown_text(text)) == " ".join(text.split())
    assert markdown_text("\x1b[1m") == r"\\x1b\[1m"
