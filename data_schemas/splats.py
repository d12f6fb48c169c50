"""The columns of a splat array: names, units, ranges, and the codecs that give them a meaning.

Codec ``additive/1``. Gaussian n has centre (x, y), covariance S and colour c. At a point p

    I(p) = clip(sum_n alpha_n c_n exp(-1/2 (p - m_n)^T S_n^-1 (p - m_n)), 0, 1)

with S = [[sx^2, rho sx sy], [rho sx sy, sy^2]].

Codec ``normalised/1`` divides by the summed weights, with a fixed floor ``NORMALISED_EPSILON``:

    I(p) = clip(sum_n alpha_n c_n w_n(p) / (NORMALISED_EPSILON + sum_n alpha_n w_n(p)), 0, 1)

Codec ``over/1`` lays Gaussians over a black background, the first one in front:

    I(p) = clip(sum_n c_n a_n(p) prod_{m<n} (1 - a_m(p)), 0, 1),   a_n(p) = alpha_n w_n(p)

No codec has a cut-off: rasterisers that leave out small opacities or stop at covered pixels approximate it.

Coordinates are normalised to [-1, 1] over the full image extent, +x right and +y down. The centre of pixel
(row i, column j) of an H x W image is x = (2j + 1)/W - 1, y = (2i + 1)/H - 1; one pixel is 2/W wide and 2/H
high, and sigma_x, sigma_y are in the same units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_schemas.errors import StoreMismatchError

CodecName = Literal["additive/1", "normalised/1", "over/1"]
ColourRange = Literal["bounded", "signed"]
StartName = Literal["transport", "grid", "adaptive"]
SplatDtype = Literal["float16", "float32"]

ADDITIVE: CodecName = "additive/1"
NORMALISED: CodecName = "normalised/1"
OVER: CodecName = "over/1"

NORMALISED_EPSILON = 1e-3
"""Floor of the weight sum of ``normalised/1``; where no Gaussian reaches, the image fades to black."""

CODECS: tuple[CodecName, ...] = (ADDITIVE, NORMALISED, OVER)


@dataclass(frozen=True)
class Column:
    """One number of a Gaussian.

    Attributes:
        name: as written in the ``parameter`` coordinate of a store.
        unit: what the number is measured in.
        minimum: lower bound of the value by definition (``-inf`` where there is none).
        maximum: upper bound of the value by definition (``inf`` where there is none).
    """

    name: str
    unit: str
    minimum: float
    maximum: float


_SIGMA_X = Column("sigma_x", "normalised image extent (2 = image width)", 0.0, float("inf"))
_SIGMA_Y = Column("sigma_y", "normalised image extent (2 = image height)", 0.0, float("inf"))
_RHO = Column("rho", "correlation", -1.0, 1.0)
_ALPHA = Column("alpha", "opacity", 0.0, 1.0)
_X = Column("x", "normalised image extent, +right", float("-inf"), float("inf"))
_Y = Column("y", "normalised image extent, +down", float("-inf"), float("inf"))


def _colour(name: str) -> Column:
    return Column(name, "intensity (1 = 255)", float("-inf"), float("inf"))


@dataclass(frozen=True)
class Layout:
    """The ordered columns of a splat array.

    Attributes:
        name: ``grey``, ``grey_alpha``, ``rgb`` or ``rgb_alpha``.
        columns: in stored order.
    """

    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in stored order."""
        return tuple(column.name for column in self.columns)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return 3 if "r" in self.names else 1

    @property
    def has_alpha(self) -> bool:
        """Whether the layout has an opacity column."""
        return "alpha" in self.names

    @property
    def width(self) -> int:
        """Numbers per Gaussian."""
        return len(self.columns)

    def index(self, name: str) -> int:
        """Position of a column.

        Raises:
            KeyError: there is no such column.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise KeyError(f"{name!r} is not a column of layout {self.name!r}: {', '.join(self.names)}") from None

    @property
    def colour_slice(self) -> slice:
        """Where the colour columns are."""
        first = self.index("r" if self.channels == 3 else "grey")
        return slice(first, first + self.channels)


GREY = Layout("grey", (_SIGMA_X, _SIGMA_Y, _RHO, _colour("grey"), _X, _Y))
GREY_ALPHA = Layout("grey_alpha", (_SIGMA_X, _SIGMA_Y, _RHO, _ALPHA, _colour("grey"), _X, _Y))
RGB = Layout("rgb", (_SIGMA_X, _SIGMA_Y, _RHO, _colour("r"), _colour("g"), _colour("b"), _X, _Y))
RGB_ALPHA = Layout("rgb_alpha", (_SIGMA_X, _SIGMA_Y, _RHO, _ALPHA, _colour("r"), _colour("g"), _colour("b"), _X, _Y))

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (GREY, GREY_ALPHA, RGB, RGB_ALPHA)}


def layout_named(name: str) -> Layout:
    """The layout of that name.

    Raises:
        StoreMismatchError: the name is unknown.
    """
    if name not in LAYOUTS:
        raise StoreMismatchError(
            f"Unknown splat layout {name!r}",
            allowed=", ".join(LAYOUTS),
            next_step="install a newer SplatSpace if a newer one wrote this store",
        )
    return LAYOUTS[name]


def layout_for(channels: int, *, alpha: bool = False) -> Layout:
    """The layout for images of ``channels`` channels (1 or 3).

    Raises:
        StoreMismatchError: another number of channels.
    """
    if channels not in (1, 3):
        raise StoreMismatchError(f"Images of {channels} channels", allowed="1 (grey) or 3 (RGB)")
    return LAYOUTS[("grey" if channels == 1 else "rgb") + ("_alpha" if alpha else "")]


def layout_of(codec: str, channels: int) -> Layout:
    """The layout of what an engine fits: opacity is a number of its own in ``over/1`` only.

    Raises:
        StoreMismatchError: neither 1 nor 3 channels.
    """
    return layout_for(channels, alpha=codec == OVER)
