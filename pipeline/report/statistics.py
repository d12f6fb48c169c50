"""From the columns of a store to the figures of its report. Reads one number per image, never splats or pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import RowState, RunRecord, StoreHeader
from data_schemas.stores.contract import SplatStore
from pipeline.report.figures import (
    LOSSLESS_PSNR,
    ClassFigures,
    CostFigures,
    DeadFigures,
    FailedImage,
    Histogram,
    ImageCounts,
    QualityFigures,
    SizeFigures,
)

_DECIMALS = 6
_HISTOGRAM_BINS = 40


@dataclass(frozen=True)
class RowFigures:
    """One number per row of a store, all rows.

    Attributes:
        psnr: float64 [row] dB; ``inf`` where lossless, NaN where not measured.
        ssim: float64 [row].
        label: int64 [row], -1 where there is none.
        steps: int64 [row].
        dead: int64 [row].
        state: uint8 [row] of RowState.
    """

    psnr: NDArray[np.float64]
    ssim: NDArray[np.float64]
    label: NDArray[np.int64]
    steps: NDArray[np.int64]
    dead: NDArray[np.int64]
    state: NDArray[np.uint8]

    @property
    def done(self) -> NDArray[np.bool_]:
        """Bool [row]: rows that hold splats."""
        return self.state == RowState.DONE

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Bool [row]: done rows whose PSNR and SSIM are numbers."""
        return self.done & ~np.isnan(self.psnr) & np.isfinite(self.ssim)


def read_rows(store: SplatStore) -> RowFigures:
    """Reads what a report counts, for all rows."""
    columns = store.read(["psnr", "ssim", "label", "steps", "dead", "state"])
    return RowFigures(
        psnr=columns["psnr"].astype(np.float64),
        ssim=columns["ssim"].astype(np.float64),
        label=columns["label"].astype(np.int64),
        steps=columns["steps"].astype(np.int64),
        dead=columns["dead"].astype(np.int64),
        state=columns["state"].astype(np.uint8),
    )


def cap_lossless(psnr: NDArray[Any]) -> NDArray[np.float64]:
    """PSNR with lossless images at ``LOSSLESS_PSNR``: what means and percentiles are taken of."""
    return np.minimum(np.asarray(psnr, np.float64), LOSSLESS_PSNR)


def psnr_of_mean_error(psnr: NDArray[Any]) -> float:
    """PSNR in dB of the mean squared error of several images of one size.

    Args:
        psnr: float [image] dB, at least one; a lossless image (``inf``) adds an error of 0.

    Returns:
        At most ``LOSSLESS_PSNR``, which stands for "every image is lossless".
    """
    error = float(np.mean(np.power(10.0, -np.asarray(psnr, np.float64) / 10.0)))
    return LOSSLESS_PSNR if error <= 0 else min(LOSSLESS_PSNR, -10.0 * math.log10(error))


def _round(value: Any) -> float:
    return round(float(value), _DECIMALS)


def quality_of(psnr: NDArray[Any], ssim: NDArray[Any]) -> QualityFigures:
    """Summarises measured images.

    Args:
        psnr: float [image] dB without NaN; ``inf`` where lossless.
        ssim: float [image], finite.
    """
    if len(psnr) == 0:
        return QualityFigures(images=0)
    values = cap_lossless(psnr)
    p1, p5, p25, median, p75, p95 = np.percentile(values, [1, 5, 25, 50, 75, 95])
    lossless = int(np.isposinf(psnr).sum())
    return QualityFigures(
        images=len(values),
        mean=_round(values.mean()),
        median=_round(median),
        of_mean_error=_round(psnr_of_mean_error(psnr)),
        minimum=_round(values.min()),
        p1=_round(p1),
        p5=_round(p5),
        p25=_round(p25),
        p75=_round(p75),
        p95=_round(p95),
        maximum=_round(values.max()),
        lossless=lossless,
        lossless_share=_round(lossless / len(values)),
        ssim_mean=_round(np.mean(ssim)),
        ssim_p1=_round(np.percentile(ssim, 1)),
        ssim_minimum=_round(np.min(ssim)),
    )


def count_images(rows: RowFigures) -> ImageCounts:
    """Images by what became of them."""
    return ImageCounts(
        total=len(rows.state),
        done=int(rows.done.sum()),
        failed=int((rows.state == RowState.FAILED).sum()),
        empty=int((rows.state == RowState.EMPTY).sum()),
        unmeasured=int((rows.done & ~rows.measured).sum()),
    )


def label_name(label: int, names: Sequence[str]) -> str:
    """What people call a class; its number where it has no name, ``"no label"`` for -1."""
    if label < 0:
        return "no label"
    return names[label] if label < len(names) else str(label)


