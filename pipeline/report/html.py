"""``report.html``: one self-contained page; every text from the data is escaped by the template engine."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from data_schemas.printable import printable
from data_schemas.stores.contract import SplatStore
from pipeline.report.figures import LOSSLESS_PSNR, ClassFigures, Report
from pipeline.report.panels import Panel, error_factor, picture, png_bytes, splat_picture
from pipeline.report.plots import cumulative_svg, histogram_svg
from pipeline.report.terminal import (
    cost_line,
    note_words,
    number,
    predictability_parts,
    ratio_words,
    seconds,
    share,
    size_words,
)

FAILED_SHOWN = 50
"""Failed images that the page lists; ``report.json`` lists all."""

CLASSES_SHOWN = 200
"""Classes that the page lists; ``report.json`` lists all."""

_TEMPLATE = "report.html.j2"
_ELLIPSE_COLOURS = 96


def render_html(report: Report, *, psnr: NDArray[Any], panels: Sequence[Panel], store: SplatStore) -> str:
    """The page.

    Args:
        report: what it says.
        psnr: float [image] dB of the measured images, for the cumulative curve.
        panels: what it shows.
        store: gives the panels their layout.
    """
    environment = page_environment()
    environment.filters.update(
        number=number,
        share=share,
        seconds=seconds,
        size=size_words,
        ratio=ratio_words,
        cost=cost_line,
        parts=predictability_parts,
        note=note_words,
    )
    template = environment.from_string(files("pipeline.report").joinpath(_TEMPLATE).read_text(encoding="utf-8"))
    factor = error_factor(panels)
    classes, hidden = _shown_classes(report.classes)
    return template.render(
        report=report,
        settings=json.dumps(report.store.settings, indent=1, sort_keys=True),
        histogram=Markup(histogram_svg(report.histogram, report.quality)) if len(psnr) else None,
        cumulative=Markup(cumulative_svg(psnr)) if len(psnr) else None,
        groups=_groups(panels, factor, store),
        factor=factor,
        failed=report.failed[:FAILED_SHOWN],
        classes=classes,
        classes_hidden=hidden,
        lossless=LOSSLESS_PSNR,
    )


def page_environment() -> Environment:
    """Jinja for a page: every text from the data is escaped, and what would steer the writing is written out."""
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalised
    )


def _finalised(value: object) -> object:
    # Markup is made here, of pictures; it is no text from the data.
    return printable(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def _groups(panels: Sequence[Panel], factor: int, store: SplatStore) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for panel in panels:
        groups.setdefault(panel.image.group, []).append({"image": panel.image, "tiles": _tiles(panel, factor, store)})
    groups.get("best", []).reverse()
    return [{"name": name, "cards": cards} for name, cards in groups.items()]


def _tiles(panel: Panel, factor: int, store: SplatStore) -> list[dict[str, str]]:
    tiles: list[tuple[str, bytes, str]] = []
    if panel.source is not None:
        tiles.append(("source", png_bytes(picture(panel.source)), "pixels"))
    tiles.append(("decoded", png_bytes(picture(panel.decoded)), "pixels"))
    if panel.error is not None:
        tiles.append((f"error \u00d7{factor}", png_bytes(picture(panel.error, factor)), "pixels"))
    tiles.append(("splats", png_bytes(splat_picture(panel, store), colours=_ELLIPSE_COLOURS), "drawing"))
    return [
        {"caption": caption, "kind": kind, "uri": "data:image/png;base64," + base64.b64encode(data).decode("ascii")}
        for caption, data, kind in tiles
    ]


def _shown_classes(classes: Sequence[ClassFigures]) -> tuple[list[ClassFigures], int]:
    """All classes in order, or the ones of lowest PSNR where there are too many for a page; and how many are left."""
    if len(classes) <= CLASSES_SHOWN:
        return list(classes), 0
    worst = np.argsort([c.quality.of_mean_error or LOSSLESS_PSNR for c in classes], kind="stable")[:CLASSES_SHOWN]
    return [classes[index] for index in worst], len(classes) - CLASSES_SHOWN
