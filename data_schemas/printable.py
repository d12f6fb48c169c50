"""Text from outside (names of files, reasons, licences) as it may be shown: nothing in it steers a terminal or a page.

A file's name may hold escape sequences that clear the screen, or turn the direction of writing. What is stored stays as
it is; whatever shows it goes through here.
"""

from __future__ import annotations

import re

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # control characters (ISO/IEC 6429), escape sequences among them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # those that turn the direction of writing
    "\u2028\u2029"  # ends of lines and paragraphs
    "\ud800-\udfff]"  # halves of characters, which no output can encode
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|#~])")


def printable(text: str, *, keep: str = "") -> str:
    """Text in which every steering character is written out as in a literal of Python.

    Args:
        text: from anywhere.
        keep: steering characters that stay, such as the ends of lines that a caller has set.
    """
    return _STEERING.sub(lambda match: match[0] if match[0] in keep else _written_out(match[0]), text)


def printable_json(text: str) -> str:
    """A JSON document whose strings hold no raw steering character; its meaning stays the same."""
    return _STEERING.sub(lambda match: match[0] if match[0] in "\n\r\t" else f"\\u{ord(match[0]):04x}", text)


def markdown_text(text: str) -> str:
    """Text that stays text within a line of markdown, and of HTML; it becomes one line."""
    safe = printable(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", safe)


def text_of_markdown(text: str) -> str:
    """What :func:`markdown_text` was made of, as one printable line."""
    plain = re.sub(rf"\\{_MARKDOWN.pattern}", r"\1", text)
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _written_out(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