def class_figures(rows: RowFigures, names: Sequence[str]) -> tuple[ClassFigures, ...]:
    """Quality by class, in order of label; empty where no image has a label."""
    if not (rows.label >= 0).any():
        return ()
    order = np.argsort(rows.label, kind="stable")
    labels, starts = np.unique(rows.label[order], return_index=True)
    figures: list[ClassFigures] = []
    for label, members in zip(labels, np.split(order, starts[1:]), strict=True):
        measured = members[rows.measured[members]]
        failed = int((rows.state[members] == RowState.FAILED).sum())
        done = int(rows.done[members].sum())
        if label < 0 and not done:  # an image that cannot be read has no label either: it is in the failed list
            continue
        figures.append(
            ClassFigures(
                label=int(label),
                name=label_name(int(label), names),
                done=done,
                failed=failed,
                quality=quality_of(rows.psnr[measured], rows.ssim[measured]),
            )
        )
    return tuple(figures)


def cost_figures(runs: Sequence[RunRecord], rows: RowFigures) -> CostFigures:
    """Seconds per fitted image over all runs, and steps per done image."""
    fitted = sum(run.images for run in runs)
    per_image = 1.0 / fitted if fitted else None
    return CostFigures(
        runs=len(runs),
        images_fitted=fitted,
        images_reused=sum(run.reused for run in runs),
        fit_seconds_per_image=None if per_image is None else round(sum(r.fit_seconds for r in runs) * per_image, 9),
        core_seconds_per_image=None if per_image is None else round(sum(r.core_seconds for r in runs) * per_image, 9),
        wall_seconds_per_image=None if per_image is None else round(sum(r.wall_seconds for r in runs) * per_image, 9),
        wall_seconds=_round(sum(run.wall_seconds for run in runs)) if runs else None,
        steps_mean=_round(rows.steps[rows.done].mean()) if rows.done.any() else None,
    )


def dead_figures(rows: RowFigures, gaussians: int) -> DeadFigures:
    """Gaussians without a visible contribution."""
    if not rows.done.any():
        return DeadFigures()
    dead = rows.dead[rows.done]
    return DeadFigures(mean=_round(dead.mean()), share=_round(dead.mean() / gaussians), maximum=int(dead.max()))


def size_figures(header: StoreHeader, stored: dict[str, int], done: int) -> SizeFigures:
    """Compression in numbers and in bytes.

    Args:
        header: of the store.
        stored: bytes on disk by array.
        done: rows that hold splats.
    """
    image_numbers = header.height * header.width * header.channels
    splat_numbers = header.gaussians * header.splat_layout.width
    splat_bytes = splat_numbers * np.dtype(header.dtype).itemsize
    on_disk = stored.get("splats", 0) / done if done else 0.0
    return SizeFigures(
        image_numbers=image_numbers,
        splat_numbers=splat_numbers,
        image_bytes=image_numbers,
        splat_bytes=splat_bytes,
        splat_bytes_on_disk=_round(on_disk) if on_disk else None,
        ratio_numbers=_round(image_numbers / splat_numbers),
        ratio_bytes=_round(image_numbers / splat_bytes),
        ratio_bytes_on_disk=_round(image_numbers / on_disk) if on_disk else None,
        store_bytes=sum(stored.values()) if stored else None,
        store_bytes_by_array={name: int(size) for name, size in sorted(stored.items())},
    )


def histogram_of(psnr: NDArray[Any]) -> Histogram:
    """Counts by PSNR in bins of equal width over the measured range; lossless images at ``LOSSLESS_PSNR``.

    The lossless images do not stretch the bins of the others: they get a last bin of their own, up to the cap.
    """
    if len(psnr) == 0:
        return Histogram()
    values = cap_lossless(psnr)
    below = values[values < LOSSLESS_PSNR]
    if len(below) == 0:
        return Histogram(edges=(LOSSLESS_PSNR - 1.0, LOSSLESS_PSNR), counts=(len(values),))
    low, high = math.floor(below.min()), math.ceil(below.max())
    edges = np.linspace(low, max(high, low + 1), _HISTOGRAM_BINS + 1)
    counts, edges = np.histogram(below, bins=edges)
    all_edges, all_counts = [_round(edge) for edge in edges], [int(count) for count in counts]
    if len(below) < len(values):
        all_edges.append(LOSSLESS_PSNR)
        all_counts.append(len(values) - len(below))
    return Histogram(edges=tuple(all_edges), counts=tuple(all_counts))


def list_failed_images(store: SplatStore, rows: RowFigures) -> tuple[FailedImage, ...]:
    """Every failed row with its name and reason."""
    numbers = np.flatnonzero(rows.state == RowState.FAILED)
    if len(numbers) == 0:
        return ()
    read = store.read(["source_id", "failure"], [int(number) for number in numbers])
    return tuple(
        FailedImage(row=int(row), source_id=str(name), reason=str(reason) or "no reason was recorded")
        for row, name, reason in zip(numbers, read["source_id"], read["failure"], strict=True)
    )
