"""The words that options of generators know; apart from what they stand for, which needs torch."""

from __future__ import annotations

from typing import Literal

DataKind = Literal["splats", "pixels"]
PresetName = Literal["tiny", "small", "medium", "full"]
HeadName = Literal["kpn", "lut", "outer", "splats"]
RecipeName = Literal["published", "modern"]
CovarianceForm = Literal["matrix_log", "log_cholesky", "raw"]
Normalisation = Literal["whitened", "minmax"]
SamplerName = Literal["dpmpp-2m", "heun", "euler", "ddim", "ancestral"]

MOST_EVALUATIONS = 100_000
"""Of the network for one image: a hundred times what the slowest published sampler takes."""


def model_name(head: HeadName, recipe: RecipeName) -> str:
    """What a patch model is called among all generators."""
    return f"cats-{head}" if recipe == "modern" else f"cats-{head}-published"
