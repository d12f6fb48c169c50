"""Cards of repositories: ``README.md`` with what the hub reads of them as YAML, and with text for people.

Fields: https://huggingface.co/docs/hub/datasets-cards and https://huggingface.co/docs/hub/model-cards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from data_schemas.errors import JobError
from data_schemas.printable import markdown_text, printable

CARD_FILE = "README.md"

TAGS = ("splatspace", "2d-gaussian-splatting")

UNSTATED = "No licence is stated for the source images: find out whether your use is allowed before you use this."

# Those of https://huggingface.co/docs/hub/repositories-licenses that data and images are commonly under.
_KNOWN_LICENCES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0",
    "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "gfdl", "gpl-2.0", "gpl-3.0", "lgpl-3.0",
    "mit", "mpl-2.0", "odbl", "odc-by", "pddl", "unlicense",
}  # fmt: skip
_OTHER_NAMES = {"cc0": "cc0-1.0", "cc-0": "cc0-1.0"}
_NOT_STATED = re.compile(r"(none|unknown|unstated|unclear|no licen[cs]e|not (stated|recorded|known))\b", re.IGNORECASE)

# https://huggingface.co/docs/hub/datasets-cards: size_categories
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip


def is_stated(licence: str) -> bool:
    """Whether a source says under which licence its images are; "none stated by the authors" does not."""
    return bool(licence.strip()) and _NOT_STATED.match(licence.strip()) is None


def require_licence(licence: str, source: str, *, accepted: bool) -> str:
    """Refuses to publish what nobody has said may be published, unless the user answers for it.

    Args:
        licence: as the source states it.
        source: name of the data set.
        accepted: whether the user has made sure that it may be published.

    Returns:
        What is to be said beside the result; "" where a licence is stated.

    Raises:
        JobError: no licence is stated, and the user has not answered for it.
    """
    if is_stated(licence):
        return ""
    known = f"its licence: {licence}" if licence.strip() else "its licence is not recorded"
    if not accepted:
        raise JobError(
            f"The source {source} states no licence under which its images may be published ({known})",
            allowed="a source with a stated licence, or --licence-ok",
            next_step="ask its authors or read their terms; if you may publish it, add --licence-ok",
        )
    return f"The source {source} states no licence ({known}); you answer for it with --licence-ok. The card says so"


def licence_fields(licence: str) -> dict[str, str]:
    """What the YAML of a card says of a licence: the hub's word for it, else ``other`` with a name, or ``unknown``."""
    if not is_stated(licence):
        return {"license": "unknown"}
    word = "-".join(re.findall(r"[a-z0-9.+]+", licence.lower()))
    known = _OTHER_NAMES.get(word, word)
    if known in _KNOWN_LICENCES:
        return {"license": known}
    return {"license": "other", "license_name": word[:64].strip("-.") or "other"}


def size_category(images: int) -> str:
    """The hub's word for the size of a data set."""
    return next((word for limit, word in _SIZES if images < limit), "n>1T" if images >= 10**12 else "1B<n<10B")


def origin_lines(source: Mapping[str, Any]) -> list[str]:
    """Where images come from, as lines of markdown.

    Args:
        source: plain fields of a ``SourceRecord``.
    """
    licence = str(source.get("licence") or "")
    lines = [
        f"- Source: {markdown_text(str(source['name']))}, split {markdown_text(str(source.get('split') or 'all'))}",
        f"- Licence of the source: {markdown_text(licence) or 'not recorded'}",
    ]
    if not is_stated(licence):
        lines.append(f"- {UNSTATED}")
    if source.get("attribution"):
        lines.append(f"- Attribution: {markdown_text(str(source['attribution']))}")
    if source.get("digest"):
        lines.append(f"- Digest of its files: {markdown_text(str(source['digest']))}")
    return lines


def figures_table(rows: list[tuple[str, str]]) -> list[str]:
    """Names and values as a table of markdown."""
    return ["| | |", "|---|---|", *(f"| {markdown_text(name)} | {markdown_text(value)} |" for name, value in rows)]


def card(fields: Mapping[str, Any], lines: list[str]) -> bytes:
    """A card.

    Args:
        fields: what the hub reads; written as YAML, so that no name in it can end or change it.
        lines: of markdown.
    """
    head = printable(yaml.safe_dump(dict(fields), allow_unicode=True, sort_keys=False, width=1000), keep="\n")
    text = "\n".join(lines).rstrip()
    return f"---\n{head}---\n\n{text}\n".encode()
