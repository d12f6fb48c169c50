"""What the measure of predictability is said with; apart from the measure, which imports much linear algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_schemas.splats import Layout

MAXIMUM_IMAGES = 2000
"""Of the sample, where nothing else is asked for."""


class Predictability(BaseModel):
    """Share of the whitened splat numbers that a regression recovers from the pixels of images it has not seen."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    r2: float = Field(description="over all splat numbers")
    r2_position: float | None = None
    r2_shape: float | None = None
    r2_colour: float | None = Field(default=None, description="colours and opacity")
    r2_visible: float | None = Field(
        default=None, description="as r2, with the geometry of invisible Gaussians left out; None where all are visible"
    )
    invisible_share: float = Field(description="Gaussians of the sample with a colour under half a grey level")
    images: int
    gaussians: int = Field(description="slots of the sample")
    numbers: int = Field(description="splat numbers per image that vary in the sample")
    constant_numbers: int = Field(description="splat numbers per image that do not vary; left out")
    pixels: Literal["source", "decoded"]
    folds: int
    ridges: tuple[float, ...]
    ridge: float = Field(description="the ridge with the best out-of-fold r2, which is the one reported")
    seed: int


class Decoder(Protocol):
    """``encoders.decode.decode``, or what stands in for it."""

    def __call__(
        self, splats: NDArray[Any], *, layout: Layout, codec: str, height: int, width: int
    ) -> NDArray[np.float32]:
        """Splats [image, gaussian, parameter] to float32 [image, y, x, channel] in [0, 1]."""
        ...


@dataclass(frozen=True)
class PredictabilityResult:
    """The measure, or why there is none.

    Attributes:
        figures: the measure; None where it cannot be taken.
        reason: why not ("" where it was taken).
    """

    figures: Predictability | None
    reason: str = ""
