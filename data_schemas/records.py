"""Rows of a store in memory, and what a header says about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data_schemas.splats import CodecName, ColourRange, Layout, SplatDtype, StartName, layout_named

SCHEMA_VERSION = 1
"""Version of the store format (docs/store-format.md). A reader refuses a greater one."""

CONTENT_HASH_BYTES = 16


class RowState(IntEnum):
    """What a row of a store holds."""

    EMPTY = 0
    DONE = 1
    FAILED = 2


def content_hash(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """BLAKE2b-128 of the shape and the pixels: the identity by which an image is recognised.

    Args:
        pixels: uint8 [height, width, channel].

    Returns:
        uint8 [CONTENT_HASH_BYTES].
    """
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=CONTENT_HASH_BYTES)
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return np.frombuffer(digest.digest(), dtype=np.uint8)


@dataclass
class RowBlock:
    """Consecutive rows of a store; every array has the rows on its first axis.

    Attributes:
        splats: float32 or float16 [row, gaussian, parameter]; zeros where a row is not done.
        image: uint8 [row, y, x, channel], or None for a store without source images.
        label: int32 [row], -1 where there is none.
        psnr: float32 [row] dB of the decoded stored bytes after rounding to uint8; ``inf`` where lossless,
            NaN where a row is not done.
        ssim: float32 [row]; NaN where a row is not done.
        steps: int32 [row], optimiser steps taken.
        dead: int32 [row], Gaussians without a visible contribution.
        source_id: object [row] of str, stable identity of the image inside its source.
        content_hash: uint8 [row, CONTENT_HASH_BYTES]; zeros where the image was never read.
        state: uint8 [row] of RowState.
        failure: object [row] of str, the reason where state is FAILED, else empty.
    """

    splats: NDArray[Any]
    image: NDArray[np.uint8] | None
    label: NDArray[np.int32]
    psnr: NDArray[np.float32]
    ssim: NDArray[np.float32]
    steps: NDArray[np.int32]
    dead: NDArray[np.int32]
    source_id: NDArray[np.object_]
    content_hash: NDArray[np.uint8]
    state: NDArray[np.uint8]
    failure: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.state)

    @classmethod
    def empty(cls, rows: int, header: StoreHeader) -> RowBlock:
        """Rows in state EMPTY, shaped for ``header``."""
        return cls(
            splats=np.zeros((rows, header.gaussians, header.splat_layout.width), dtype=header.dtype),
            image=np.zeros((rows, header.height, header.width, header.channels), np.uint8) if header.images else None,
            label=np.full(rows, -1, np.int32),
            psnr=np.full(rows, np.nan, np.float32),
            ssim=np.full(rows, np.nan, np.float32),
            steps=np.zeros(rows, np.int32),
            dead=np.zeros(rows, np.int32),
            source_id=np.full(rows, "", dtype=object),
            content_hash=np.zeros((rows, CONTENT_HASH_BYTES), np.uint8),
            state=np.zeros(rows, np.uint8),
            failure=np.full(rows, "", dtype=object),
        )


class SourceRecord(BaseModel):
    """Where the images came from."""

    model_config = ConfigDict(extra="forbid")

    name: str
    split: str = "all"
    digest: str = Field(default="", description="hash of the source files, 'sha256:...' or 'blake2b:...'")
    licence: str = ""
    attribution: str = ""
    removed_duplicates: int = 0
    left_out: int = Field(default=0, description="other files of the place: no images, or hidden")
    label_names: tuple[str, ...] = ()
    background: str = Field(default="#000000", description="what transparency was laid over, #rrggbb")


class RunRecord(BaseModel):
    """One run of the encoder over this store: what was done and how long it took."""

    model_config = ConfigDict(extra="forbid")

    started: datetime
    finished: datetime
    images: int = Field(description="images fitted in this run")
    failed: int = 0
    noted: dict[str, int] = Field(default_factory=dict, description="images of which something is to be known, by kind")
    reused: int = Field(default=0, description="rows copied from an identical image, not fitted again")
    wall_seconds: float
    fit_seconds: float = Field(description="wall time spent inside the engine")
    core_seconds: float = Field(description="CPU time of the engine's threads")
    workers: int
    engine: str
    engine_choice: str = Field(default="", description="why this engine, where the run left it open")
    device: str
    versions: dict[str, str] = Field(default_factory=dict)
    dataset: str = Field(default="", description="what was encoded, as typed; of an absolute path its last name")
    data_dir: str = Field(default="", description="--data-dir in the same form; empty where none was given")


class StoreHeader(BaseModel):
    """The attributes of a store: what its numbers mean and how they were made.

    ``settings`` holds the whole configuration of the encoder; together with codec, layout, K, size, colours,
    start, dtype and seed it decides every splat, so a store refuses rows fitted with another.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    codec: CodecName
    layout: str
    gaussians: int = Field(ge=0, description="K; 0: the store holds images only, and no array of splats")
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    channels: int
    dtype: SplatDtype = "float32"
    images: bool = Field(default=True, description="whether the source pixels are in the store")
    colours: ColourRange = "bounded"
    start: StartName | None = None
    anchors: tuple[tuple[float, float], ...] | None = Field(default=None, description="[gaussian] (x, y)")
    engine: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    source: SourceRecord
    block_rows: int = Field(default=1024, ge=1, description="rows that are written together: one zarr shard")
    created: datetime = Field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = Field(default_factory=lambda: datetime.now(UTC))
    runs: tuple[RunRecord, ...] = ()

    @property
    def splat_layout(self) -> Layout:
        """The columns of ``splats``."""
        return layout_named(self.layout)

    @property
    def refine(self) -> str | None:
        """How starts of a second fit were made (``encode --refine``); None for a store that was fitted once."""
        recipe = self.settings.get("recipe")
        refined = recipe.get("refine") if isinstance(recipe, dict) else None
        return str(refined["method"]) if isinstance(refined, dict) and "method" in refined else None

    def identity(self) -> dict[str, Any]:
        """The fields that two runs must share to write into one store."""
        keys = (
            "codec",
            "layout",
            "gaussians",
            "height",
            "width",
            "channels",
            "dtype",
            "images",
            "colours",
            "start",
            "engine",
            "settings",
            "seed",
        )
        return {key: getattr(self, key) for key in keys}
