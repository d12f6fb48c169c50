"""The header of a store whose rows an engine fits: the attributes that follow from the engine and from the images."""

from __future__ import annotations

import json

from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.splats import SplatDtype, layout_of
from encoders.base import Encoder
from encoders.start.begin import anchors


def fit_header(
    encoder: Encoder,
    image_shape: tuple[int, int, int],
    *,
    source: SourceRecord,
    block_rows: int,
    dtype: SplatDtype,
    images: bool,
) -> StoreHeader:
    """Makes the header of a new store.

    Args:
        encoder: the engine; its settings decide codec, K, colours, start and, with its name and recipe, every splat.
        image_shape: (height, width, channels).
        source: where the images come from.
        block_rows: rows that are written together.
        dtype: of the stored splats.
        images: whether the store keeps the pixels.
    """
    height, width, channels = image_shape
    settings = encoder.settings
    anchored = settings.start != "adaptive" and settings.gaussians
    return StoreHeader(
        codec=settings.codec,
        layout=layout_of(settings.codec, channels).name,
        gaussians=settings.gaussians,
        height=height,
        width=width,
        channels=channels,
        dtype=dtype,
        images=images,
        colours=settings.colours,
        start=settings.start if settings.gaussians else None,
        anchors=tuple((float(x), float(y)) for x, y in anchors(settings.gaussians, height, width))
        if anchored
        else None,
        engine=encoder.name,
        settings=json.loads(json.dumps({**settings.as_dict(), "recipe": encoder.recipe()})),
        seed=settings.seed,
        source=source,
        block_rows=block_rows,
    )
