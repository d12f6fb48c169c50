"""The figures as a table for the terminal, in the words of the page. Texts from the data are plain, never markup."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from data_schemas.printable import printable
from pipeline.format import (
    MISSING,
    format_bytes,
    format_number,
    format_ratio,
    format_seconds,
    format_share,
    list_counts,
)
from pipeline.report.changes_record import HEADLINE, Changes
from pipeline.report.figures import CostFigures, Report
from pipeline.report.predictability_record import Predictability
from pipeline.sources.base import NOTE_WORDS


def note_words(kind: str) -> str:
    """What is said of images by the kind of their notes, after a count; a newer store may have kinds of its own."""
    return next((words for known, words in NOTE_WORDS.items() if known == kind), f"images are noted as {kind}")


def cost_line(cost: CostFigures) -> str:
    """Seconds per image in one line."""
    if cost.core_seconds_per_image is None:
        return "not recorded: no run of the encoder is in this store"
    return (
        f"{format_seconds(cost.core_seconds_per_image)} of CPU time, "
        f"{format_seconds(cost.fit_seconds_per_image)} of fitting, "
        f"{format_seconds(cost.wall_seconds_per_image)} of wall time in all"
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
        line("Left out", list_counts(apart), "yellow")
    if images.unmeasured:
        line("Not measured", f"{images.unmeasured:,} done without a PSNR or SSIM, in no figure of quality", "yellow")
    line("PSNR of mean error", f"{format_number(quality.of_mean_error)} dB", "bold green")
    if report.changes is not None:
        line("What changed", change_line(report.changes))
    line("PSNR", f"mean {format_number(quality.mean)}, median {format_number(quality.median)} dB")
    line(
        "PSNR percentiles",
        f"min {format_number(quality.minimum)}, p1 {format_number(quality.p1)}, p5 {format_number(quality.p5)}, "
        f"p25 {format_number(quality.p25)}, p75 {format_number(quality.p75)}, p95 {format_number(quality.p95)}, "
        f"max {format_number(quality.maximum)} dB",
    )
    line(
        "Lossless",
        f"{format_share(quality.lossless_share)} ({quality.lossless:,} of {quality.images:,}"
        + (f", each at {report.lossless_psnr:.0f} dB in means and percentiles)" if quality.lossless else ")"),
    )
    line(
        "SSIM",
        f"mean {format_number(quality.ssim_mean, 4)}, p1 {format_number(quality.ssim_p1, 4)}, "
        f"min {format_number(quality.ssim_minimum, 4)}",
    )
    line("Predictability R2", predictability_line(report))
    line("Dead Gaussians", f"{format_number(report.dead.mean)} per image ({format_share(report.dead.share)})")
    line("Time per image", cost_line(report.cost))
    line("Steps", f"{format_number(report.cost.steps_mean, 1)} per image")
    line("Numbers", f"{size.splat_numbers:,} for {size.image_numbers:,}: {format_ratio(size.ratio_numbers)}")
    line(
        "Bytes",
        f"{format_bytes(size.splat_bytes)} for {format_bytes(size.image_bytes)}: {format_ratio(size.ratio_bytes)}",
    )
    line(
        "Bytes on disk",
        f"{format_bytes(size.splat_bytes_on_disk)} for {format_bytes(size.image_bytes)}: "
        f"{format_ratio(size.ratio_bytes_on_disk)}",
    )
    for kind, count in report.noted.items():
        line(kind.capitalize(), f"{count:,} {note_words(kind)}", "yellow")
    for failed in report.failed[:_FAILED_SHOWN]:
        line("Failed", f"{failed.source_id}: {failed.reason}", "red")
    if len(report.failed) > _FAILED_SHOWN:
        line("", f"and {len(report.failed) - _FAILED_SHOWN:,} more, all in report.json", "red")
    return table
