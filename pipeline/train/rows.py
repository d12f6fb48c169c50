"""The rows of a store that are learned from: each image once, some held out, in the model's order and features."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Tensor

from data_schemas.errors import JobError, StoreMismatchError, TrainingError
from data_schemas.records import StoreHeader
from data_schemas.splats import ADDITIVE, NORMALISED, OVER, Layout
from data_schemas.stores.contract import SplatStore, blocks
from encoders.start.begin import anchors as grid_anchors
from models.base import DataSpec
from models.features.pixels import PixelRepresentation
from models.features.slots import SlotStatistics, slot_statistics
from models.features.splats import SplatRepresentation
from models.registry import ModelEntry, model_named
from pipeline.encode.rows import UnfinishedRows, find_unfinished_rows
from pipeline.finite_splats import require_finite
from pipeline.format import describe_limit
from pipeline.store_images import content_identities
from pipeline.train.class_labels import ClassLabels
from pipeline.train.job import TrainJob

logger = logging.getLogger("splatspace.train")


MOST_NAMED = 20

FEWEST_IMAGES = 2
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class DataSplit:
    """Row numbers, ascending.

    Attributes:
        training: to learn from.
        held_out: held out.
        repeats: rows whose pixels an earlier row has; in neither of the others.
    """

    training: NDArray[np.int64]
    held_out: NDArray[np.int64]
    repeats: NDArray[np.int64]


def split_rows(rows: NDArray[np.int64], hashes: NDArray[np.uint8], *, distinct: bool, held_out: float) -> DataSplit:
    """Splits rows by the contents of their images, whatever their order: an image is on the same side in any store.

    Args:
        rows: int64 [image], ascending.
        hashes: uint8 [image, byte], of each what ``content_identities`` gives.
        distinct: leave out rows that repeat an earlier one.
        held_out: share to keep apart, below 1.
    """
    keys = np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}").ravel() if len(hashes) else np.empty(0, "V16")
    first = np.zeros(len(rows), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    kept = first if distinct else np.ones(len(rows), bool)
    share = np.ascontiguousarray(hashes[:, :8]).view("<u8").ravel() / 2.0**64
    apart = share < held_out
    return DataSplit(rows[kept & ~apart], rows[kept & apart], rows[~kept])


def order_by_anchors(splats: NDArray[Any], layout: Layout, anchors: NDArray[Any]) -> NDArray[Any]:
    """Gives every anchor one Gaussian of each image so that the squared distances sum to the least (Hungarian).

    Args:
        splats: [image, gaussian, parameter] in ``layout``.
        layout: the columns of ``splats``.
        anchors: [gaussian, 2] of (x, y).

    Returns:
        The same splats in another order; those of an image show the same image if they are summed.
    """
    centres = splats[..., [layout.index("x"), layout.index("y")]].astype(np.float64)
    ordered = np.empty_like(splats)
    for image, points in enumerate(centres):
        chosen = linear_sum_assignment(cdist(anchors, points, "sqeuclidean"))[1]
        ordered[image] = splats[image, chosen]
    return ordered


@dataclass(frozen=True)
class Slots:
    """What the index of a Gaussian means to the model.

    Attributes:
        anchors: [gaussian, 2]; None where it means nothing, or no anchors are known.
        reorder: whether every image is first brought into the order of the anchors.
    """

    anchors: NDArray[np.float32] | None
    reorder: bool


def slots_for(job: TrainJob, header: StoreHeader, entry: ModelEntry) -> Slots:
    """Decides the order of the Gaussians.

    Raises:
        JobError: a store of images only, a model with slots for a store without them, or an order that would change
            the images.
    """
    if entry.draws:
        return _choose_slots(job, header)
    if job.kind == "pixels":
        return Slots(None, False)
    if header.gaussians == 0:
        raise JobError(
            f"train {job.kind} with {job.store}, which holds images only",
            allowed="a store with Gaussians, or train pixels and train cats",
            next_step="encode the images with --gaussians 1 or more, or train pixels",
        )
    ordered_codec = header.codec == OVER
    if not entry.needs_slots:
        if ordered_codec:
            raise JobError(
                f"Model {job.model} knows no order, and codec {header.codec} lays Gaussians over each other in theirs",
                allowed="a model with slots, or a store whose Gaussians are summed",
                next_step="give --model splatdit",
            )
        if job.order == "anchors":
            raise JobError(f"--order anchors with model {job.model}, which knows no slots", allowed="--order auto")
        return Slots(None, False)
    stored = None if header.anchors is None else np.array(header.anchors, np.float32)
    if job.order == "anchors":
        if ordered_codec:
            raise JobError(
                f"--order anchors with codec {header.codec}, where the order is what lies in front",
                allowed="a store whose Gaussians are summed",
                next_step="encode again with --start transport",
            )
        return Slots(grid_anchors(header.gaussians, header.height, header.width) if stored is None else stored, True)
    if stored is None and job.order == "auto":
        raise JobError(
            f"{job.store} has no slot identity (start {header.start or 'unknown'}): index i means another place in "
            f"every image, which model {job.model} cannot learn from",
            allowed="a store encoded with --start transport or grid",
            next_step="encode it again so; second best: --order anchors gives every image the order of a grid; "
            "or --model set, which needs no order",
        )
    if stored is None:
        logger.warning("The store has no slot identity; its order is taken as it is, which learns badly.")
    return Slots(stored, False)


def _choose_slots(job: TrainJob, header: StoreHeader) -> Slots:
    """The slots of a model that draws Gaussians: the store's anchors, or regular ones where it has none."""
    if not header.gaussians:
        raise JobError(
            f"{job.store} holds images only, and model {job.model} answers with as many Gaussians as its store has",
            allowed="a store of splats",
            next_step="encode it with --gaussians K, or train pixels and sample with --splats --gaussians K",
        )
    if header.codec == OVER:
        raise JobError(
            f"Model {job.model} with codec {header.codec}, whose rendering is not differentiable here",
            allowed=f"{ADDITIVE} or {NORMALISED}",
            next_step="encode it with another --codec",
        )
    if header.anchors is not None:
        return Slots(np.array(header.anchors, np.float32), False)
    logger.warning("%s has no anchors: regular ones are made, and its own splats are not learned from", job.store)
    return Slots(grid_anchors(header.gaussians, header.height, header.width), False)


