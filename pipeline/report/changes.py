"""What changed since another report: every figure, and every image by the hash of its pixels.

Images of an earlier report are known by ``images.npz`` beside it: PSNR and content hash by row.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from upath import UPath

from data_schemas.errors import ReportError, SplatSpaceError
from data_schemas.locations import Location, location
from data_schemas.objects import read_object
from data_schemas.records import StoreHeader
from data_schemas.stores.contract import SplatStore
from pipeline.documents import report_folder
from pipeline.report.changes_record import HEADLINE, Changes, FigureChange, ImageChange
from pipeline.report.figures import Report
from pipeline.report.files import JSON_FILE, read_report
from pipeline.report.statistics import RowFigures, cap_lossless

IMAGES_FILE = "images.npz"

TIE_DB = 0.01
"""Images whose PSNR differs by less are neither better nor worse."""

WORST_LISTED = 20

_VERSION = re.compile(r"(?P<name>.+)\.v(?P<number>\d+)")

_QUALITY = (
    ("of_mean_error", HEADLINE), ("mean", "PSNR mean"), ("median", "PSNR median"),
    ("minimum", "PSNR minimum"), ("p1", "PSNR p1"), ("p5", "PSNR p5"), ("p25", "PSNR p25"), ("p75", "PSNR p75"),
    ("p95", "PSNR p95"), ("maximum", "PSNR maximum"),
)  # fmt: skip


@dataclass(frozen=True)
class ImageFigures:
    """What is known of the images of a report.

    Attributes:
        psnr: float32 [image] dB; ``inf`` where lossless, NaN where not measured.
        key: uint8 [image, 16], the content hash; zeros where the image was never read.
    """

    psnr: NDArray[np.float32]
    key: NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """The file: an .npz of the two arrays, the same bytes for the same numbers."""
        buffer = io.BytesIO()
        np.savez(buffer, psnr=self.psnr, key=self.key)
        return buffer.getvalue()


@dataclass(frozen=True)
class Earlier:
    """Another report.

    Attributes:
        report: its figures.
        images: its images; None where ``images.npz`` is missing or no such file.
        folder: where it is.
    """

    report: Report
    images: ImageFigures | None
    folder: Location


def image_figures(store: SplatStore, rows: RowFigures) -> ImageFigures:
    """What ``images.npz`` holds of a store."""
    psnr = np.where(rows.measured, rows.psnr, np.nan).astype("<f4")
    return ImageFigures(psnr, store.read(["content_hash"])["content_hash"].astype(np.uint8))


def read_images(folder: Location) -> ImageFigures | None:
    """The images of the report in a folder; None where the file is missing or anything else."""
    path = folder / IMAGES_FILE
    try:
        data = path.read_bytes() if isinstance(path, Path) else read_object(path)
        if data is None:
            return None
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            psnr, key = np.asarray(arrays["psnr"], np.float32), np.asarray(arrays["key"], np.uint8)
    except (OSError, ValueError, KeyError, EOFError, SplatSpaceError, BadZipFile):
        return None
    return ImageFigures(psnr, key) if psnr.ndim == 1 and key.shape == (len(psnr), 16) else None


def find_report(given: str | os.PathLike[str] | UPath) -> Earlier:
    """The report that somebody names: its folder, its ``report.json``, or the store that it is of.

    Raises:
        ReportError: there is none, it cannot be read, or it is of a newer version.
    """
    place = location(given)
    if place.name == JSON_FILE:
        folder = place.parent
    elif (place / JSON_FILE).exists() or not place.suffix:
        folder = place
    else:
        folder = report_folder(place)
        if not (folder / JSON_FILE).exists():
            raise ReportError(
                f"{place} has no report beside it ({folder / JSON_FILE} does not exist)",
                allowed="the folder of a report, its report.json, or a store with a report beside it",
                next_step=f"run `splatspace report {place}` first, or name the folder that --out made",
            )
    return Earlier(read_report(folder / JSON_FILE), read_images(folder), folder)


def version_before(store: Location) -> Location | None:
    """NAME.v2.zarr of NAME.v3.zarr, NAME.zarr of NAME.v2.zarr; None of a first version."""
    match = _VERSION.fullmatch(store.stem)
    if match is None or int(match["number"]) < 2:
        return None
    number = int(match["number"]) - 1
    return store.with_name(match["name"] + (f".v{number}" if number > 1 else "") + store.suffix)


def difference_of_sets(header: StoreHeader, now: ImageFigures, earlier: Earlier) -> str:
    """Why a store and a report are not of the same set; "" where they are.

    They are where the images have the same size and either the source has the same name and split, or some image is
    in both.
    """
    other, before = earlier.report, earlier.images
    shapes = [(one.height, one.width, one.channels) for one in (header, other.store)]
    if shapes[0] != shapes[1]:
        first, second = ("x".join(map(str, shape)) for shape in shapes)
        return f"images of {second} against {first} (height, width, channels)"
    names = [f"{one.source.name}, split {one.source.split}" for one in (header, other)]
    if names[0] == names[1]:
        return ""
    if before is not None and len(np.intersect1d(_unique(now)[0], _unique(before)[0])):
        return ""
    return f"{names[1]} against {names[0]}, and no image is in both"


def changes_since(report: Report, now: ImageFigures, earlier: Earlier, store: SplatStore, *, is_asked: bool) -> Changes:
    """Compares a report with another one of the same set.

    Args:
        report: as it is now.
        now: its images.
        earlier: the other.
        store: of ``report``: gives the names of images.
        is_asked: whether somebody named the other report.
    """
    other = earlier.report
    images: dict[str, Any] = {"images_reason": f"the other report has no {IMAGES_FILE}"}
    if earlier.images is not None:
        images = _image_changes(now, earlier.images, store)
    return Changes(
        against=other.store.name,
        against_created=other.created,
        is_asked=is_asked,
        figures=tuple(_figures(report, other)),
        classes=_classes(report, other),
        **images,
    )


def _figures(report: Report, other: Report) -> list[FigureChange]:
    pairs: list[tuple[str, str, float | None, float | None]] = [
        (words, "dB", getattr(other.quality, name), getattr(report.quality, name)) for name, words in _QUALITY
    ]
    pairs += [
        ("SSIM mean", "", other.quality.ssim_mean, report.quality.ssim_mean),
        ("SSIM p1", "", other.quality.ssim_p1, report.quality.ssim_p1),
        ("SSIM minimum", "", other.quality.ssim_minimum, report.quality.ssim_minimum),
        ("Lossless images", "", other.quality.lossless, report.quality.lossless),
        (
            "Predictability R\u00b2",
            "",
            None if other.predictability is None else other.predictability.r2,
            None if report.predictability is None else report.predictability.r2,
        ),
        ("Dead Gaussians per image", "", other.dead.mean, report.dead.mean),
        (
            "Seconds of CPU time per image",
            "",
            other.cost.core_seconds_per_image,
            report.cost.core_seconds_per_image,
        ),
        ("Splat bytes per image on disk", "", other.size.splat_bytes_on_disk, report.size.splat_bytes_on_disk),
        ("Images done", "", other.images.done, report.images.done),
        ("Images failed", "", other.images.failed, report.images.failed),
    ]
    return [
        _change(name, unit, before, now) for name, unit, before, now in pairs if before is not None and now is not None
    ]


def _change(name: str, unit: str, before: float, now: float) -> FigureChange:
    return FigureChange(name=name, unit=unit, before=before, now=now, difference=round(now - before, 6))


def _classes(report: Report, other: Report) -> tuple[FigureChange, ...]:
    before = {one.name: one.quality.of_mean_error for one in other.classes}
    changes = [
        _change(one.name, "dB", then, one.quality.of_mean_error)
        for one in report.classes
        if one.quality.of_mean_error is not None and (then := before.get(one.name)) is not None
    ]
    return tuple(sorted(changes, key=lambda change: change.difference))


def _keys(images: ImageFigures) -> NDArray[np.uint64]:
    """Half of each hash: 64 bits tell a million images apart but for one time in 10 million; 0 is no key."""
    return np.ascontiguousarray(images.key).view("<u8").reshape(-1, 2)[:, 0]


def _image_changes(now: ImageFigures, before: ImageFigures, store: SplatStore) -> dict[str, Any]:
    first, second = _unique(before), _unique(now)
    _, in_before, in_now = np.intersect1d(first[0], second[0], return_indices=True)
    then, today = before.psnr[first[1][in_before]], now.psnr[second[1][in_now]]
    rows = second[1][in_now]
    difference = cap_lossless(today) - cap_lossless(then)
    worst = np.lexsort((rows, difference))[:WORST_LISTED]
    worst = worst[difference[worst] <= -TIE_DB]
    chosen = [int(row) for row in rows[worst]]
    names = store.read(["source_id"], chosen)["source_id"] if chosen else []
    return {
        "matched": len(rows),
        "added": len(second[0]) - len(rows),
        "removed": len(first[0]) - len(rows),
        "better": int((difference >= TIE_DB).sum()),
        "worse": int((difference <= -TIE_DB).sum()),
        "worst": tuple(
            ImageChange(
                row=row,
                source_id=str(name),
                before=round(float(cap_lossless(then[index])), 6),
                now=round(float(cap_lossless(today[index])), 6),
                difference=round(float(difference[index]), 6),
            )
            for row, name, index in zip(chosen, names, worst, strict=True)
        ),
    }


def _unique(images: ImageFigures) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Keys of the measured images, each once, and the first row of each."""
    rows = np.flatnonzero(~np.isnan(images.psnr))
    keys = _keys(images)[rows]
    unique, first = np.unique(keys, return_index=True)
    kept = unique != 0
    return unique[kept], rows[first[kept]]
