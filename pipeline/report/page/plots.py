"""Small SVG images that live inside a page and follow its colours: the distribution of PSNR, measured curves."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.report.figures import LOSSLESS_PSNR, Histogram, QualityFigures
from pipeline.report.statistics import cap_lossless

# Stand-ins that no other shape of a figure has: each becomes a variable of the page's style sheet.
_COLOURS = {"#010203": "var(--ink)", "#040506": "var(--faint)", "#070809": "var(--line)", "#0a0b0c": "var(--accent)",
            "#0d0e0f": "var(--card)"}  # fmt: skip
_INK, _FAINT, _LINE, _ACCENT, _CARD = _COLOURS
_SIZE = (4.4, 2.7)
"""Inches. As wide as a narrow screen: there a point of type is about 1.1 pixels, and 10 points can be read."""
_LABEL: dict[str, Any] = {"facecolor": _CARD, "edgecolor": "none", "pad": 1.2}
"""Behind a label, so that no line or bar runs through it."""
_CURVE_POINTS = 200


def histogram_svg(histogram: Histogram, quality: QualityFigures) -> str:
    """Images by PSNR, with the 1st percentile, the median and the PSNR of the mean error marked.

    Args:
        histogram: with at least one count.
        quality: of the same images.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = _axes()
    edges, counts = np.array(histogram.edges), np.array(histogram.counts)
    lossless = quality.lossless if edges[-1] == LOSSLESS_PSNR else 0
    if lossless and len(counts) > 1:
        counts, edges = counts[:-1], edges[:-1]
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_ACCENT, linewidth=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, counts.max() * 1.6)
    marks = ((quality.p1, "p1", 0.99), (quality.of_mean_error, "of mean error", 0.89), (quality.median, "median", 0.79))
    for value, name, height in marks:
        if value is None or not edges[0] <= value <= edges[-1]:
            continue
        axes.axvline(value, ymax=height, color=_INK, linewidth=0.9, dashes=(3, 2))
        is_right = value > (edges[0] + edges[-1]) / 2
        axes.annotate(
            f"{name} {value:.1f}",
            (value, height),
            (-4 if is_right else 4, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=_INK,
            fontsize=10,
            ha="right" if is_right else "left",
            va="top",
            bbox=_LABEL,
            zorder=5,
        )
    axes.set_xlabel("PSNR (dB)" + (f"; lossless, beyond the axis: {lossless:,}" if lossless else ""))
    axes.set_ylabel("images")
    return _svg(figure, "histogram")


def cumulative_svg(psnr: NDArray[Any]) -> str:
    """Share of images at or below a PSNR.

    Args:
        psnr: float [image] dB, at least one, no NaN; ``inf`` where lossless.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = _axes()
    share = np.linspace(0, 1, min(_CURVE_POINTS, len(psnr) + 1))
    below = np.sort(cap_lossless(psnr)[np.isfinite(psnr)])
    if len(below):
        value = np.quantile(below, share, method="inverted_cdf")
        # Lossless images have no place on the axis: the curve ends below 100 % by their share.
        axes.step(value, 100 * share * len(below) / len(psnr), where="post", color=_ACCENT, linewidth=1.8)
    axes.set_ylim(0, 101)
    axes.set_xlabel("PSNR (dB)")
    axes.set_ylabel("% of images at or below")
    return _svg(figure, "cumulative")


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)
    axes.tick_params(colors=_FAINT, labelsize=10, width=0.8)
    axes.xaxis.label.set_color(_FAINT)
    axes.yaxis.label.set_color(_FAINT)
    axes.grid(True, axis="y", color=_LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure, name: str) -> str:
    """The figure as an element: text stays text, colours become variables, identifiers are the page's own."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10.5}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"|height="[\d.]+pt" width="[\d.]+pt"', "", text, count=1).strip()


def curves_svg(
    x: Sequence[float],
    y: Sequence[float],
    *,
    floors: Mapping[str, float],
    x_name: str,
    y_name: str,
    name: str = "evaluations",
) -> str:
    """A measured curve, with levels to compare it with.

    Args:
        x: where it was measured.
        y: what was measured, 0 or more.
        floors: levels by name.
        x_name: of the axis.
        y_name: of the axis.
        name: of the image, its own within the page.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = _axes()
    axes.plot(x, y, color=_ACCENT, linewidth=1.8, marker="o", markersize=5)
    greatest = max([*y, *floors.values(), 1e-9])
    # On the side away from the floors: below them where they lie above the curve, but never on the axis.
    is_below = bool(floors) and min(floors.values()) >= max(y) and min(y) > 0.15 * greatest
    side = -17 if is_below else 7
    for along, value in zip(x, y, strict=True):
        axes.annotate(f"{value:.3g}", (along, value), (0, side), textcoords="offset points", ha="center", color=_INK,
                      bbox=_LABEL, zorder=5)  # fmt: skip
    for number, (floor, level) in enumerate(floors.items()):
        axes.axhline(level, color=_FAINT, linewidth=1, dashes=(4, 3) if number else (1, 2))
        aligned, place = ("left", 0.01) if number else ("right", 0.99)
        axes.text(
            place,
            level,
            f"{floor} {level:.3g}",
            transform=axes.get_yaxis_transform(),
            ha=aligned,
            va="bottom",
            color=_FAINT,
            fontsize=9.5,
            bbox=_LABEL,
        )
    axes.set_ylim(0, greatest * 1.2)
    axes.set_xticks(list(x), [f"{along:g}" for along in x])
    axes.margins(x=0.12)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    return _svg(figure, name)
