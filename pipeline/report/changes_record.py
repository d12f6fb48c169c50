"""What changed since another report, as typed records: a part of ``report.json``."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

HEADLINE = "PSNR of the mean error"
"""Name of the first of the figures."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FigureChange(_Record):
    """One figure, then and now."""

    name: str
    unit: str = Field(default="", description="dB, or empty")
    before: float
    now: float
    difference: float = Field(description="now minus before")


class ImageChange(_Record):
    """An image of both reports."""

    row: int
    source_id: str
    before: float
    now: float
    difference: float


class Changes(_Record):
    """This report against another one of the same set."""

    against: str = Field(description="name of the store of the other report")
    against_created: datetime
    is_asked: bool = Field(description="somebody named the other report; else it is the last one that was here")
    figures: tuple[FigureChange, ...]
    classes: tuple[FigureChange, ...] = Field(default=(), description="PSNR of the mean error by class, worst first")
    images_reason: str = Field(default="", description="why images are not compared one by one")
    matched: int | None = Field(default=None, description="images measured in both")
    added: int | None = Field(default=None, description="images done now that the other report has not")
    removed: int | None = None
    better: int | None = Field(default=None, description="matched images better by 0.01 dB or more")
    worse: int | None = None
    worst: tuple[ImageChange, ...] = Field(default=(), description="images that got worse by most")
