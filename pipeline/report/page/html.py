"""``report.html``: one self-contained page; every text from the data is escaped by the template engine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from data_schemas.printable import printable
from data_schemas.stores.contract import SplatStore
from pipeline.encode.presets import PRESETS
from pipeline.format import format_bytes, format_number, format_ratio, format_seconds, format_share
from pipeline.report.changes_record import FigureChange
from pipeline.report.figures import LOSSLESS_PSNR, ClassFigures, Report
from pipeline.report.page.data import pack_rows, page_script, png_address
from pipeline.report.page.more_panels import make_page_panels
from pipeline.report.page.plots import cumulative_svg, histogram_svg
from pipeline.report.panels import LARGEST_PICTURE, Panel, error_factor, picture, png_bytes, splat_picture
from pipeline.report.predictability_record import Decoder
from pipeline.report.statistics import RowFigures
from pipeline.report.terminal import cost_line, note_words, predictability_parts

FAILED_SHOWN = 50
"""Failed images that the page lists; ``report.json`` lists all."""

CLASSES_SHOWN = 200
"""Classes that the page lists; ``report.json`` lists all."""

DATA_BYTES = 4_500_000
"""Of images, splats and the list of rows together; the rest is for the words of a page of 5 MB."""

PICTURE_BYTES = 1_000_000
"""Of the images of the first panels; they are made smaller until they fit."""

CHANGED_CLASSES_SHOWN = 20

_TEMPLATE = "report.html.j2"
_PACKAGE = "pipeline.report.page"
_ELLIPSE_COLOURS = 96


def render_html(
    report: Report, *, rows: RowFigures, panels: Sequence[Panel], store: SplatStore, decoder: Decoder
) -> str:
    """The page: at most 5 MB, however large the store is.

    Args:
        report: what it says.
        rows: of the store, for the cumulative curve and the list that is searched.
        panels: what it shows first.
        store: gives names, more panels and their layout.
        decoder: decodes the panels.
    """
    environment = page_environment()
    environment.filters.update(
        number=format_number,
        share=format_share,
        seconds=format_seconds,
        size=format_bytes,
        ratio=format_ratio,
        cost=cost_line,
        parts=predictability_parts,
        note=note_words,
        changed=changed,
        signed=signed,
        decimals=change_decimals,
    )
    template = environment.from_string(files(_PACKAGE).joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    factor = error_factor(panels)
    classes, hidden = _shown_classes(report.classes)
    names = store.header.source.label_names
    psnr = rows.psnr[rows.measured]
    listed = pack_rows(store, rows, names)
    groups = _groups(panels, factor, store)
    used = sum(len(listed[part]["data"]) for part in ("names", "columns"))
    used += sum(len(tile["uri"]) for group in groups for card in group["cards"] for tile in card["tiles"])
    more = make_page_panels(store, rows, names, panels, decoder=decoder, most_bytes=max(0, DATA_BYTES - used))
    script, allowed = page_script(
        (_PACKAGE, "splat_canvas.js"), (_PACKAGE, "page_panels.js"), (_PACKAGE, "page_rows.js")
    )
    # The command may be pasted: a name is quoted for the shell, and steering characters stay written out.
    render = shlex.join(["splatspace", "render", printable(report.store.name), "--image"])
    return template.render(
        report=report,
        style=page_style(),
        settings=json.dumps(report.store.settings, indent=1, sort_keys=True),
        histogram=Markup(histogram_svg(report.histogram, report.quality)) if len(psnr) else None,
        cumulative=Markup(cumulative_svg(psnr)) if len(psnr) else None,
        groups=groups,
        factor=factor,
        failed=report.failed[:FAILED_SHOWN],
        classes=classes,
        classes_hidden=hidden,
        lossless=LOSSLESS_PSNR,
        changed_classes=() if report.changes is None else report.changes.classes[:CHANGED_CLASSES_SHOWN],
        render=render,
        listed=listed,
        more=more,
        panel_data={"canvas": more.canvas, "splats": more.splats, "more": more.more, "render": render},
        needs_files=report.source.name.partition(" ")[0] in PRESETS and report.source.name != "demo",
        script=script,
        allowed=allowed,
    )


def page_style() -> Markup:
    """What all pages look like."""
    return Markup(files(_PACKAGE).joinpath("page.css").read_text(encoding="utf-8"))


def changed(change: FigureChange) -> str:
    """A difference with its sign and unit."""
    return signed(change.difference, change_decimals(change)) + (f" {change.unit}" if change.unit else "")


def signed(difference: float, decimals: int = 2) -> str:
    """A number with its sign; one that is too small to be shown keeps a digit."""
    if not difference:
        return "0"
    return ("+" if difference > 0 else "\u2212") + format_number(abs(difference), decimals)


def change_decimals(change: FigureChange) -> int:
    """Digits behind the point that say something: 2 of dB, none of counts and of bytes, 4 of shares and seconds."""
    if change.unit:
        return 2
    is_count = change.before.is_integer() and change.now.is_integer()
    return 0 if is_count or max(abs(change.before), abs(change.now)) >= 100 else 4


def page_environment() -> Environment:
    """Jinja for a page: every text from the data is escaped, and what would steer the writing is written out."""
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalised
    )


def _finalised(value: object) -> object:
    # Markup is made here, of images; it is no text from the data.
    return printable(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _groups(panels: Sequence[Panel], factor: int, store: SplatStore) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for largest in (LARGEST_PICTURE, 128, 64, 32):
        tiles = [_tiles(panel, factor, store, largest) for panel in panels]
        if sum(len(tile["uri"]) for strip in tiles for tile in strip) <= PICTURE_BYTES:
            break
    else:
        tiles = [_tiles(panel, factor, store, 16) for panel in panels]
    for panel, strip in zip(panels, tiles, strict=True):
        groups.setdefault(panel.image.group, []).append({"image": panel.image, "tiles": strip})
    groups.get("best", []).reverse()
    return [{"name": name, "cards": cards} for name, cards in groups.items()]


def _tiles(panel: Panel, factor: int, store: SplatStore, largest: int) -> list[dict[str, str]]:
    tiles: list[tuple[str, bytes, str]] = []
    if panel.source is not None:
        tiles.append(("source", png_bytes(picture(panel.source), largest=largest), "pixels"))
    tiles.append(("decoded", png_bytes(picture(panel.decoded), largest=largest), "pixels"))
    if panel.error is not None:
        tiles.append((f"error \u00d7{factor}", png_bytes(picture(panel.error, factor), largest=largest), "pixels"))
    drawing = png_bytes(splat_picture(panel, store), colours=_ELLIPSE_COLOURS, largest=largest)
    tiles.append(("splats", drawing, "drawing"))
    return [{"caption": caption, "kind": kind, "uri": png_address(data)} for caption, data, kind in tiles]


def _shown_classes(classes: Sequence[ClassFigures]) -> tuple[list[ClassFigures], int]:
    """The classes of lowest PSNR, the lowest first, ones without a measured image last; and how many are left."""
    order = sorted(
        classes, key=lambda one: (one.quality.of_mean_error is None, one.quality.of_mean_error or 0.0, one.label)
    )
    return order[:CLASSES_SHOWN], max(0, len(order) - CLASSES_SHOWN)
