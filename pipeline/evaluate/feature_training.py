"""Small networks that learn, from a store's own originals, what its images are made of.

``classifier`` learns the labels. ``selfsup`` needs none: it learns to tell how an image was turned and shifted, and
to draw its thumbnail upright and in place, so that its features hold what is in the image. Both train on the CPU from
a fixed seed: the same store gives the same weights on the same machine.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import CheckpointError, EvaluationError
from data_schemas.files import cache_folder
from data_schemas.locations import Location
from data_schemas.stores.contract import SplatStore
from models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.store_images import content_identities, labels, originals
from pipeline.train.class_labels import ClassLabels

logger = logging.getLogger("splatspace.evaluate")

TrainedName = Literal["classifier", "selfsup"]

DIMENSION = 64
"""Features per image."""

MOST_IMAGES = 20_000
"""Images that are learned from; a seeded choice where the store has more."""

_RECIPE = 1
_STEPS, _BATCH, _RATE = 500, 96, 2e-3
_SEED = 20_240_601
_THUMBNAIL = 8
_TURNS, _SHIFTS = 4, 3
_FEWEST = 20


class FeatureNetwork(nn.Module):
    """Three strided convolutions (four for images of 48 pixels and more) and a linear layer to ``DIMENSION``.

    Args:
        channels: colours of an image.
        side: longer side of an image in pixels.
        answers: numbers that the head gives.
    """

    def __init__(self, channels: int, side: int, answers: int) -> None:
        super().__init__()
        widths = [channels, *([16] if side >= 48 else []), 32, 64, 128]
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.GroupNorm(8, wide), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], DIMENSION))
        self.head = nn.Linear(DIMENSION, answers)

    def features(self, images: Tensor) -> Tensor:
        """Features [image, ``DIMENSION``] of uint8 [image, channel, row, column]."""
        return self.body(images.float() / 127.5 - 1)

    def forward(self, images: Tensor) -> Tensor:
        """What the head answers."""
        return self.head(functional.silu(self.features(images)))


@dataclass(frozen=True)
class TrainedFeatures:
    """A network with what is known of it.

    Attributes:
        network: in evaluation mode.
        sha: BLAKE2b of the weights, 16 hexadecimal digits.
        facts: what it learned from, and how well: ``accuracy`` on images that it had not seen.
    """

    network: FeatureNetwork
    sha: str
    facts: dict[str, Any]


def features_folder(store: Location) -> Path:
    """``NAME-features`` beside the store ``NAME.zarr``; for stores on object storage, in the user's cache."""
    if isinstance(store, Path):
        return store.with_name(store.stem + "-features")
    return cache_folder() / "features" / store.stem


def load_or_train_features(name: TrainedName, store: SplatStore, *, folder: Path | None = None) -> TrainedFeatures:
    """The network of a store: from its cache, or trained now and kept there.

    Args:
        name: what it learns.
        store: with source images.
        folder: of the cache; None takes :func:`features_folder`.

    Raises:
        EvaluationError: no source images, too few of them, or no labels for a ``classifier``.
    """
    rows = _choose(store.finished_rows())
    if len(rows) < _FEWEST:
        raise EvaluationError(
            f"{len(rows)} finished images in {store.path} to learn features from", allowed=f"{_FEWEST} or more"
        )
    header = store.header
    identity: dict[str, Any] = {
        "recipe": _RECIPE,
        "name": name,
        "source": [header.source.name, header.source.split, header.source.digest],
        "size": [header.channels, header.height, header.width],
        "content": _digest(content_identities(store, rows)),
    }
    if name == "classifier" and not ClassLabels.occurring(labels(store, rows)).plain:
        identity["answers"] = "labels that occur"  # networks were kept that answer every number up to the largest
    path = (folder or features_folder(store.path)) / f"{name}-{_digest_text(identity)}.safetensors"
    cached = _from_cache(path, identity)
    if cached is not None:
        return cached
    images = originals(store, rows)
    answers = _Labels(labels(store, rows), str(store.path)) if name == "classifier" else _Pretext(images.shape[1])
    network, facts = _train(images, answers)
    trained = TrainedFeatures(network, _sha(network), {**facts, "images": len(rows)})
    _keep(path, trained, identity)
    return trained


