"""What the scripts of a page read: splats, images and rows as compact text within the bytes that a page may have."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from data_schemas.printable import printable
from data_schemas.records import RowState
from data_schemas.splats import NORMALISED, NORMALISED_EPSILON, OVER, Layout
from data_schemas.stores.contract import SplatStore
from pipeline.report.statistics import RowFigures

ROW_BYTES = 1_900_000
"""Of the list of rows within the page; beyond it the rows of highest PSNR are left out."""

CLASS_NAME_BYTES = 100_000
"""Of the names of classes that the list spells; the others are called by their number."""

FAILED, UNMEASURED, FIRST_MEASURED, LOSSLESS, EMPTY = 0, 1, 8, 0xFFFFFF, 0x1000000
"""Codes of the column of PSNR; one that was measured is ``FIRST_MEASURED`` and its PSNR in hundredths of a dB."""

_PACKED_FROM = 20_000  # bytes: less is written plainly, for browsers that cannot decompress


def base64_text(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode("ascii")


def png_address(png: bytes) -> str:
    """An image as an address that needs no file."""
    return "data:image/png;base64," + base64_text(png)


def page_script(*names: tuple[str, str]) -> tuple[Markup, str]:
    """The scripts of a page as one, and the source by which a content security policy allows it and no other.

    Args:
        names: (package, file) of each, in order.
    """
    text = "\n".join(files(package).joinpath(name).read_text(encoding="utf-8") for package, name in names)
    digest = base64_text(hashlib.sha256(text.encode()).digest())
    return Markup(text), f"'sha256-{digest}'"


def splat_table(splats: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Splats as the canvas reads them: sigma_x, sigma_y, rho, x, y, opacity, colours.

    Args:
        splats: float [..., gaussian, parameter].
        layout: names the parameters.

    Returns:
        the same numbers, [..., gaussian, 6 + channels]; an opacity of 1 where the layout has none.
    """
    columns = [splats[..., layout.index(name)] for name in ("sigma_x", "sigma_y", "rho", "x", "y")]
    opacity = splats[..., layout.index("alpha")] if layout.has_alpha else np.ones(splats.shape[:-1], splats.dtype)
    return np.stack([*columns, opacity, *np.moveaxis(splats[..., layout.colour_slice], -1, 0)], axis=-1)


def canvas_facts(codec: str | None, layout: Layout, *, gaussians: int, height: int, width: int) -> dict[str, Any]:
    """What the canvas is told of the splats, whichever they are."""
    return {
        "gaussians": gaussians,
        "channels": layout.channels,
        "width": width,
        "height": height,
        "mode": {NORMALISED: "normalised", OVER: "over"}.get(codec or "", "additive"),
        "floor": NORMALISED_EPSILON,
    }


def pack(data: bytes) -> dict[str, str]:
    """Bytes as the script unpacks them: compressed with gzip, or as they are where they are few."""
    if len(data) < _PACKED_FROM:
        return {"form": "plain", "data": base64_text(data)}
    return {"form": "gzip", "data": base64_text(gzip.compress(data, 6, mtime=0))}


def pack_rows(
    store: SplatStore, rows: RowFigures, class_names: Sequence[str], *, most_bytes: int = ROW_BYTES
) -> dict[str, Any]:
    """Row, name, class and PSNR of as many images as fit, the worst first to be kept.

    Args:
        store: gives the names.
        rows: its rows.
        class_names: by label.
        most_bytes: of the packed list.

    Returns:
        ``total`` and ``kept`` rows; ``names``, one a line, and ``columns``, uint32 [3, row] (row as the difference
        from the one before, code of the PSNR, label + 1) in byte planes, both packed; ``classes``, names by label.
    """
    names = _lines(store.read(["source_id"])["source_id"])
    codes = psnr_codes(rows)
    kept = np.arange(len(codes))
    packed = _packed_rows(names, codes, rows.label, kept)
    while len(kept) and (size := sum(len(part["data"]) for part in packed.values())) > most_bytes:
        fewer = int(len(kept) * min(0.95, 0.97 * most_bytes / size))
        # From the worst on; equal ones in order, so that the same store always keeps the same rows.
        kept = np.sort(np.argsort(codes, kind="stable")[:fewer])
        packed = _packed_rows(names, codes, rows.label, kept)
    spelled: list[str] = []
    room = CLASS_NAME_BYTES
    for name in class_names:
        room -= len(name) + 3
        if room < 0:
            break
        spelled.append(printable(name))
    return {"total": len(codes), "kept": len(kept), **packed, "classes": spelled}


def psnr_codes(rows: RowFigures) -> NDArray[np.uint32]:
    """The column of PSNR: uint32 [row], in the order of quality; see ``FAILED`` and its neighbours."""
    codes = np.full(len(rows.psnr), UNMEASURED, np.uint32)
    measured = rows.measured & np.isfinite(rows.psnr)
    codes[measured] = FIRST_MEASURED + np.rint(100 * np.maximum(rows.psnr[measured], 0)).astype(np.uint32)
    codes[rows.measured & np.isposinf(rows.psnr)] = LOSSLESS
    codes[rows.state == RowState.FAILED] = FAILED
    codes[rows.state == RowState.EMPTY] = EMPTY
    return codes


def _lines(names: NDArray[Any]) -> list[str]:
    """Names without ends of lines or anything else that steers; looked at all at once, since few have any."""
    found = [str(name) for name in names]
    text = "\n".join(found)
    if printable(text, keep="\n") == text and text.count("\n") == max(0, len(found) - 1):
        return found
    return [printable(name) for name in found]


def _packed_rows(
    names: list[str], codes: NDArray[np.uint32], labels: NDArray[np.int64], kept: NDArray[np.int64]
) -> dict[str, dict[str, str]]:
    columns = np.stack([np.diff(kept, prepend=-1), codes[kept], np.maximum(labels[kept], -1) + 1]).astype("<u4")
    planes = np.ascontiguousarray(columns.view(np.uint8).reshape(3, len(kept), 4).transpose(0, 2, 1))
    chosen = names if len(kept) == len(names) else [names[row] for row in kept]
    return {"names": pack("\n".join(chosen).encode()), "columns": pack(planes.tobytes())}
