"""The comparison of two stores as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.compare import Comparison
from pipeline.report.wording import MISSING, number, ratio_words, seconds, share


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the terminal. Texts from the data are plain: no markup is read from them."""
    a, b, delta = comparison.a, comparison.b, comparison.differences
    table = Table(
        box=box.SIMPLE,
        title=Text(f"{comparison.matched:,} images in both stores", style="bold"),
        title_justify="left",
        pad_edge=False,
        caption_justify="left",
        caption=Text(_caption(comparison)),
    )
    table.add_column("", style="dim")
    for side in (a, b):
        table.add_column(Text(side.name, overflow="fold"), justify="right")
    table.add_column("B - A", justify="right")

    def line(name: str, value_a: float | None, value_b: float | None, decimals: int = 2) -> None:
        change = MISSING if value_a is None or value_b is None else f"{value_b - value_a:+,.{decimals}f}"
        table.add_row(name, number(value_a, decimals), number(value_b, decimals), change)

    line("PSNR of mean error (dB)", a.quality.of_mean_error, b.quality.of_mean_error)
    line("PSNR mean (dB)", a.quality.mean, b.quality.mean)
    line("PSNR median (dB)", a.quality.median, b.quality.median)
    line("PSNR p1 (dB)", a.quality.p1, b.quality.p1)
    line("PSNR min (dB)", a.quality.minimum, b.quality.minimum)
    line("SSIM mean", a.quality.ssim_mean, b.quality.ssim_mean, 4)
    table.add_row("Lossless", share(a.quality.lossless_share), share(b.quality.lossless_share), "")
    table.add_row(
        "Processor time / image", seconds(a.cost.core_seconds_per_image), seconds(b.cost.core_seconds_per_image), ""
    )
    line("Splat bytes / image", a.size.splat_bytes, b.size.splat_bytes, 0)
    table.add_row("Pixel bytes / splat bytes", ratio_words(a.size.ratio_bytes), ratio_words(b.size.ratio_bytes), "")
    table.add_row("Better in", f"{comparison.wins_a:,}", f"{comparison.wins_b:,}", f"{comparison.ties:,} ties")
    table.add_section()
    table.add_row("Difference, image by image", "", "", f"mean {delta.mean:+.2f}, median {delta.median:+.2f}")
    table.add_row("", "", "", f"p5 {delta.p5:+.2f}, p95 {delta.p95:+.2f}")
    for image in comparison.worst_regressions[:3]:
        table.add_row(
            Text(f"Worse: {image.source_id_b}"), number(image.psnr_a), number(image.psnr_b), f"{image.difference:+.2f}"
        )
    return table


def _caption(comparison: Comparison) -> str:
    lines = [f"Not compared: {len(comparison.unmatched_a):,} images of A, {len(comparison.unmatched_b):,} of B."]
    for side, images in (("A", comparison.unmatched_a), ("B", comparison.unmatched_b)):
        lines += [f"  {side}: {image.source_id}: {image.reason}" for image in images[:3]]
    if comparison.settings:
        lines.append(
            "They differ in " + ", ".join(f"{k} ({x} / {y})" for k, (x, y) in comparison.settings.items()) + "."
        )
    return "\n".join(lines)
