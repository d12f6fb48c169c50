"""The figures as a table for the terminal, in the words of the page. Texts from the data are plain, never markup."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from data_schemas.printable import printable
from pipeline.report.changes_record import HEADLINE, Changes
from pipeline.report.figures import CostFigures, Report
from pipeline.report.predictability_record import Predictability
from pipeline.sources.base import NOTE_WORDS

MISSING = "\u2013"
"""Stands where a figure could not be measured."""


def number(value: float | None, decimals: int = 2) -> str:
    """A number with thousands separated; ``MISSING`` for None.

    One that would be shown as zero without being it keeps a digit: 3e-5.
    """
    if value is None:
        return MISSING
    if 0 < abs(value) < 0.5 * 10.0**-decimals:
        digits, exponent = f"{value:.0e}".split("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:,.{decimals}f}"


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
        f"{seconds(cost.core_seconds_per_image)} of CPU time, {seconds(cost.fit_seconds_per_image)} of fitting, "
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


def change_line(changes: Changes) -> str:
    """What changed since another report in one line."""
    found = next((one.difference for one in changes.figures if one.name == HEADLINE), None)
    decibel = "no PSNR to compare" if found is None else f"{found:+.2f} dB of mean error"
    words = [f"{decibel} against {changes.against} of {changes.against_created:%Y-%m-%d %H:%M} UTC"]
    if changes.matched is not None:
        words.append(
            f"{changes.better or 0:,} images better, {changes.worse or 0:,} worse, {changes.added or 0:,} added"
        )
        words += [f"worst {one.source_id} {one.difference:+.2f} dB" for one in changes.worst[:1]]
    return "; ".join(words)


_FAILED_SHOWN = 5


def report_table(report: Report) -> Table:
    """The figures of a report.

    Args:
        report: as built or as read from ``report.json``.
    """
    store, images, quality, size = report.store, report.images, report.quality, report.size
    title = Text(printable(f"{store.name}: {report.source.name}, {images.total:,} images"), style="bold")
    table = Table(box=box.SIMPLE, show_header=False, title=title, title_justify="left", pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def line(name: str, value: str, style: str = "") -> None:
        table.add_row(name, Text(printable(value), style=style))

    shape = f"{store.height}x{store.width}x{store.channels}"
    line(
        "Splats",
        f"{store.gaussians} x {len(store.parameters)} {store.dtype} per {shape} image, {store.codec}, "
        f"colours {store.colours}, start {store.start or MISSING}, seed {store.seed}",
    )
    line(
        "Images",
        f"{images.done:,} done, {images.failed:,} failed, {images.empty:,} empty"
        + (
            f"; {images.total:,} of the {images.of_set:,} of the set"
            if images.of_set and images.of_set > images.total
            else ""
        ),
        "yellow" if images.failed or images.empty else "",
    )
    apart = {"identical copies": report.source.removed_duplicates, "other files": report.source.left_out}
    if any(apart.values()):
        line("Left out", ", ".join(f"{count:,} {what}" for what, count in apart.items() if count), "yellow")
    if images.unmeasured:
        line("Not measured", f"{images.unmeasured:,} done without a PSNR or SSIM, in no figure of quality", "yellow")
    line("PSNR of mean error", f"{number(quality.of_mean_error)} dB", "bold green")
    if report.changes is not None:
        line("What changed", change_line(report.changes))
    line("PSNR", f"mean {number(quality.mean)}, median {number(quality.median)} dB")
    line(
        "PSNR percentiles",
        f"min {number(quality.minimum)}, p1 {number(quality.p1)}, p5 {number(quality.p5)}, "
        f"p25 {number(quality.p25)}, p75 {number(quality.p75)}, p95 {number(quality.p95)}, "
        f"max {number(quality.maximum)} dB",
    )
    line(
        "Lossless",
        f"{share(quality.lossless_share)} ({quality.lossless:,} of {quality.images:,}"
        + (f", each at {report.lossless_psnr:.0f} dB in means and percentiles)" if quality.lossless else ")"),
    )
    line(
        "SSIM",
        f"mean {number(quality.ssim_mean, 4)}, p1 {number(quality.ssim_p1, 4)}, min {number(quality.ssim_minimum, 4)}",
    )
    line("Predictability R2", predictability_line(report))
    line("Dead Gaussians", f"{number(report.dead.mean)} per image ({share(report.dead.share)})")
    line("Time per image", cost_line(report.cost))
    line("Steps", f"{number(report.cost.steps_mean, 1)} per image")
    line("Numbers", f"{size.splat_numbers:,} for {size.image_numbers:,}: {ratio_words(size.ratio_numbers)}")
    line("Bytes", f"{size_words(size.splat_bytes)} for {size_words(size.image_bytes)}: {ratio_words(size.ratio_bytes)}")
    line(
        "Bytes on disk",
        f"{size_words(size.splat_bytes_on_disk)} for {size_words(size.image_bytes)}: "
        f"{ratio_words(size.ratio_bytes_on_disk)}",
    )
    for kind, count in report.noted.items():
        line(kind.capitalize(), f"{count:,} {note_words(kind)}", "yellow")
    for failed in report.failed[:_FAILED_SHOWN]:
        line("Failed", f"{failed.source_id}: {failed.reason}", "red")
    if len(report.failed) > _FAILED_SHOWN:
        line("", f"and {len(report.failed) - _FAILED_SHOWN:,} more, all in report.json", "red")
    return table
