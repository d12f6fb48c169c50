"""Every error that SplatSpace raises for a user.

A message says what was got, what is allowed, and what to do next. The command line prints it without a
traceback and leaves with the class's ``exit_code``; flows let it fail the task. Names in it are written out
(``printable``), for they come from outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_schemas.printable import printable


class SplatSpaceError(Exception):
    """Base class: anything that a user can cause and fix.

    Args:
        got: what was found, with the offending name or value.
        allowed: what would have been right.
        next_step: what to type or change.
    """

    exit_code = 1

    def __init__(self, got: str, *, allowed: str = "", next_step: str = "") -> None:
        self.got = got
        self.allowed = allowed
        self.next_step = next_step
        super().__init__(got, allowed, next_step)

    def __str__(self) -> str:
        parts = [self.got.rstrip(".") + "."]
        if self.allowed:
            parts.append(f"Allowed: {self.allowed.rstrip('.')}.")
        if self.next_step:
            parts.append(f"Next: {self.next_step.rstrip('.')}.")
        return printable(" ".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as it is: errors travel back from worker processes."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[SplatSpaceError], args: tuple[Any, ...], state: dict[str, Any]) -> SplatSpaceError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class JobError(SplatSpaceError, ValueError):
    """An option or a combination of options that cannot be run."""

    exit_code = 2


class SourceError(SplatSpaceError, ValueError):
    """A data set that cannot be read as a whole (missing, empty, cut short, wrong magic, mixed sizes)."""


class ImageError(SplatSpaceError, ValueError):
    """One image that cannot be read; the row is recorded as failed with this message."""


class ArchiveError(SourceError):
    """An archive with unsafe or unbounded members (path escapes, bombs, links)."""


class DownloadError(SourceError):
    """A download that failed on every mirror or whose checksum differs."""


class HubError(SplatSpaceError, ValueError):
    """A repository of a hub that cannot be named, reached, read or written."""


class ComputeError(SplatSpaceError):
    """Dask workers that cannot be started, reached or used, or that were lost."""


class StoppedError(SplatSpaceError):
    """The user stopped a run; what was finished is in the store."""

    exit_code = 130


class StoreError(SplatSpaceError):
    """A store that cannot be opened, created or written."""


class StoreMismatchError(StoreError, ValueError):
    """A store whose codec, layout, K, size or settings differ from what the job asks for."""


class StoreLockedError(StoreError):
    """Another process writes this store."""


class StoreCorruptError(StoreError):
    """Bytes of a store whose checksum or shape is wrong.

    Args:
        got: what was found.
        rows: the image rows that cannot be trusted.
        allowed: what would have been right.
        next_step: what to type or change.
    """

    def __init__(self, got: str, *, rows: Sequence[int] = (), allowed: str = "", next_step: str = "") -> None:
        super().__init__(got, allowed=allowed, next_step=next_step)
        self.rows = tuple(int(row) for row in rows)


class ReportError(SplatSpaceError):
    """A report or a comparison that cannot be made, written or read."""


class QualityError(SplatSpaceError):
    """A store or a generator that misses the quality that was asked for; everything is written."""


class CheckpointError(SplatSpaceError, ValueError):
    """A checkpoint that is cut short, damaged, written by another program or of another kind; or cannot be written."""


class TrainingError(SplatSpaceError):
    """A training that cannot begin or go on (a loss that is not a number, too few images); checkpoints are kept."""


class SamplingError(SplatSpaceError, ValueError):
    """A sampling that was asked for what the model, objective or sampler cannot do, or that did not stay finite."""


class EvaluationError(SplatSpaceError, ValueError):
    """A metric that cannot be computed (too few images, features that are missing)."""
