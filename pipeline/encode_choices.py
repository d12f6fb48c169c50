"""The words that the options of an encode know; apart from the job, so that the command line reads them at no cost."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "cpu", "reference", "gsplat", "cuda", "none"]

RefineName = Literal["none", "regressed"]
