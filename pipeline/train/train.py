"""One training: from a store to a run's folder."""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from lightning_fabric import Fabric

from data_schemas.errors import JobError, SplatSpaceError
from data_schemas.files import wrap_os_errors
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store, require_outside_stores
from models.checkpoint import read_config
from models.diffusion.objectives import build_objective
from models.ema import Ema, decay_for
from models.networks.render_dit import RenderDiT
from models.registry import build_model, step_gflop
from pipeline.devices import choose_device
from pipeline.documents import sole_writer
from pipeline.renderers import with_renderers
from pipeline.train.distil import load_teacher, representation_of, teach
from pipeline.train.job import TrainJob
from pipeline.train.loader import Loader, latent_bytes, mix_seed
from pipeline.train.loop import TrainLoop, TrainParts
from pipeline.train.rows import TrainingRows
from pipeline.train.run_record import RunRecord, TrainedStore
from pipeline.train.state import MODEL_FILE, STATE_FILE, TrainProgress, TrainSummary, load_state, plans_of
from pipeline.train.tracking.trackers import TrackerName, require_trackers

logger = logging.getLogger("splatspace.train")

FIRST_MOMENT = 0.9
"""Decay of AdamW's mean of gradients."""


def train(
    job: TrainJob,
    *,
    resume: bool = False,
    progress: Callable[[TrainProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    trackers: Sequence[str] = (),
) -> TrainSummary:
    """Trains a generator and writes its run.

    Several devices or nodes train together (``job.devices``, ``job.nodes``): Fabric starts the other processes with
    this process's command.

    Args:
        job: what to train; for a training that goes on ``pipeline.train.state.continue_job``.
        resume: go on from the run's last state. On one CPU the result is the same bit for bit as without the
            interruption.
        progress: called with how far it is.
        should_stop: asked after each step; True saves the state and raises.
        trackers: of experiments, beside the run's own log: ``wandb``, ``mlflow``.

    Returns:
        What was left.

    Raises:
        JobError: options that exclude each other, a device that is not there, a run that is there already.
        StoreError: a store that cannot be read, or a run that cannot be written.
        StoreMismatchError: another store than the one that the training began with.
        StoreLockedError: another process trains into that folder.
        CheckpointError: a state that cannot be continued.
        TrainingError: too few images, or a loss that is not finite; the last whole checkpoint is kept.
        StoppedError: ``should_stop`` said so; the state is kept.
    """
    _require_free(job, resume=resume)
    processes = job.devices * job.nodes
    if job.batch < processes:  # before they are started
        raise JobError(
            f"--batch {job.batch} for {processes} processes",
            allowed=f"{processes} or more: one image each",
            next_step="give a larger --batch, or fewer --devices",
        )
    tracked = require_trackers(trackers)
    fabric = _fabric(job)
    with sole_writer(job.out) if fabric.is_global_zero else nullcontext():
        with wrap_os_errors("create", job.out):
            job.out.mkdir(parents=True, exist_ok=True)
        if fabric.is_global_zero:
            _require_free(job, resume=resume)  # again: another may have begun and ended meanwhile
        return _train_process(job, fabric, resume=resume, progress=progress, should_stop=should_stop, trackers=tracked)


def _train_process(
    job: TrainJob,
    fabric: Fabric,
    *,
    resume: bool,
    progress: Callable[[TrainProgress], None] | None,
    should_stop: Callable[[], bool] | None,
    trackers: Sequence[TrackerName],
) -> TrainSummary:
    """The training of one process, which has the folder for itself."""
    began = time.perf_counter()
    before = read_config(job.out / STATE_FILE) if resume else None
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with open_store(job.store, "r") as store, torch.random.fork_rng(devices):
        rows = TrainingRows(store, job, before=before)
        teacher = load_teacher(job, rows) if job.distil is not None else None
        representation = rows.fitted_representation() if teacher is None else representation_of(teacher)
        objective = build_objective(
            job.objective,
            groups=representation.groups,
            classes=rows.classes,
            anchors=rows.slots.anchors,
            **job.objective_changes,
        )
        torch.manual_seed(mix_seed(job.seed, "weights"))
        network = build_model(job.model, job.preset, rows.spec(representation), **job.changes)
        # Before it can draw: what compiled renderers do is not counted.
        gflop = step_gflop(network)
        network = with_renderers(network, store.header.codec)
        if isinstance(network, RenderDiT) and rows.slot_statistics is not None:
            network.slots.take(rows.slot_statistics)
        network.to(fabric.device)
        if teacher is not None:
            objective = teach(teacher, network, objective, rows)
        ema = Ema(network, decay_for(job.steps)) if job.ema else None
        optimiser = torch.optim.AdamW(
            network.parameters(),
            lr=job.learning_rate,
            betas=(FIRST_MOMENT, job.second_moment),
            weight_decay=job.weight_decay,
        )
        state: dict[str, Any] = {}
        if resume:
            state = load_state(job.out, network, ema, optimiser)
            if ema is not None:
                ema.decay = decay_for(job.steps)  # of a training that is longer now
        start = int(state.get("step", 0))
        compiled: Any = torch.compile(network) if job.compile else network
        model, wrapped = fabric.setup(compiled, optimiser)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        loader = Loader(
            rows,
            representation,
            device=fabric.device,
            batch=job.batch,
            seed=job.seed,
            most_bytes=latent_bytes(job.latents, fabric.device),
            rank=fabric.global_rank,
            world=fabric.world_size,
        )
        record = RunRecord(
            model=job.model,
            preset=job.preset,
            changes=job.changes,
            data=network.spec.to_dict(),
            representation=representation.config(),
            objective=objective.config(),
            codec=store.header.codec,
            layout=store.header.layout,
            colours=store.header.colours,
            labels=list(rows.class_labels.numbers),
            label_names=list(store.header.source.label_names),
            store=_train_store(rows, store),
            job=job.model_dump(mode="json"),
            parameters=parameters,
            gflop=gflop,
            plans=plans_of(state, job.steps),
            loss=state.get("loss"),
            precision=_precision(job, fabric.device),
            device=_device_name(fabric.device),
            versions={"splatspace": _version(), "torch": torch.__version__},
            step=start,
        )
        parts = TrainParts(
            fabric=fabric,
            job=job,
            model=model,
            network=network,
            ema=ema,
            wrapped=wrapped,
            optimiser=optimiser,
            objective=objective,
            representation=representation,
            loader=loader,
            header=store.header,
            record=record,
        )
        loop = TrainLoop(parts, collected=state.get("collected", ()))
        try:
            told = progress if fabric.is_global_zero else None
            loop.run(told, should_stop or (lambda: False), trackers=trackers)
        finally:
            loop.close()
            loader.close()
    taken = job.steps - start
    seconds = time.perf_counter() - began
    return TrainSummary(
        run=job.out,
        checkpoint=job.out / MODEL_FILE,
        model=job.model,
        preset=job.preset,
        parameters=parameters,
        gflop=gflop,
        images=len(rows),
        unfinished=rows.unfinished.count,
        unfinished_named=rows.unfinished.named,
        held_out=len(rows.split.held_out),
        repeats=len(rows.split.repeats),
        repeats_named=rows.repeats_named,
        steps=job.steps,
        steps_taken=taken,
        loss=loop.loss,
        seconds=seconds,
        images_per_second=taken * job.batch / seconds if taken else None,
        device=record.device,
        precision=record.precision,
        resident=loader.resident,
        rank=fabric.global_rank,
    )


def _train_store(rows: TrainingRows, store: SplatStore) -> TrainedStore:
    return TrainedStore(
        path=str(store.path),
        digest=rows.digest,
        identity=store.header.identity(),
        source=store.header.source.model_dump(mode="json"),
        images=len(rows),
        unfinished=rows.unfinished.count,
        unfinished_named=list(rows.unfinished.named),
        held_out=len(rows.split.held_out),
        repeats=len(rows.split.repeats),
        repeats_named=list(rows.repeats_named),
        order=_order_words(rows),
    )


def _require_free(job: TrainJob, *, resume: bool) -> None:
    require_outside_stores(job.out)
    if resume:
        return
    for name in (STATE_FILE, MODEL_FILE):
        if (job.out / name).exists():
            raise JobError(
                f"{job.out} holds a training already ({name})",
                allowed="a new folder, or --resume",
                next_step=f"continue it with --resume, or give another --out than {job.out}",
            )


def _fabric(job: TrainJob) -> Fabric:
    """Devices and precision, and the other processes where there are some.

    Raises:
        JobError: a device that is not there, or a precision that it does not know.
    """
    accelerator = choose_device(job.device)
    several = job.devices * job.nodes > 1
    precision = "bf16-mixed" if _precision(job, torch.device(accelerator)) == "bf16" else "32-true"
    try:
        fabric = Fabric(
            accelerator=accelerator,
            devices=job.devices,
            num_nodes=job.nodes,
            precision=precision,
            strategy="ddp" if several else "auto",
        )
        fabric.launch()
    except SplatSpaceError:
        raise
    except (RuntimeError, ValueError) as error:
        raise JobError(
            f"{job.devices} devices of {accelerator}: {error}", next_step="give --device cpu or fewer --devices"
        ) from error
    return fabric


def _precision(job: TrainJob, device: torch.device) -> str:
    """``32`` or ``bf16``; automatic is bf16 on CUDA devices that compute in it."""
    if job.precision != "auto":
        return job.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "32"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _order_words(rows: TrainingRows) -> str:
    if rows.entry.draws:
        return "slots of the store" if rows.header.anchors is not None else "slots of a regular grid"
    if rows.job.kind == "pixels":
        return "none (pixels)"
    if not rows.entry.needs_slots:
        return "none (the model knows no slots)"
    if rows.slots.reorder:
        return "assigned to anchors after the fit (second best to a store with slot identity)"
    return "as stored, with anchors" if rows.slots.anchors is not None else "as stored, without anchors"


def _version() -> str:
    try:
        return importlib.metadata.version("splatspace")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout that is not installed"
