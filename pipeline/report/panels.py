"""Panels of the worst, the median and the best images: source, decoded, error, splats; and ``panel.png``, one sheet."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data_schemas.errors import StoreCorruptError, StoreMismatchError
from data_schemas.stores.contract import SplatStore
from encoders.decode import to_uint8
from pipeline.finite_splats import require_finite
from pipeline.format import format_psnr
from pipeline.report.ellipses import draw_ellipses
from pipeline.report.figures import LOSSLESS_PSNR, PanelGroup, PanelImage
from pipeline.report.predictability_record import Decoder
from pipeline.report.statistics import RowFigures, label_name

ERROR_FACTORS = (1, 2, 5, 10, 20, 50, 100)
"""By how much an error may be amplified: one factor for all panels of a report, written beside them."""

NO_SOURCE = "the store holds no source images, so the panels show the decoded image and the splats only"

_ELLIPSES_PX = 168
LARGEST_PICTURE = 256
"""Longer side of an image within a page, in pixels."""

logger = logging.getLogger("splatspace.report")


@dataclass(frozen=True)
class Panel:
    """One image in images.

    Attributes:
        image: which, and how good.
        source: uint8 [y, x, channel]; None for a store without source images.
        decoded: uint8 [y, x, channel].
        splats: float [gaussian, parameter].
    """

    image: PanelImage
    source: NDArray[np.uint8] | None
    decoded: NDArray[np.uint8]
    splats: NDArray[Any]

    @property
    def error(self) -> NDArray[np.uint8] | None:
        """uint8 [y, x, channel]: absolute difference of decoded and source."""
        if self.source is None:
            return None
        return np.abs(self.decoded.astype(np.int16) - self.source).astype(np.uint8)


def choose_rows(rows: RowFigures, each: int) -> list[tuple[PanelGroup, int]]:
    """Rows of the worst, median and best measured images; no row twice, ties by SSIM, then by row number.

    Args:
        rows: all rows of a store.
        each: images of each group, where the store has three times as many.

    Returns:
        (group, row), the worst first; among the best, the best last.
    """
    measured = np.flatnonzero(rows.measured)
    order = measured[np.lexsort((measured, rows.ssim[measured], rows.psnr[measured]))]
    if len(order) == 0 or each < 1:
        return []
    if len(order) < 3:
        groups: tuple[PanelGroup, ...] = ("median",) if len(order) == 1 else ("worst", "best")
        return [(group, int(row)) for group, row in zip(groups, order, strict=True)]
    each = min(each, len(order) // 3)
    first = (len(order) - each) // 2
    middle = order[first : first + each]
    parts: list[tuple[PanelGroup, NDArray[Any]]] = [
        ("worst", order[:each]),
        ("median", middle),
        ("best", order[-each:]),
    ]
    return [(group, int(row)) for group, part in parts for row in part]


def make_panels(
    store: SplatStore, rows: RowFigures, names: Sequence[str], *, each: int, decoder: Decoder
) -> tuple[list[Panel], str]:
    """Reads and decodes the images of the panels.

    Args:
        store: any store.
        rows: its rows.
        names: of its classes.
        each: images of each group.
        decoder: decodes splats.

    Returns:
        The panels, and why there are none or why they show no source ("" where nothing is missing).
    """
    chosen = choose_rows(rows, each)
    if not chosen:
        return [], "no panels were asked for" if each < 1 else "no image of the store is done and measured"
    return read_panels(store, rows, names, chosen, decoder)


def read_panels(
    store: SplatStore,
    rows: RowFigures,
    names: Sequence[str],
    chosen: Sequence[tuple[PanelGroup, int]],
    decoder: Decoder,
) -> tuple[list[Panel], str]:
    """Reads and decodes the images of chosen rows, all of them done and measured.

    Args:
        store: any store.
        rows: its rows.
        names: of its classes.
        chosen: (group, row), at least one.
        decoder: decodes splats.

    Returns:
        As ``make_panels``.
    """
    header = store.header
    has_source = "image" in store.arrays
    wanted = ["splats", "source_id", *(["image"] if has_source else [])]
    read = store.read(wanted, [row for _, row in chosen])
    try:
        require_finite(read["splats"], [row for _, row in chosen], store)
        decoded = to_uint8(
            decoder(
                read["splats"],
                layout=header.splat_layout,
                codec=header.codec,
                height=header.height,
                width=header.width,
            )
        )
    except (StoreMismatchError, StoreCorruptError) as error:
        logger.warning("No panels: %s", error)
        return [], str(error)
    panels: list[Panel] = []
    for index, (group, row) in enumerate(chosen):
        psnr, label = float(rows.psnr[row]), int(rows.label[row])
        panels.append(
            Panel(
                image=PanelImage(
                    group=group,
                    row=row,
                    source_id=str(read["source_id"][index]),
                    label=label,
                    label_name=label_name(label, names),
                    psnr=round(min(psnr, LOSSLESS_PSNR), 6),
                    lossless=bool(np.isposinf(psnr)),
                    ssim=round(float(rows.ssim[row]), 6),
                ),
                source=read["image"][index] if has_source else None,
                decoded=decoded[index],
                splats=read["splats"][index],
            )
        )
    return panels, "" if has_source else NO_SOURCE


def error_factor(panels: Sequence[Panel]) -> int:
    """The greatest of ``ERROR_FACTORS`` that keeps 99.5 % of the amplified errors of the panels within 8 bits."""
    errors = [panel.error for panel in panels if panel.error is not None]
    if not errors:
        return 1
    high = max(1.0, float(np.percentile(np.stack(errors), 99.5)))
    return max(factor for factor in ERROR_FACTORS if factor == 1 or factor * high <= 255)


def picture(pixels: NDArray[np.uint8], factor: int = 1) -> Image.Image:
    """Pixels as an RGB image.

    Args:
        pixels: uint8 [y, x, channel] of 1 or 3 channels.
        factor: multiplies the values, which are then clipped to 255.
    """
    values = np.minimum(pixels.astype(np.int32) * factor, 255).astype(np.uint8)
    return Image.fromarray(np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values)


def splat_picture(panel: Panel, store: SplatStore, size_px: int = _ELLIPSES_PX) -> Image.Image:
    """The splats of a panel as ellipses."""
    header = store.header
    return draw_ellipses(panel.splats, header.splat_layout, header.height, header.width, size_px)


def png_bytes(image: Image.Image, *, colours: int | None = None, largest: int = LARGEST_PICTURE) -> bytes:
    """A PNG file.

    Args:
        image: any image; one with a longer side is reduced to ``largest``.
        colours: reduce to a palette of so many colours; None keeps every value.
        largest: longer side in pixels.
    """
    longest = max(image.size)
    if longest > largest:
        size = (max(1, image.width * largest // longest), max(1, image.height * largest // longest))
        image = image.resize(size, Image.Resampling.BOX)
    return encode_png(image, colours=colours)


def encode_png(image: Image.Image, *, colours: int | None = None) -> bytes:
    """A PNG file of the image as large as it is; with ``colours``, reduced to a palette."""
    if colours is not None:
        image = image.quantize(colours, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


MAXIMUM_BYTES = 200_000
"""``panel.png`` is smaller than this."""

_GROUPS: tuple[PanelGroup, ...] = ("worst", "median", "best")
# A dark card with light words: it dazzles on no dark page, as Prefect's is, and is as legible on a white one.
_PAPER, _INK, _FAINT = (24, 27, 34), (240, 242, 246), (196, 202, 212)
_MARGIN, _GAP, _TILE = 14, 4, 96
# Pages show the sheet at some two thirds of its width.
_LARGE, _SMALL = 20, 18


def contact_sheet(panels: Sequence[Panel], *, each: int = 4, tile: int = _TILE) -> Image.Image:
    """Worst, median and best images in rows of triples source, decoded, error (decoded alone without a source).

    Args:
        panels: at least one.
        each: images of each group.
        tile: longer side of one image in pixels.
    """
    groups = [(group, [panel for panel in panels if panel.image.group == group]) for group in _GROUPS]
    # The best stand last in their group, and come first on the sheet.
    groups = [(group, (chosen[::-1] if group == "best" else chosen)[:each]) for group, chosen in groups if chosen]
    factor = error_factor(panels)
    height, width = panels[0].decoded.shape[:2]
    size = (max(1, tile * width // max(width, height)), max(1, tile * height // max(width, height)))
    pictures = 1 if panels[0].source is None else 3
    cell = pictures * (size[0] + _GAP) - _GAP
    columns = max(len(chosen) for _, chosen in groups)
    line = size[1] + 60
    canvas = Image.new(
        "RGB",
        (max(2 * _MARGIN + columns * (cell + 3 * _GAP) - 3 * _GAP, 330), 2 * _MARGIN + 30 + len(groups) * line),
        _PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(_LARGE), ImageFont.load_default(_SMALL)
    caption = f"source, decoded, error x{factor}" if pictures == 3 else "decoded"
    draw.text((_MARGIN, _MARGIN - 4), caption, _FAINT, font=small)
    for index, (group, chosen) in enumerate(groups):
        top = _MARGIN + 26 + index * line
        draw.text((_MARGIN, top), group, _INK, font=font)
        for column, panel in enumerate(chosen):
            left = _MARGIN + column * (cell + 3 * _GAP)
            for place, image in enumerate(_pictures(panel, factor)):
                scaled = image.resize(size, _resampling(image, size))
                canvas.paste(scaled, (left + place * (size[0] + _GAP), top + 26))
            decibel = format_psnr(None if panel.image.lossless else panel.image.psnr, decimals=1)
            draw.text((left, top + 28 + size[1]), decibel, _FAINT, font=small)
    return canvas


def sheet_bytes(panels: Sequence[Panel]) -> bytes:
    """``panel.png`` of less than ``MAXIMUM_BYTES``: fewer colours and smaller tiles until it is.

    Args:
        panels: at least one.
    """
    for tile, colours in ((_TILE, None), (_TILE, 256), (_TILE, 64), (64, 64), (40, 32)):
        data = encode_png(contact_sheet(panels, tile=tile), colours=colours)
        if len(data) < MAXIMUM_BYTES:
            return data
    return encode_png(contact_sheet(panels, each=1, tile=32), colours=16)


def _pictures(panel: Panel, factor: int) -> list[Image.Image]:
    if panel.source is None or panel.error is None:
        return [picture(panel.decoded)]
    return [picture(panel.source), picture(panel.decoded), picture(panel.error, factor)]


def _resampling(image: Image.Image, size: tuple[int, int]) -> Image.Resampling:
    return Image.Resampling.NEAREST if image.width <= size[0] else Image.Resampling.BOX
