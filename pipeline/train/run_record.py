"""What a run writes down about its model: the ``config`` of ``model.safetensors``, and what ``card.md`` quotes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

_PLACES = {"job": ("store", "out", "lpips_weights", "distil"), "store": ("path",)}
"""Fields that name files and folders, by part of the configuration."""


@dataclass(frozen=True)
class TrainedStore:
    """The store that was learned from.

    Attributes:
        path: of the store, or its URL.
        digest: of the rows.
        identity: of the header.
        source: plain fields of the header's ``SourceRecord``.
        images: learned from.
        unfinished: rows that were not done, and not used.
        unfinished_named: the first of them.
        held_out: images held out for evaluation.
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
        store: learned from.
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
        """The same as plain values, as they are published: of files and folders their names."""
        return without_places(asdict(self))


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it may leave this machine: of files and folders only their names.

    Where they are is said by the state that a training goes on from (``pipeline.train.state``).

    Args:
        config: of ``model.safetensors``; older ones hold whole paths.
    """

    def named(part: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
        return {**part, **{name: re.split(r"[/\\]", str(part[name]))[-1] for name in fields if part.get(name)}}

    return {**config, **{part: named(config[part], fields) for part, fields in _PLACES.items() if part in config}}
