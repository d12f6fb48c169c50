"""The stores of an ablation: the images of the base store, encoded with another K or another start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.splats import StartName
from data_schemas.stores.contract import SplatStore
from encoders.engines import ENGINES
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.run import encode
from pipeline.sources.base import SourceImage


class StoredImages:
    """An ``ImageSource`` over the source images of a store's finished rows.

    Args:
        store: open for reading, with images.
        limit: first images only.
    """

    def __init__(self, store: SplatStore, limit: int | None = None) -> None:
        self._store = store
        self._rows: NDArray[np.int64] = store.finished_rows()[:limit]
        self._names = [str(name) for name in store.read(["source_id"], self._rows.tolist())["source_id"]]

    @property
    def record(self) -> SourceRecord:
        """Where the images came from at first: features that were learned from them are the same."""
        return self._store.header.source

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        header = self._store.header
        return header.height, header.width, header.channels

    def __len__(self) -> int:
        return len(self._rows)

    def identifiers(self) -> Sequence[str]:
        """Names of the images in the order of the rows."""
        return self._names

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Reads images; none of them can fail."""
        found = self._store.read(["image", "label"], self._rows[list(indices)].tolist())
        return [
            SourceImage(self._names[index], pixels, int(label))
            for index, pixels, label in zip(indices, found["image"], found["label"], strict=True)
        ]


def encode_variant(
    base: SplatStore,
    path: Path,
    *,
    gaussians: int,
    start: StartName | None,
    limit: int | None = None,
    workers: int | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Encodes the base store's images again, or continues; everything else is as the base store has it.

    Args:
        base: open for reading.
        path: of the store to make.
        gaussians: K.
        start: where Gaussians begin.
        limit: first finished images only.
        workers: of the encoder.
        should_stop: polled.

    Raises:
        StoppedError: ``should_stop`` said so; run again to continue.
        SplatSpaceError: the store cannot be written, or the engine cannot do it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    job = variant_job(base.header, path, gaussians=gaussians, start=start, workers=workers)
    encode(job, source=StoredImages(base, limit), should_stop=should_stop)


def variant_job(
    header: StoreHeader, path: Path, *, gaussians: int, start: StartName | None, workers: int | None = None
) -> EncodeJob:
    """The encoding of a variant: every setting that the base store names decides it, but for K and start.

    Args:
        header: of the base store.
        path: of the store to make.
        gaussians: K.
        start: where Gaussians begin.
        workers: of the encoder.

    Raises:
        JobError: a choice that does not go with the base store's settings, as a refined fit from ``adaptive``.
    """
    settings = header.settings
    return resolve_job(
        header.source.name,
        path,
        gaussians=gaussians,
        start=start,
        steps=settings.get("steps"),
        target_psnr=settings.get("target_psnr"),
        rounds=settings.get("rounds"),
        refine=header.refine,
        # Stores of other programs name engines that nobody can run here.
        engine=header.engine if header.engine in ENGINES else None,
        codec=header.codec,
        colours=header.colours,
        dtype=header.dtype,
        seed=header.seed,
        workers=workers,
    )
