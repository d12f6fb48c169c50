"""Two stores of the same images, side by side: which is better, by how much, and where; as a table, too."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich import box
from rich.table import Table
from rich.text import Text

from data_schemas.errors import StoreMismatchError
from data_schemas.records import RowState, StoreHeader
from data_schemas.stores.contract import SplatStore
from pipeline.format import MISSING, format_number, format_ratio, format_seconds, format_share
from pipeline.report.figures import LOSSLESS_PSNR, CostFigures, QualityFigures, SizeFigures, finite
from pipeline.report.statistics import (
    RowFigures,
    cap_lossless,
    cost_figures,
    quality_of,
    read_rows,
    size_figures,
)

TIE_DB = 0.01
"""Images whose PSNR differs by less are a tie."""

_SHOWN = 10


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StoreSide(_Record):
    """One of the two stores, over the matched images where not said otherwise."""

    name: str
    images: int = Field(description="rows of the store, matched or not")
    quality: QualityFigures
    cost: CostFigures = Field(description="of the whole store")
    size: SizeFigures = Field(description="of the whole store")


class Differences(_Record):
    """PSNR of B minus PSNR of A in dB, image by image; lossless images at ``LOSSLESS_PSNR``."""

    mean: float
    median: float
    minimum: float
    p5: float
    p25: float
    p75: float
    p95: float
    maximum: float
    ssim_mean: float = Field(description="mean of SSIM of B minus SSIM of A")


class MatchedImage(_Record):
    """An image in both stores."""

    row_a: int
    row_b: int
    source_id_a: str
    source_id_b: str
    psnr_a: float
    psnr_b: float
    difference: float


class UnmatchedImage(_Record):
    """An image that cannot be compared, and why."""

    row: int
    source_id: str
    reason: str


class Comparison(_Record):
    """Two stores over the images that both hold, matched by content."""

    a: StoreSide
    b: StoreSide
    matched: int
    wins_a: int = Field(description="images that A decodes better by at least TIE_DB")
    wins_b: int
    ties: int
    tie_db: float = TIE_DB
    lossless_psnr: float = LOSSLESS_PSNR
    differences: Differences
    worst_regressions: tuple[MatchedImage, ...] = Field(description="where B is worst against A, worst first")
    best_gains: tuple[MatchedImage, ...] = Field(description="where B is best against A, best first")
    unmatched_a: tuple[UnmatchedImage, ...] = ()
    unmatched_b: tuple[UnmatchedImage, ...] = ()
    settings: dict[str, tuple[Any, Any]] = Field(default_factory=dict, description="what differs: (A, B)")


def compare_stores(a: SplatStore, b: SplatStore) -> Comparison:
    """Compares two stores on the images that both hold.

    Images are matched by the hash of their pixels, not by name or row. Where a store holds an image more than once,
    its first copy meets the first copy of the other, and so on; copies left over are unmatched.

    Args:
        a: the store to compare with.
        b: the store in question: differences are B minus A.

    Raises:
        StoreMismatchError: no image is in both stores and measured.
    """
    rows_a, rows_b = read_rows(a), read_rows(b)
    keys_a, keys_b = _keys(a), _keys(b)
    pairs = _pairs(keys_a, rows_a, keys_b, rows_b)
    if len(pairs) == 0:
        raise StoreMismatchError(
            f"No image is in both {a.path.name} ({_facts(a, rows_a)}) and {b.path.name} ({_facts(b, rows_b)})",
            allowed="stores with measured images of the same pixels",
            next_step="encode both from the same data set at the same size",
        )
    in_a, in_b = pairs[:, 0], pairs[:, 1]
    psnr_a, psnr_b = rows_a.psnr[in_a], rows_b.psnr[in_b]
    difference = cap_lossless(psnr_b) - cap_lossless(psnr_a)
    order = np.lexsort((in_a, difference))
    low, p5, p25, median, p75, p95, high = (
        round(float(v), 6) for v in np.percentile(difference, [0, 5, 25, 50, 75, 95, 100])
    )
    return Comparison(
        a=_side(a, rows_a, in_a),
        b=_side(b, rows_b, in_b),
        matched=len(pairs),
        wins_a=int((difference <= -TIE_DB).sum()),
        wins_b=int((difference >= TIE_DB).sum()),
        ties=int((np.abs(difference) < TIE_DB).sum()),
        differences=Differences(
            mean=round(float(difference.mean()), 6),
            median=median,
            minimum=low,
            p5=p5,
            p25=p25,
            p75=p75,
            p95=p95,
            maximum=high,
            ssim_mean=round(float((rows_b.ssim[in_b] - rows_a.ssim[in_a]).mean()), 6),
        ),
        worst_regressions=_images(a, b, pairs, order[difference[order] <= -TIE_DB][:_SHOWN], psnr_a, psnr_b),
        best_gains=_images(a, b, pairs, order[::-1][difference[order[::-1]] >= TIE_DB][:_SHOWN], psnr_a, psnr_b),
        unmatched_a=_unmatched(a, rows_a, keys_a, in_a, set(keys_b), b.path.name),
        unmatched_b=_unmatched(b, rows_b, keys_b, in_b, set(keys_a), a.path.name),
        settings=_settings(a.header, b.header),
    )


def _keys(store: SplatStore) -> list[bytes]:
    """The content hash of every row; empty where the image was never read."""
    hashes: NDArray[np.uint8] = store.read(["content_hash"])["content_hash"]
    known = [bool(value) for value in np.any(hashes, axis=1)]
    return [row.tobytes() if is_known else b"" for row, is_known in zip(hashes, known, strict=True)]


def _pairs(keys_a: list[bytes], rows_a: RowFigures, keys_b: list[bytes], rows_b: RowFigures) -> NDArray[np.int64]:
    """Row numbers (in A, in B) of the images that both stores hold and have measured: int64 [pair, 2]."""
    waiting: dict[bytes, deque[int]] = defaultdict(deque)
    for row in np.flatnonzero(rows_b.measured):
        if keys_b[row]:
            waiting[keys_b[row]].append(int(row))
    pairs = [
        (int(row), waiting[keys_a[row]].popleft())
        for row in np.flatnonzero(rows_a.measured)
        if keys_a[row] and waiting.get(keys_a[row])
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _side(store: SplatStore, rows: RowFigures, matched: NDArray[np.int64]) -> StoreSide:
    return StoreSide(
        name=store.path.name,
        images=len(store),
        quality=quality_of(rows.psnr[matched], rows.ssim[matched]),
        cost=cost_figures(store.header.runs, rows),
        size=size_figures(store.header, store.nbytes_stored, int(rows.done.sum())),
    )


def _images(
    a: SplatStore,
    b: SplatStore,
    pairs: NDArray[np.int64],
    chosen: NDArray[Any],
    psnr_a: NDArray[np.float64],
    psnr_b: NDArray[np.float64],
) -> tuple[MatchedImage, ...]:
    if len(chosen) == 0:
        return ()
    names_a = a.read(["source_id"], [int(row) for row in pairs[chosen, 0]])["source_id"]
    names_b = b.read(["source_id"], [int(row) for row in pairs[chosen, 1]])["source_id"]
    images: list[MatchedImage] = []
    for index, name_a, name_b in zip(chosen, names_a, names_b, strict=True):
        first, second = float(cap_lossless(psnr_a[index])), float(cap_lossless(psnr_b[index]))
        images.append(
            MatchedImage(
                row_a=int(pairs[index, 0]),
                row_b=int(pairs[index, 1]),
                source_id_a=str(name_a),
                source_id_b=str(name_b),
                psnr_a=round(first, 6),
                psnr_b=round(second, 6),
                difference=round(second - first, 6),
            )
        )
    return tuple(images)


def _unmatched(
    store: SplatStore, rows: RowFigures, keys: list[bytes], matched: NDArray[np.int64], others: set[bytes], other: str
) -> tuple[UnmatchedImage, ...]:
    left = np.ones(len(store), bool)
    left[matched] = False
    numbers = [int(row) for row in np.flatnonzero(left)]
    if not numbers:
        return ()
    names = store.read(["source_id"], numbers)["source_id"]
    return tuple(
        UnmatchedImage(row=row, source_id=str(name), reason=_reason(rows, row, keys[row], others, other))
        for row, name in zip(numbers, names, strict=True)
    )


def _reason(rows: RowFigures, row: int, key: bytes, others: set[bytes], other: str) -> str:
    if rows.state[row] == RowState.FAILED:
        return "failed"
    if rows.state[row] == RowState.EMPTY:
        return "not encoded yet"
    if not rows.measured[row]:
        return "has no PSNR or SSIM"
    if not key:
        return "has no content hash"
    return f"not done in {other}, or held there less often" if key in others else f"not in {other}"


def _facts(store: SplatStore, rows: RowFigures) -> str:
    header = store.header
    return f"{int(rows.measured.sum())} measured images of {header.height}x{header.width}x{header.channels}"


def _settings(a: StoreHeader, b: StoreHeader) -> dict[str, tuple[Any, Any]]:
    """Fields of the stores' identity that differ, the encoder's settings one by one."""
    first, second = a.identity(), b.identity()
    first |= {f"settings.{key}": value for key, value in first.pop("settings").items()}
    second |= {f"settings.{key}": value for key, value in second.pop("settings").items()}
    return {
        key: (finite(first.get(key)), finite(second.get(key)))
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    }


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
        table.add_row(name, format_number(value_a, decimals), format_number(value_b, decimals), change)

    line("PSNR of mean error (dB)", a.quality.of_mean_error, b.quality.of_mean_error)
    line("PSNR mean (dB)", a.quality.mean, b.quality.mean)
    line("PSNR median (dB)", a.quality.median, b.quality.median)
    line("PSNR p1 (dB)", a.quality.p1, b.quality.p1)
    line("PSNR min (dB)", a.quality.minimum, b.quality.minimum)
    line("SSIM mean", a.quality.ssim_mean, b.quality.ssim_mean, 4)
    table.add_row("Lossless", format_share(a.quality.lossless_share), format_share(b.quality.lossless_share), "")
    table.add_row(
        "CPU time / image",
        format_seconds(a.cost.core_seconds_per_image),
        format_seconds(b.cost.core_seconds_per_image),
        "",
    )
    line("Splat bytes / image", a.size.splat_bytes, b.size.splat_bytes, 0)
    table.add_row("Pixel bytes / splat bytes", format_ratio(a.size.ratio_bytes), format_ratio(b.size.ratio_bytes), "")
    table.add_row("Better in", f"{comparison.wins_a:,}", f"{comparison.wins_b:,}", f"{comparison.ties:,} ties")
    table.add_section()
    table.add_row("Difference, image by image", "", "", f"mean {delta.mean:+.2f}, median {delta.median:+.2f}")
    table.add_row("", "", "", f"p5 {delta.p5:+.2f}, p95 {delta.p95:+.2f}")
    for image in comparison.worst_regressions[:3]:
        table.add_row(
            Text(f"Worse: {image.source_id_b}"),
            format_number(image.psnr_a),
            format_number(image.psnr_b),
            f"{image.difference:+.2f}",
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