class TrainingRows:
    """Finished rows of an open store: what they are, and their stored numbers by position.

    Args:
        store: open for reading; stays open as long as rows are read.
        job: what to train.
        before: state of the training that goes on, whose classes stay; None for one that begins.

    Attributes:
        rows: int64 [image], row numbers in the store.
        labels: int64 [image] as stored, -1 where there is none.
        unfinished: rows that are not done and therefore not used.
        split: those held out for evaluation, and those that repeat others.
        repeats_named: the first of those that repeat others.
        class_labels: that the model is conditioned on; none of them where it is not.

    Raises:
        JobError: see ``slots_for``; labels asked for that are not there.
        StoreMismatchError: a store without images for pixels, or other rows than those that ``before`` began with.
        TrainingError: too few finished images.
    """

    def __init__(self, store: SplatStore, job: TrainJob, *, before: Mapping[str, Any] | None = None) -> None:
        self.store, self.job, self.header = store, job, store.header
        self.entry = model_named(job.model)
        self.slots = slots_for(job, self.header, self.entry)
        if "image" not in store.arrays and (self.entry.sees == "pixels" or job.render_loss):
            raise StoreMismatchError(
                f"{store.path} holds no source images",
                allowed="a store encoded with images",
                next_step="encode it again without --no-images"
                + (", or give --model splatdit, which learns from splats alone" if self.entry.draws else ""),
            )
        done = store.finished_rows()
        contents = content_identities(store, done)
        self.unfinished: UnfinishedRows = find_unfinished_rows(store, blocks(len(store), self.header.block_rows))
        self.split = split_rows(done, contents, distinct=job.distinct, held_out=job.held_out)
        repeats = self.split.repeats[:MOST_NAMED].tolist()
        self.repeats_named: tuple[str, ...] = tuple(store.read(["source_id"], repeats)["source_id"]) if repeats else ()
        self.rows: NDArray[np.int64] = self.split.training[: job.limit]
        if len(self.rows) < FEWEST_IMAGES:
            raise TrainingError(
                f"{store.path} has {len(self.rows)} finished images to learn from"
                + (f"; not done: {self.unfinished}" if self.unfinished.count else ""),
                allowed=f"{FEWEST_IMAGES} or more",
                next_step="encode more images into it",
            )
        if self.unfinished.count:
            logger.warning("%d rows are not done and not used: %s", self.unfinished.count, self.unfinished)
        learnable = len(self.split.training)
        if beyond := describe_limit(job.limit, learnable, str(store.path), "images to learn from are used"):
            logger.warning("%s", beyond)
        if repeats:
            logger.warning("%d rows repeat others and are not used: %s", len(self.split.repeats), self.repeats_named)
        self.labels: NDArray[np.int64] = store.read(["label"])["label"][self.rows].astype(np.int64)
        self.digest = self._digest(contents[np.searchsorted(done, self.rows)])
        if before is not None:
            self._require_same(before)
        self.class_labels = self._class_labels(before)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> int:
        """How many labels the model is conditioned on."""
        return len(self.class_labels.numbers)

    def _require_same(self, before: Mapping[str, Any]) -> None:
        if before.get("digest", self.digest) != self.digest:
            raise StoreMismatchError(
                f"{self.job.store} is not what this training began with (other images, labels, rows or settings)",
                allowed="the same store, unchanged",
                next_step="train into another folder to learn from the store as it is now",
            )

    @cached_property
    def class_numbers(self) -> NDArray[np.int64]:
        """int64 [image], the class of each label, -1 where there is none."""
        return self.class_labels.classes(self.labels)

    def _class_labels(self, before: Mapping[str, Any] | None) -> ClassLabels:
        most, names = int(self.labels.max()), self.header.source.label_names
        if self.job.classes and most < 0:
            raise JobError(f"--classes, and {self.store.path} has no labels", allowed="--no-classes")
        if self.job.classes is False or most < 0 or not self.entry.takes_labels:
            return ClassLabels((), names)
        if before is None:
            return ClassLabels.occurring(self.labels, names)
        # Older states do not say it: they have a class for every number, up to the last label or name.
        numbers = before.get("labels", range(max(most + 1, len(names))))
        return ClassLabels(tuple(int(number) for number in numbers), names)

    def _digest(self, hashes: NDArray[np.uint8]) -> str:
        """Of what decides the latents: how they were encoded, of which images, with which labels, in which rows."""
        digest = hashlib.blake2b(json.dumps(self.header.identity(), sort_keys=True, default=str).encode())
        for values in (self.rows, self.labels, hashes):
            digest.update(np.ascontiguousarray(values).tobytes())
        return "blake2b:" + digest.hexdigest()[:32]

    def stored(self, positions: Sequence[int] | NDArray[np.int64] | slice) -> NDArray[Any]:
        """Splats [image, gaussian, parameter] in the model's order, or images uint8 [image, y, x, channel].

        Args:
            positions: indices into ``rows``.

        Raises:
            StoreCorruptError: splats that are not finite.
        """
        if self.entry.sees == "pixels":
            return self.images(positions)
        values = self.splats(positions)
        if self.slots.reorder and self.slots.anchors is not None:
            return order_by_anchors(values, self.header.splat_layout, self.slots.anchors)
        return values

    def splats(self, positions: Sequence[int] | NDArray[np.int64] | slice) -> NDArray[Any]:
        """Splats [image, gaussian, parameter] in the store's order.

        Raises:
            StoreCorruptError: splats that are not finite.
        """
        rows = self.rows[positions]
        values = self.store.read(["splats"], rows.tolist())["splats"]
        require_finite(values, rows, self.store)
        return values

    @cached_property
    def slot_statistics(self) -> SlotStatistics | None:
        """The usual Gaussians of a store with slot identity, for a model that draws; None for all others.

        Raises:
            StoreCorruptError: splats that are not finite.
        """
        if not self.entry.draws or self.header.anchors is None:
            return None
        return slot_statistics(self._portions(self.splats), self.header.splat_layout, self.header.colours)

    def images(self, positions: Sequence[int] | NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Source images uint8 [image, y, x, channel]."""
        return self.store.read(["image"], self.rows[positions].tolist())["image"]

    def chunks(self) -> Iterator[Tensor]:
        """All stored numbers, in portions of bounded size."""
        return self._portions(self.stored)

    def _portions(self, read: Callable[[slice], NDArray[Any]]) -> Iterator[Tensor]:
        for start in range(0, len(self), CHUNK_ROWS):
            yield torch.from_numpy(read(slice(start, start + CHUNK_ROWS)).astype(np.float32, copy=False))

    def representation(self) -> SplatRepresentation | PixelRepresentation:
        """A representation for these rows, without statistics."""
        header, wanted = self.header, self.job.normalisation
        if self.entry.sees == "pixels":
            return PixelRepresentation(
                height=header.height, width=header.width, channels=header.channels, normalisation=wanted or "minmax"
            )
        return SplatRepresentation(
            layout=header.layout,
            gaussians=header.gaussians,
            anchors=self.slots.anchors,
            colours=header.colours,
            covariance=self.job.covariance,
            normalisation=wanted or "whitened",
        )

    def fitted_representation(self) -> SplatRepresentation | PixelRepresentation:
        """A representation with the statistics of these rows."""
        result = self.representation()
        if isinstance(result, SplatRepresentation):
            return result.fit(self.chunks())
        return result.fit(chunk / 255 for chunk in self.chunks())

    def spec(self, representation: SplatRepresentation | PixelRepresentation) -> DataSpec:
        """What the network is built for."""
        header, usual = self.header, self.slot_statistics
        points = self.slots.anchors if usual is None else usual.centres
        splats = isinstance(representation, SplatRepresentation)
        return DataSpec(
            kind=self.entry.sees,
            gaussians=header.gaussians,
            features=representation.features if splats else 0,
            groups=2 if splats else 1,
            height=header.height,
            width=header.width,
            channels=header.channels,
            classes=self.classes,
            anchors=None if points is None else tuple((float(x), float(y)) for x, y in points),
            layout=header.layout if self.entry.draws else "",
            colours=header.colours if self.entry.draws else "bounded",
        )
