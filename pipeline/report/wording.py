"""Figures as people read them: the same words on the page and on the terminal."""

from __future__ import annotations

from pipeline.predictability_record import Predictability
from pipeline.report.figures import CostFigures, Report
from pipeline.sources.base import NOTE_WORDS

MISSING = "\u2013"
"""Stands where a figure could not be measured."""


def number(value: float | None, decimals: int = 2) -> str:
    """A number with thousands separated; ``MISSING`` for None."""
    return MISSING if value is None else f"{value:,.{decimals}f}"


def share(value: float | None) -> str:
    """A share as a percentage; small ones keep a significant digit, and only 0 and 1 are called 0 % and 100 %."""
    if value is None:
        return MISSING
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if 0 < value < 1 else f"{100 * value:.0f} %"


def note_words(kind: str) -> str:
    """What is said of images by the kind of their notes, after a count; a newer store may have kinds of its own."""
    return next((words for known, words in NOTE_WORDS.items() if known == kind), f"images are noted as {kind}")


def seconds(value: float | None) -> str:
    """A time in s, ms or microseconds."""
    if value is None:
        return MISSING
    if value >= 1 or value == 0:
        return f"{value:,.2f} s"
    return f"{value * 1e3:,.2f} ms" if value >= 1e-3 else f"{value * 1e6:,.1f} \u00b5s"


def size_words(value: float | None) -> str:
    """A size in bytes, kB, MB or GB (powers of 1,000)."""
    if value is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e4)):
        if value >= scale:
            return f"{value / (1e3 if unit == 'kB' else scale):,.1f} {unit}"
    return f"{value:,.0f} bytes"


def ratio_words(value: float | None) -> str:
    """A compression ratio; one below 1 is called what it is."""
    if value is None:
        return MISSING
    if value >= 1:
        return f"{value:.2f} (compression)"
    return f"{value:.2f} (expansion: {1 / value:.2f} times as large)"


def cost_line(cost: CostFigures) -> str:
    """Seconds per image in one line."""
    if cost.core_seconds_per_image is None:
        return "not recorded: no run of the encoder is in this store"
    return (
        f"{seconds(cost.core_seconds_per_image)} of processor time, {seconds(cost.fit_seconds_per_image)} of fitting, "
        f"{seconds(cost.wall_seconds_per_image)} of wall time in all"
    )


def predictability_parts(found: Predictability) -> str:
    """Predictability by group of numbers; groups that do not vary are left out."""
    parts = (("position", found.r2_position), ("shape", found.r2_shape), ("colour", found.r2_colour))
    return ", ".join(f"{name} {value:.2f}" for name, value in parts if value is not None)


def predictability_line(report: Report) -> str:
    """Predictability in one line, or why there is none."""
    found = report.predictability
    return report.predictability_reason if found is None else f"{found.r2:.3f} ({predictability_parts(found)})"
