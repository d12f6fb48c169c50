"""A picture to begin sampling with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from data_schemas.errors import SamplingError
from models.pixel_representation import PixelRepresentation
from models.schedules import StraightPath
from pipeline.generation.run import Run


def sketch_features(run: Run, path: Path) -> Tensor:
    """A picture as the generator's features, brought to its size and colours.

    Args:
        run: a generator of pixels on the straight path.
        path: of the picture, of any size.

    Returns:
        float32 [1, channel, row, column].

    Raises:
        SamplingError: a generator that cannot begin with a picture, or a file that is none.
    """
    representation = run.representation
    if not isinstance(representation, PixelRepresentation) or not isinstance(run.objective.sampling_path, StraightPath):
        raise SamplingError(
            f"--sketch with {run.path}, which makes {run.spec.kind} by objective {run.objective.settings.name}",
            allowed="a generator of pixels whose path is straight, as of train cats",
            next_step="leave --sketch out",
        )
    try:
        with Image.open(path) as picture:
            colours = picture.convert("L" if run.spec.channels == 1 else "RGB")
            small = colours.resize((run.spec.width, run.spec.height), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise SamplingError(f"--sketch {path} cannot be read: {error}", allowed="a picture") from error
    pixels = np.asarray(small).reshape(1, run.spec.height, run.spec.width, run.spec.channels)
    return representation.encode(torch.from_numpy(pixels.copy()))
