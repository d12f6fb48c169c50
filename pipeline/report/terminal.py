"""The figures as a table for the terminal. Texts from the data are plain: no markup is read from them."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from data_schemas.printable import printable
from pipeline.report.figures import Report
from pipeline.report.wording import (
    MISSING,
    cost_line,
    note_words,
    number,
    predictability_line,
    ratio_words,
    share,
    size_words,
)

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
        f"{images.done:,} done, {images.failed:,} failed, {images.empty:,} empty",
        "yellow" if images.failed or images.empty else "",
    )
    apart = {"identical copies": report.source.removed_duplicates, "other files": report.source.left_out}
    if any(apart.values()):
        line("Left out", ", ".join(f"{count:,} {what}" for what, count in apart.items() if count), "yellow")
    if images.unmeasured:
        line("Not measured", f"{images.unmeasured:,} done without a PSNR or SSIM, in no figure of quality", "yellow")
    line("PSNR of mean error", f"{number(quality.of_mean_error)} dB", "bold green")
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
