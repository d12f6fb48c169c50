"""How figures are written for people, on pages, in tables, in cards, in messages: the same figure in the same form.

A figure that could not be measured is ``MISSING`` in the report and the evaluation, and ``NONE`` in the tables that
programs read back (artifacts, the ablation).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

MISSING = "\u2013"
NONE = "-"


def format_number(value: float | None, decimals: int = 2) -> str:
    """A number with thousands separated; ``MISSING`` for None.

    One that would be shown as zero without being it keeps a digit: 3e-5.
    """
    if value is None:
        return MISSING
    if 0 < abs(value) < 0.5 * 10.0**-decimals:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:,.{decimals}f}"


def format_cell(value: float | None, form: str, scale: float = 1.0) -> str:
    """A number in a form of Python's, as in ``.2f``; ``NONE`` for None.

    Args:
        value: the figure.
        form: see ``format``.
        scale: what the figure is multiplied with first, such as 100 for a percentage.
    """
    if value is None:
        return NONE
    return format(value if scale == 1 else value * scale, form)


def format_share(value: float | None) -> str:
    """A share as a percentage; small ones keep a significant digit, and only 0 and 1 are called 0 % and 100 %."""
    if value is None:
        return MISSING
    if 0 < value < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= value < 1:
        return "> 99.9 %"
    return f"{100 * value:.1f} %" if 0 < value < 1 else f"{100 * value:.0f} %"


def format_seconds(value: float | None) -> str:
    """A time in s, ms or microseconds."""
    if value is None:
        return MISSING
    if value >= 1 or value == 0:
        return f"{value:,.2f} s"
    return f"{value * 1e3:,.2f} ms" if value >= 1e-3 else f"{value * 1e6:,.1f} \u00b5s"


def format_duration(seconds: float) -> str:
    """How long a command took or will take: ``1:02:03`` or ``2:03``."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def format_bytes(value: float | None) -> str:
    """A size in bytes, kB, MB or GB (powers of 1,000)."""
    if value is None:
        return MISSING
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e4)):
        if value >= scale:
            return f"{value / (1e3 if unit == 'kB' else scale):,.1f} {unit}"
    return f"{value:,.0f} bytes"


def format_ratio(value: float | None) -> str:
    """A compression ratio; one below 1 is called what it is."""
    if value is None:
        return MISSING
    if value >= 1:
        return f"{value:.2f} (compression)"
    return f"{value:.2f} (expansion: {1 / value:.2f} times as large)"


def format_psnr(psnr: float | None, *, none: str = "lossless", infinite: str = "lossless", decimals: int = 2) -> str:
    """A PSNR in dB.

    Args:
        psnr: in dB.
        none: stands for None, which is what records hold in place of infinity.
        infinite: stands for infinity.
        decimals: digits behind the point.
    """
    if psnr is None:
        return none
    return infinite if math.isinf(psnr) else f"{psnr:.{decimals}f} dB"


def format_loss(loss: float | None) -> str:
    """A loss of a training, as ``loss 0.1234``; empty for None."""
    return "" if loss is None else f"loss {loss:.4f}"


def format_rate(images_per_second: float | None, decimals: int = 0) -> str:
    """A rate, as ``1,234 images/s``; empty for None."""
    return "" if images_per_second is None else f"{images_per_second:,.{decimals}f} images/s"


def format_part(part: int, whole: int) -> str:
    """``256`` where the part is the whole, else ``200 of 256``."""
    return f"{whole:,}" if part == whole else f"{part:,} of {whole:,}"


def describe_limit(limit: int | None, images: int, place: str, done: str) -> str:
    """What is said of a limit that is larger than what is there; empty for any other, and for none.

    Args:
        limit: images that were asked for.
        images: that are there.
        place: where; a data set or a store.
        done: what becomes of them, as in ``images are encoded``.
    """
    if limit is None or limit <= images:
        return ""
    return f"limit {limit:,} is more than {place} has: all of its {images:,} {done}"


def list_counts(counts: Mapping[str, int]) -> str:
    """Counts that are not 0, as ``1,000 fitted, 3 failed``.

    Args:
        counts: by what is counted.
    """
    return ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)


def list_parts(*parts: str) -> str:
    """Parts that are not empty, with commas between them."""
    return ", ".join(part for part in parts if part)


def list_names(names: Sequence[str], *, most: int | None = None, count: int | None = None, by: str = ",") -> str:
    """The first names and the number of the others: ``a, b and 3 more``.

    Args:
        names: all of them, or the first ones.
        most: that are shown; None for all.
        count: of all names; None where ``names`` are all of them.
        by: what stands between them; ``;`` where commas are part of a name.
    """
    shown = list(names[:most])
    more = (len(names) if count is None else count) - len(shown)
    tail = f"{by if by == ';' else ''} and {more:,} more" if more > 0 else ""
    return f"{by} ".join(shown) + tail
