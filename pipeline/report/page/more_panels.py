"""The panels of the page beyond the first ones: as many as its bytes allow, with splats for the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.printable import printable
from data_schemas.stores.contract import SplatStore
from pipeline.format import MISSING, format_psnr
from pipeline.report.figures import PanelGroup
from pipeline.report.page.data import base64_text, canvas_facts, png_address, splat_table
from pipeline.report.panels import Panel, picture, png_bytes, read_panels
from pipeline.report.predictability_record import Decoder
from pipeline.report.statistics import RowFigures

MOST_PANELS = 240
"""Of a page, beyond the worst, the median and the best."""

_CLASS_PANELS = 120
_MOST_EACH_CLASS = 8
_ACROSS = 24
_LARGEST_PICTURE = 128
_ROWS_AT_ONCE = 16
_MARGIN = 400  # bytes of a panel's words and keys


@dataclass(frozen=True)
class PagePanels:
    """What the script of the page shows.

    Attributes:
        canvas: what all splats have in common.
        splats: of the first panels, by row: base64.
        more: panels that are made when they are scrolled to.
        left_out: panels that did not fit into the bytes.
    """

    canvas: dict[str, Any]
    splats: dict[int, str]
    more: list[dict[str, Any]]
    left_out: int


def choose_more(rows: RowFigures, taken: Sequence[int]) -> list[tuple[PanelGroup, int]]:
    """Rows beyond those taken: worst of every class, next worst of all, and some evenly across the range of PSNR.

    Args:
        rows: all rows of a store.
        taken: rows that the page shows anyway.

    Returns:
        (group, row), no row twice, at most ``MOST_PANELS``; classes from the one of lowest PSNR on.
    """
    measured = np.flatnonzero(rows.measured)
    order = measured[np.lexsort((measured, rows.ssim[measured], rows.psnr[measured]))]
    free = order[~np.isin(order, np.array(taken, np.int64))]
    of_classes = _worst_of_classes(rows, free)
    free = free[~np.isin(free, of_classes)]
    spread = np.linspace(0, len(free) - 1, min(_ACROSS, len(free))).astype(np.int64)
    across = free[np.unique(spread)]
    worst = free[~np.isin(free, across)][: MOST_PANELS - len(of_classes) - len(across)]
    parts: list[tuple[PanelGroup, NDArray[np.int64]]] = [
        ("worst of its class", of_classes),
        ("next worst", worst),
        ("across the range", across),
    ]
    return [(group, int(row)) for group, part in parts for row in part]


def _worst_of_classes(rows: RowFigures, free: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first rows of every class, class by class; ``free`` is in the order of quality, and so are the classes."""
    labelled = free[rows.label[free] >= 0]
    if len(labelled) == 0:
        return labelled
    _, first, inverse = np.unique(rows.label[labelled], return_index=True, return_inverse=True)
    each = int(np.clip(_CLASS_PANELS // len(first), 1, _MOST_EACH_CLASS))
    by_class = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(inverse))])
    members = [by_class[start : start + each] for start in starts[:-1]]
    members = [part[: stop - start] for part, start, stop in zip(members, starts[:-1], starts[1:], strict=True)]
    by_worst = [members[place] for place in np.argsort(first, kind="stable")]
    return labelled[np.concatenate(by_worst)[:_CLASS_PANELS]]


def make_page_panels(
    store: SplatStore,
    rows: RowFigures,
    names: Sequence[str],
    first: Sequence[Panel],
    *,
    decoder: Decoder,
    most_bytes: int,
) -> PagePanels:
    """Reads more panels until the bytes are used up.

    Args:
        store: any store.
        rows: its rows.
        names: of its classes.
        first: panels that the page shows in any case; their splats come first.
        decoder: decodes splats.
        most_bytes: of images and splats together, those of the first ones included.
    """
    header = store.header
    canvas = canvas_facts(
        header.codec, header.splat_layout, gaussians=header.gaussians, height=header.height, width=header.width
    )
    canvas |= {"steps": 1, "dtype": "float16" if header.dtype == "float16" else "float32"}
    room = most_bytes
    splats: dict[int, str] = {}
    for panel in first:
        text = splat_text(panel, store)
        if len(text) > room:
            break
        splats[panel.image.row] = text
        room -= len(text)
    if not first:  # none asked for, or none that can be decoded
        return PagePanels(canvas, splats, [], 0)
    chosen = choose_more(rows, [panel.image.row for panel in first])
    more: list[dict[str, Any]] = []
    # What cannot fit is not decoded: splats alone say how many can at most.
    possible = room // (len(splat_text(first[0], store)) + _MARGIN)
    for start in range(0, min(possible, len(chosen)), _ROWS_AT_ONCE):
        portion = chosen[start : min(start + _ROWS_AT_ONCE, possible)]
        for panel in read_panels(store, rows, names, portion, decoder)[0]:
            entry = panel_entry(panel, store)
            size = _MARGIN + sum(len(value) for value in entry.values() if isinstance(value, str))
            if size > room:
                return PagePanels(canvas, splats, more, len(chosen) - len(more))
            room -= size
            more.append(entry)
    return PagePanels(canvas, splats, more, len(chosen) - len(more))


def splat_text(panel: Panel, store: SplatStore) -> str:
    """The splats of a panel as the canvas reads them: base64 of little-endian numbers of the store's own type."""
    kind = "<f2" if store.header.dtype == "float16" else "<f4"
    return base64_text(np.ascontiguousarray(splat_table(panel.splats, store.header.splat_layout), kind).tobytes())


def panel_entry(panel: Panel, store: SplatStore) -> dict[str, Any]:
    """One panel for the script. Texts from the data are text there, too."""
    image = panel.image
    pictures = {"source": panel.source, "decoded": panel.decoded}
    return {
        "group": image.group,
        "row": image.row,
        "name": printable(image.source_id),
        "label": printable(image.label_name),
        "psnr": format_psnr(None if image.lossless else image.psnr),
        "ssim": MISSING if image.ssim is None else f"{image.ssim:.4f}",
        "splats": splat_text(panel, store),
        **{
            kind: png_address(png_bytes(picture(pixels), largest=_LARGEST_PICTURE))
            for kind, pixels in pictures.items()
            if pixels is not None
        },
    }
