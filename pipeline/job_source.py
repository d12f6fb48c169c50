"""The images that a job asks for."""

from __future__ import annotations

from pipeline.download import Progress
from pipeline.jobs import EncodeJob
from pipeline.sources import open_source
from pipeline.sources.base import ImageSource


def source_of(job: EncodeJob, *, downloading: Progress | None = None) -> ImageSource:
    """Opens the data set of a job.

    Args:
        job: as resolved.
        downloading: told of downloads.

    Raises:
        SourceError: as ``pipeline.sources.open_source``.
    """
    return open_source(
        job.dataset,
        data_dir=job.data_dir,
        split=job.split,
        size=job.size,
        download=job.download,
        progress=downloading,
        background=job.background,
    )
