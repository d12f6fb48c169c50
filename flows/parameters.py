"""Kinds of parameters that the flows share."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BeforeValidator, Field


def _as_text(given: object) -> object:
    return os.fspath(given) if isinstance(given, os.PathLike) else given


PathText = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
"""A path or a URL as text: a ``Path`` would lose a slash of ``s3://``."""

PsnrFloor = Annotated[float, Field(gt=0, le=100)]
"""In dB; a lossless image counts as 100 dB."""
