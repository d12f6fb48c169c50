"""``panel.png``: one small picture of the panels, for places that show an image but no page."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pipeline.report.figures import PanelGroup
from pipeline.report.panels import Panel, encode_png, error_factor, picture

MAXIMUM_BYTES = 200_000
"""``panel.png`` is smaller than this."""

_GROUPS: tuple[PanelGroup, ...] = ("worst", "median", "best")
_PAPER, _INK, _FAINT = (255, 255, 255), (28, 32, 40), (104, 112, 124)
_MARGIN, _GAP, _TILE = 14, 4, 96


def contact_sheet(panels: Sequence[Panel], *, each: int = 4, tile: int = _TILE) -> Image.Image:
    """Worst, median and best images in rows of triples source, decoded, error (decoded alone without a source).

    Args:
        panels: at least one.
        each: images of each group.
        tile: longer side of one picture in pixels.
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
    line = size[1] + 44
    canvas = Image.new(
        "RGB",
        (max(2 * _MARGIN + columns * (cell + 3 * _GAP) - 3 * _GAP, 330), 2 * _MARGIN + 24 + len(groups) * line),
        _PAPER,
    )
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    caption = f"source, decoded, error x{factor}" if pictures == 3 else "decoded"
    draw.text((_MARGIN, _MARGIN - 4), caption, _FAINT, font=small)
    for index, (group, chosen) in enumerate(groups):
        top = _MARGIN + 18 + index * line
        draw.text((_MARGIN, top), group, _INK, font=font)
        for column, panel in enumerate(chosen):
            left = _MARGIN + column * (cell + 3 * _GAP)
            for place, image in enumerate(_pictures(panel, factor)):
                scaled = image.resize(size, _resampling(image, size))
                canvas.paste(scaled, (left + place * (size[0] + _GAP), top + 20))
            decibel = "lossless" if panel.image.lossless else f"{panel.image.psnr:.1f} dB"
            draw.text((left, top + 22 + size[1]), decibel, _FAINT, font=small)
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
