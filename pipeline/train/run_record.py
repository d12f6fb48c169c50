"""What a run writes down about its model: the ``config`` of ``model.safetensors``, and what ``card.md`` quotes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrainedStore:
    """The store that was learnt from.

    Attributes:
        path: of the store, or its URL.
        digest: of the rows.
        identity: of the header.
        source: plain fields of the header's ``SourceRecord``.
        images: learnt from.
        unfinished: rows that were not done, and not used.
        unfinished_named: the first of them.
        held_out: images kept apart for evaluation.
        repeats: rows whose pixels an earlier row has, left out.
        repeats_named: the first of them.
        order: of the Gaussians, in words.
    """

    path: str
    digest: str
    identity: dict[str, Any]
    source: dict[str, Any]
    images: int
    unfinished: int
    unfinished_named: list[str]
    held_out: int
    repeats: int
    repeats_named: list[str]
    order: str


@dataclass(frozen=True)
class RunRecord:
    """The record of a run; its fields and their order are those of the file.

    Attributes:
        model: name of the network.
        preset: its size.
        changes: to the preset.
        data: plain fields of the network's ``DataSpec``.
        representation: how stored numbers become features.
        objective: name, classes and settings of the loss.
        codec: of the store.
        layout: of the store.
        colours: of the store.
        labels: number of each class.
        label_names: of the source.
        store: learnt from.
        job: plain fields of the ``TrainJob``.
        parameters: trainable numbers.
        gflop: billions of operations of one evaluation.
        plans: see ``pipeline.train.state.plans_of``.
        loss: mean of the last entry of the log; None before the first.
        precision: of the network.
        device: computed on.
        versions: of the programs.
        step: steps that are behind.
    """

    model: str
    preset: str
    changes: dict[str, Any]
    data: dict[str, Any]
    representation: dict[str, Any]
    objective: dict[str, Any]
    codec: str
    layout: str
    colours: str
    labels: list[int]
    label_names: list[str]
    store: TrainedStore
    job: dict[str, Any]
    parameters: int
    gflop: float
    plans: list[list[int]]
    loss: float | None
    precision: str
    device: str
    versions: dict[str, str]
    step: int

    def config(self) -> dict[str, Any]:
        """The same as plain values, as they are saved."""
        return asdict(self)
