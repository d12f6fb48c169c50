"""The end of a run: its record in the store's header, and what is said of it."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data_schemas.records import RowState, RunRecord
from data_schemas.stores.contract import SplatStore
from encoders.base import Encoder
from pipeline.encode.plan import attribution_path
from pipeline.encode.presets import PRESETS
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeSummary
from pipeline.format import list_names
from pipeline.sources.base import NOTE_STEPS, NOTE_WORDS

logger = logging.getLogger("splatspace.encode")

MOST_NAMED = 5
"""Names in one warning; the summary of the run has all."""

RECORDED_PACKAGES = ("splatspace", "numpy", "numba", "torch", "zarr", "h5py")


def finish_run(
    store: SplatStore, plan: EncodePlan, summaries: Iterable[BlockSummary], encoder: Encoder
) -> EncodeSummary:
    """Records a run and commits.

    Args:
        store: open for writing, with its lock.
        plan: of the run.
        summaries: of its blocks, in any order.
        encoder: the engine, for its name and device.
    """
    total = BlockSummary.merge(summaries)
    record = _record_run(store, plan, total, encoder)
    _tell_notes(total)
    psnr = total.psnr
    attribution = attribution_path(plan.store)
    return EncodeSummary(
        store=plan.store,
        rows=len(store),
        rows_done=store.count_rows()[RowState.DONE],
        images=plan.images,
        kept=total.kept,
        fitted=total.fitted,
        reused=total.reused,
        changed=total.changed,
        retried=total.retried,
        repaired=total.repaired,
        removed=plan.removed,
        removed_duplicates=plan.header.source.removed_duplicates,
        left_out=plan.header.source.left_out,
        failed=total.failed,
        noted=total.noted,
        psnr=None if psnr is None or not np.isfinite(psnr) else psnr,
        wall_seconds=record.wall_seconds,
        fit_seconds=record.fit_seconds,
        core_seconds=record.core_seconds,
        core_seconds_per_image=record.core_seconds / total.fitted if total.fitted else None,
        engine=record.engine,
        engine_choice=record.engine_choice,
        attribution=attribution if plan.header.source.attribution else None,
    )


def _record_run(store: SplatStore, plan: EncodePlan, total: BlockSummary, encoder: Encoder) -> RunRecord:
    """Makes the record of this run; it enters the header where the run changed a row."""
    finished = datetime.now(UTC)
    record = RunRecord(
        started=plan.started,
        finished=finished,
        images=total.fitted,
        failed=len(total.failed),
        noted=dict(Counter(image.kind for image in total.noted)),
        reused=total.reused,
        wall_seconds=max((finished - plan.started).total_seconds(), 0.0),
        fit_seconds=total.fit_seconds,
        core_seconds=total.core_seconds,
        workers=plan.job.workers,
        engine=encoder.name,
        engine_choice=plan.engine_choice,
        device=encoder.device,
        versions=_versions(),
        dataset=_name_dataset(plan.job.dataset),
        data_dir="" if plan.job.data_dir is None else _without_root(plan.job.data_dir),
    )
    if total.written:
        header = store.header
        store.set_header(header.model_copy(update={"updated": finished, "runs": (*header.runs, record)}))
    store.commit()
    return record


def _tell_notes(total: BlockSummary) -> None:
    """One warning for each kind of note, with some names."""
    for kind, words in NOTE_WORDS.items():
        names = [f"{image.source_id}: {image.text}".removesuffix(": ") for image in total.noted if image.kind == kind]
        if names:
            shown = list_names(names, most=MOST_NAMED, by=";")
            logger.warning("%d %s (%s). Next: %s.", len(names), words, shown, NOTE_STEPS[kind])


def _without_root(path: Path) -> str:
    """A path as it was typed; of an absolute one the last name: a store is passed on, and names no one's folders."""
    return path.name if path.is_absolute() else str(path)


def _name_dataset(typed: str) -> str:
    """What to type for a data set, in the folder that holds it."""
    path = Path(typed)
    if not path.is_absolute():
        return typed
    return f"./{path.name}" if path.name in PRESETS else path.name


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            logger.debug("%s is not installed as a package: its version is not recorded", package)
    return versions