def _choose(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(rows) <= MOST_IMAGES:
        return rows
    return np.sort(np.random.default_rng(_SEED).choice(rows, MOST_IMAGES, replace=False))


class _Labels:
    """The task of a classifier."""

    def __init__(self, numbers: NDArray[np.int64], where: str) -> None:
        if (numbers < 0).any() or len(np.unique(numbers)) < 2:
            raise EvaluationError(
                f"{where} has no labels for every image, or only one",
                allowed="features selfsup or inception",
                next_step="leave --features out, or ask for --features selfsup",
            )
        # Answers are classes: labels need not count from 0.
        self.labels = ClassLabels.occurring(numbers)
        self.numbers = torch.from_numpy(self.labels.classes(numbers))
        self.answers = len(self.labels.numbers)

    def prepared(self, images: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return images[rows], self.numbers[rows]

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        return functional.cross_entropy(answer, truth)

    def right(self, answer: Tensor, truth: Tensor) -> Tensor:
        return answer.argmax(dim=1) == truth


class _Pretext:
    """The task without labels: turn, shift in each direction, and the thumbnail as it was before both."""

    def __init__(self, channels: int) -> None:
        self.answers = _TURNS + 2 * _SHIFTS + channels * _THUMBNAIL**2

    def prepared(self, images: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = images[rows]
        size = (len(rows),)
        # Images that are not square are only turned upside down: a quarter turn would change their shape.
        square = chosen.shape[2] == chosen.shape[3]
        turn = (
            torch.randint(0, _TURNS, size, generator=generator)
            if square
            else (2 * torch.randint(0, 2, size, generator=generator))
        )
        shifts = torch.randint(0, _SHIFTS, (len(rows), 2), generator=generator)
        thumbnail = functional.adaptive_avg_pool2d(chosen.float() / 127.5 - 1, _THUMBNAIL).flatten(1)
        step = [max(1, side // 8) for side in chosen.shape[2:]]
        moved = torch.stack(
            [
                torch.rot90(image, int(quarter), (1, 2)).roll(
                    (int(down - 1) * step[0], int(right - 1) * step[1]), (1, 2)
                )
                for image, quarter, (down, right) in zip(chosen, turn, shifts, strict=True)
            ]
        )
        return moved, torch.cat([turn[:, None].float(), shifts.float(), thumbnail], dim=1)

    def loss(self, answer: Tensor, truth: Tensor) -> Tensor:
        turn, down, right, thumbnail = answer.split(
            [_TURNS, _SHIFTS, _SHIFTS, answer.shape[1] - _TURNS - 2 * _SHIFTS], dim=1
        )
        named = [(turn, truth[:, 0]), (down, truth[:, 1]), (right, truth[:, 2])]
        guessed = sum(
            (functional.cross_entropy(logits, number.long()) for logits, number in named), truth.new_zeros(())
        )
        return guessed + 4 * functional.mse_loss(thumbnail, truth[:, 3:])

    def right(self, answer: Tensor, truth: Tensor) -> Tensor:
        return answer[:, :_TURNS].argmax(dim=1) == truth[:, 0]


def _train(images: Tensor, task: _Labels | _Pretext) -> tuple[FeatureNetwork, dict[str, Any]]:
    generator = torch.Generator().manual_seed(_SEED)
    order = torch.randperm(len(images), generator=generator)
    held = order[: max(1, min(1000, len(order) // 10))]
    learned = order[len(held) :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = FeatureNetwork(images.shape[1], max(images.shape[2:]), task.answers)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        rows = learned[torch.randint(0, len(learned), (min(_BATCH, len(learned)),), generator=generator)]
        inputs, truth = task.prepared(images, rows, generator)
        optimiser.zero_grad()
        task.loss(network(inputs), truth).backward()
        optimiser.step()
        schedule.step()
    network.eval().requires_grad_(False)
    inputs, truth = task.prepared(images, held, generator)
    accuracy = float(task.right(network(inputs), truth).float().mean())
    logger.info("Features learned from %d images: accuracy %.3f on %d others", len(learned), accuracy, len(held))
    return network, {"accuracy": round(accuracy, 4), "held_out": len(held), "steps": _STEPS, "answers": task.answers}


def _from_cache(path: Path, identity: dict[str, Any]) -> TrainedFeatures | None:
    if not path.exists():
        return None
    try:
        kept = load_checkpoint(path)
        channels, height, width = identity["size"]
        network = FeatureNetwork(channels, max(height, width), int(kept.config["facts"]["answers"]))
        kept.load_into(network)
    except (CheckpointError, KeyError, TypeError) as error:
        logger.warning("Features are learned again, the ones that were kept cannot be read: %s", error)
        return None
    network.eval().requires_grad_(False)
    return TrainedFeatures(network, _sha(network), kept.config["facts"])


def _keep(path: Path, trained: TrainedFeatures, identity: dict[str, Any]) -> None:
    config = {"kind": "features", "identity": identity, "facts": trained.facts, "sha": trained.sha}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, trained.network, config)
    except (CheckpointError, OSError) as error:
        logger.warning("The features could not be kept for the next time: %s", error)


def _sha(network: nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(values: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()


def _digest_text(values: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=8).hexdigest()
