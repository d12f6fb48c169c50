"""One image's splats as a flat scene for 3D viewers: ``.ply`` (and back) and ``.splat`` (8 bits, not back).

The image lies in the plane z = 0, half its height is 1, x to the right and y down, as in cameras; the third scale is
flat. Viewers lay Gaussians over each other, the nearest in front. For ``over/1`` that is the codec: z grows by
``DEPTH_STEP`` from Gaussian to Gaussian. A Gaussian of a sum becomes its purest colour at an opacity of its
brightness: alone it looks the same, but where several meet the sum is brighter than what viewers show. A weighted mean
(``normalised/1``) looks different everywhere. Colours outside of [0, 1] are cut. The header says so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import SourceError
from data_schemas.splats import ADDITIVE, CODECS, OVER, CodecName, Layout, layout_named
from pipeline.sources.base import MAX_IMAGE_PIXELS

DEPTH_STEP = 1e-4
FLAT_SCALE = 1e-5
"""Third scale."""

_DEGREE_ZERO = 0.28209479177387814
"""Spherical harmonic of degree 0: viewers show 0.5 + this times f_dc."""

_LARGEST_OPACITY = 0.9999
_FORMAT = "binary_little_endian 1.0"
_CODEC_NAMED: dict[str, CodecName] = {name: name for name in CODECS}
_FIELDS = (
    "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class FlatScene:
    """Splats as they were read from a ``.ply``.

    Attributes:
        splats: float32 [gaussian, parameter].
        layout: its columns.
        codec: renders them.
        height: rows of the image.
        width: columns of the image.
    """

    splats: NDArray[np.float32]
    layout: Layout
    codec: CodecName
    height: int
    width: int


def ply_of(splats: NDArray[Any], *, layout: Layout, codec: CodecName, height: int, width: int) -> tuple[bytes, int]:
    """Writes one image for viewers of 3D Gaussians.

    Args:
        splats: [gaussian, parameter].
        layout: its columns.
        codec: of the splats; viewers show ``over/1`` as it is, sums darker where Gaussians meet.
        height: rows of the image.
        width: columns of the image.

    Returns:
        A binary little-endian PLY, and how many Gaussians have a colour outside [0, 1] that was cut.
    """
    points, scales, rotation, colours, opacity, cut = _scene(splats, layout, codec, height, width)
    zeros = np.zeros((len(splats), 3))
    logit = np.log(opacity / (1 - opacity))[:, None]
    harmonics = (colours - 0.5) / _DEGREE_ZERO
    table = np.concatenate([points, zeros, harmonics, logit, np.log(scales), rotation], axis=1).astype("<f4")
    shown = "as viewers compose" if codec == OVER else "viewers lay over each other what this codec sums or averages"
    header = [
        "ply",
        f"format {_FORMAT}",
        f"comment splatspace codec {codec}",
        f"comment splatspace layout {layout.name}",
        f"comment splatspace size {height} {width}",
        f"comment splatspace difference {shown}; {cut} colours outside of [0, 1] cut",
        f"element vertex {len(splats)}",
        *(f"property float {name}" for name in _FIELDS),
        "end_header",
        "",
    ]
    return "\n".join(header).encode("ascii") + table.tobytes(), cut


def splat_of(splats: NDArray[Any], *, layout: Layout, codec: CodecName, height: int, width: int) -> tuple[bytes, int]:
    """Writes one image as ``.splat``: 32 bytes a Gaussian, colours, opacity and rotation in 8 bits; no header.

    Args:
        splats: as for :func:`ply_of`.
        layout: the same.
        codec: the same.
        height: the same.
        width: the same.

    Returns:
        The file, and how many Gaussians have a colour outside [0, 1] that was cut.
    """
    points, scales, rotation, colours, opacity, cut = _scene(splats, layout, codec, height, width)
    rows = []
    for index in range(len(splats)):
        colour = np.round(np.append(colours[index], opacity[index]) * 255).astype(np.uint8)
        turned = np.clip(np.round(rotation[index] * 128 + 128), 0, 255).astype(np.uint8)
        rows.append(struct.pack("<6f", *points[index], *scales[index]) + colour.tobytes() + turned.tobytes())
    return b"".join(rows), cut


def read_ply(data: bytes) -> FlatScene:
    """Reads what :func:`ply_of` wrote.

    Raises:
        SourceError: another kind of PLY (a scene of another program is no flat image), one that is cut short or stored
            otherwise, or numbers that are no Gaussians.
    """
    end = data.find(b"end_header\n")
    lines = data[:end].decode("ascii", errors="replace").splitlines() if end > 0 else []
    words = [line.split() for line in lines]
    facts = {line[2]: line[3:] for line in words if line[:2] == ["comment", "splatspace"] and len(line) > 2}
    try:
        layout = layout_named(facts["layout"][0])
        codec = _CODEC_NAMED[facts["codec"][0]]
        height, width = (int(side) for side in facts["size"])
        (count,) = (int(line[2]) for line in words if line[:2] == ["element", "vertex"])
    except (KeyError, ValueError, IndexError) as error:
        raise SourceError(
            "This .ply was not written by splatspace export",
            allowed="a .ply of splatspace export, whose header names codec, layout and size",
            next_step="only flat scenes can be read back",
        ) from error
    body = data[end + len(b"end_header\n") :]
    _require_ours(words, len(body), count)
    if height < 1 or width < 1 or height * width > MAX_IMAGE_PIXELS:
        raise SourceError(
            f"This .ply is of an image of {height} rows and {width} columns",
            allowed=f"1 or more each, and up to {MAX_IMAGE_PIXELS:,} pixels",
            next_step="export the image again",
        )
    table = np.frombuffer(body, "<f4").reshape(count, len(_FIELDS)).astype(np.float64)
    # Numbers of damaged files overflow; the check below names the Gaussians.
    with np.errstate(all="ignore"):
        splats = _flat(table, layout, codec, height, width)
    _require_gaussians(splats, layout)
    return FlatScene(splats, layout, codec, height, width)


def _require_ours(words: list[list[str]], size: int, count: int) -> None:
    """Refuses other ways to store the same scene: they would be read as other numbers."""
    stored = [" ".join(line[1:]) for line in words if line[:1] == ["format"]]
    if words[:1] != [["ply"]] or stored != [_FORMAT]:
        raise SourceError(
            f"This .ply is of format {', '.join(stored) or 'unknown'}",
            allowed=f"format {_FORMAT}",
            next_step="export it again, or save it as little-endian binary",
        )
    elements = [line for line in words if line[:1] in (["element"], ["property"])]
    wanted = ["element vertex", *(f"property float {name}" for name in _FIELDS)]
    if [" ".join(line[:2] if line[0] == "element" else line) for line in elements] != wanted:
        raise SourceError(
            "This .ply has other properties than splatspace export writes",
            allowed="element vertex with 32-bit floats " + " ".join(_FIELDS),
            next_step="only flat scenes of splatspace export can be read back",
        )
    if count < 1 or size != 4 * len(_FIELDS) * count:
        raise SourceError(
            f"This .ply holds {size} bytes of splats for {count} Gaussians",
            allowed=f"1 Gaussian or more, {4 * len(_FIELDS)} bytes for each",
            next_step="copy it again, it may be cut short",
        )


def _require_gaussians(splats: NDArray[np.float32], layout: Layout) -> None:
    """Refuses numbers that cannot be drawn."""
    with np.errstate(invalid="ignore"):
        right = np.isfinite(splats).all(axis=1) & (np.abs(splats[:, layout.index("rho")]) < 1)
        for name in ("sigma_x", "sigma_y"):
            right &= splats[:, layout.index(name)] > 0
    wrong = np.flatnonzero(~right)
    if len(wrong):
        shown = ", ".join(map(str, wrong[:10])) + (" and others" if len(wrong) > 10 else "")
        raise SourceError(
            f"Gaussians {shown} of this .ply cannot be drawn",
            allowed="finite numbers, deviations above 0 and a correlation between -1 and 1",
            next_step="take them out, or export the image again",
        )


def _scene(
    splats: NDArray[Any], layout: Layout, codec: str, height: int, width: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], int]:
    """Points, scales [gaussian, 3], quaternions (w, x, y, z), colours [gaussian, 3], opacities, number of cut ones."""
    values = splats.astype(np.float64)
    aspect = width / height
    sigma_x, sigma_y = values[:, layout.index("sigma_x")] * aspect, values[:, layout.index("sigma_y")]
    between = values[:, layout.index("rho")] * sigma_x * sigma_y
    # Eigenvalues of the covariance; the angle of the larger axis.
    middle, half = (sigma_x**2 + sigma_y**2) / 2, (sigma_x**2 - sigma_y**2) / 2
    spread = np.hypot(half, between)
    angle = np.arctan2(between, half) / 2
    smaller = np.maximum(middle - spread, 1e-12)
    scales = np.stack([np.sqrt(middle + spread), np.sqrt(smaller), np.full(len(values), FLAT_SCALE)], axis=1)
    zero = np.zeros(len(values))
    rotation = np.stack([np.cos(angle / 2), zero, zero, np.sin(angle / 2)], axis=1)
    depth = np.arange(len(values)) * DEPTH_STEP if codec == OVER else zero
    points = np.stack([values[:, layout.index("x")] * aspect, values[:, layout.index("y")], depth], axis=1)
    colours = values[:, layout.colour_slice]
    cut = int(((colours < 0) | (colours > 1)).any(axis=1).sum())
    colours = np.broadcast_to(colours.clip(0, 1), (len(values), 3))
    alpha = values[:, layout.index("alpha")] if layout.has_alpha else np.ones(len(values))
    if codec == ADDITIVE:
        brightness = colours.max(axis=1)
        colours = colours / np.maximum(brightness, 1e-9)[:, None]
        alpha = alpha * brightness
    return points, scales, rotation, colours, alpha.clip(1e-6, _LARGEST_OPACITY), cut


def _flat(table: NDArray[np.float64], layout: Layout, codec: str, height: int, width: int) -> NDArray[np.float32]:
    column = {name: table[:, index] for index, name in enumerate(_FIELDS)}
    aspect = width / height
    angle = 2 * np.arctan2(column["rot_3"], column["rot_0"])
    along, across = np.exp(2 * column["scale_0"]), np.exp(2 * column["scale_1"])
    cos, sin = np.cos(angle), np.sin(angle)
    horizontal, vertical = along * cos**2 + across * sin**2, along * sin**2 + across * cos**2
    between = (along - across) * cos * sin
    opacity = 1 / (1 + np.exp(-column["opacity"]))
    colours = np.stack([column[f"f_dc_{channel}"] for channel in range(3)], axis=1) * _DEGREE_ZERO + 0.5
    if codec == ADDITIVE:
        colours = colours * opacity[:, None]
        opacity = np.ones(len(table))
    found = {
        "sigma_x": np.sqrt(horizontal) / aspect,
        "sigma_y": np.sqrt(vertical),
        "rho": between / np.sqrt(horizontal * vertical),
        "x": column["x"] / aspect,
        "y": column["y"],
        "alpha": opacity,
        "grey": colours[:, 0],
        **dict(zip("rgb", colours.T, strict=True)),
    }
    return np.stack([found[name] for name in layout.names], axis=1).astype(np.float32)
