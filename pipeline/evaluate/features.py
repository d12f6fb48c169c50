"""Features of images behind one small protocol: what every metric of ``pipeline.evaluate.metrics`` is measured in.

``inception`` has the weights with which published FIDs are measured, ``classifier`` and ``selfsup`` are learned from
the store itself and need no network. One never stands in for another: what cannot be had is an error.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.hub import get_dir

from data_schemas.errors import EvaluationError
from data_schemas.files import cache_folder
from data_schemas.stores.contract import SplatStore
from pipeline.evaluate.feature_training import DIMENSION, TrainedFeatures, load_or_train_features
from pipeline.evaluate.job import FeatureName
from pipeline.sources.download import RemoteFile, fetch
from pipeline.store_images import labels

logger = logging.getLogger("splatspace.evaluate")

INCEPTION_VARIABLE = "SPLATSPACE_INCEPTION_WEIGHTS"
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION = RemoteFile(
    f"inception/{INCEPTION_FILE}",
    (
        f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    most_bytes=200 << 20,
    option=f"--weights or ${INCEPTION_VARIABLE}",
)
"""Of torch-fidelity; 91 MiB. pytorch-fid publishes the same bytes under another name."""

_INCEPTION_DIMENSION = 2048
_IMAGES_AT_ONCE = 256

SCORED_SETS = ("cifar10",)
"""Sets of photographs, on which the inception score of ImageNet's classes means something."""


class FeatureExtractor(Protocol):
    """Images in, features out.

    Attributes:
        name: ``classifier``, ``selfsup`` or ``inception``.
        sha: hash of the weights: two numbers with the same name and hash can be compared.
        dimension: features per image.
        facts: what is known of it, for the report.
    """

    name: str
    sha: str
    dimension: int
    facts: dict[str, Any]

    def forward(self, images: Tensor) -> Tensor:
        """Features float32 [image, ``dimension``] of uint8 [image, channel, row, column]."""
        ...

    def logits(self, images: Tensor) -> Tensor | None:
        """Answers float32 [image, class] for the inception score; None where they would mean nothing."""
        ...


class LearnedExtractor:
    """A network that was learned from the store.

    Args:
        name: ``classifier`` or ``selfsup``.
        trained: the network and what is known of it.
    """

    def __init__(self, name: str, trained: TrainedFeatures) -> None:
        self.name = name
        self.sha = trained.sha
        self.dimension = DIMENSION
        self.facts = trained.facts
        self._network = trained.network

    def forward(self, images: Tensor) -> Tensor:
        """See :class:`FeatureExtractor`."""
        return _in_parts(self._network.features, images)

    def logits(self, images: Tensor) -> Tensor | None:
        """The classifier's answers."""
        return _in_parts(self._network, images) if self.name == "classifier" else None


class InceptionExtractor:
    """The network of published FIDs, in torchmetrics' wrapping of torch-fidelity's port.

    Args:
        weights: the file of weights.
        scored: whether its ImageNet classes mean something for these images.

    Raises:
        EvaluationError: torch-fidelity is not installed, or the file holds other weights.
    """

    name = "inception"
    dimension = _INCEPTION_DIMENSION

    def __init__(self, weights: Path, *, scored: bool) -> None:
        self.sha = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
        self.facts: dict[str, Any] = {"weights": weights.name}
        self._network = _inception(weights, "2048")
        self._classes = _inception(weights, "logits_unbiased") if scored else None

    def forward(self, images: Tensor) -> Tensor:
        """See :class:`FeatureExtractor`."""
        return _in_parts(self._network, _as_rgb(images))

    def logits(self, images: Tensor) -> Tensor | None:
        """ImageNet's classes, for photographs."""
        return None if self._classes is None else _in_parts(self._classes, _as_rgb(images))


def _as_rgb(images: Tensor) -> Tensor:
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def _inception(weights: Path, output: str) -> nn.Module:
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3

        return NoTrainInceptionV3("inception-v3-compat", [output], str(weights)).eval()
    except ImportError as error:
        raise EvaluationError(
            f"Inception features need torch-fidelity, which cannot be imported ({error})",
            allowed="features classifier or selfsup without it",
            next_step="install splatspace[eval], with a torchvision from the same place as your torch",
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError, KeyError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise EvaluationError(
            f"{weights} could not be used as the weights of the Inception network ({first})",
            allowed=INCEPTION_FILE,
            next_step=f"download {INCEPTION.urls[0]}",
        ) from error


def inception_weights(path: Path | None = None) -> Path:
    """The file of Inception's weights: what is named, torch's copy, or the cache, where it is downloaded once.

    Args:
        path: the file, or the folder that holds ``weights-inception-2015-12-05-6726825d.pth``; None: the variable
            ``SPLATSPACE_INCEPTION_WEIGHTS`` where it is set. What is named is never downloaded.

    Raises:
        EvaluationError: what was named is not there.
        DownloadError: the weights could not be downloaded.
    """
    named = path or (Path(os.environ[INCEPTION_VARIABLE]) if os.environ.get(INCEPTION_VARIABLE) else None)
    if named is not None:
        weights = named / INCEPTION_FILE if named.is_dir() else named
        if not weights.is_file():
            raise EvaluationError(
                f"No weights of the Inception network at {weights}",
                allowed=f"the file {INCEPTION_FILE}, or its folder",
                next_step=f"correct --weights or ${INCEPTION_VARIABLE}; with neither, the weights are downloaded",
            )
        return weights
    copy = _copy_of_torch()
    if copy is not None:
        return copy
    target = cache_folder() / INCEPTION.name
    if not target.is_file():
        logger.warning("The weights of Inception are downloaded, 91 MiB, once, to %s", target)
    return fetch(INCEPTION)


def _copy_of_torch() -> Path | None:
    """What torch downloaded for another program, where it is whole and the same."""
    copy = Path(get_dir()) / "checkpoints" / INCEPTION_FILE
    if not copy.is_file():
        return None
    with copy.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if f"sha256:{digest}" != INCEPTION.checksum:
        logger.warning("%s is not used: its checksum is wrong", copy)
        return None
    return copy


def _in_parts(network: Any, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([network(part).float() for part in images.split(_IMAGES_AT_ONCE)])


def build_extractor(
    name: FeatureName, store: SplatStore, *, weights: Path | None = None, cache: Path | None = None
) -> FeatureExtractor:
    """The extractor of that name.

    Args:
        name: ``auto`` takes ``classifier`` where every image has a label, else ``selfsup``.
        store: what the learned ones learn from.
        weights: of ``inception``; see :func:`inception_weights`.
        cache: folder of the learned ones; None keeps them beside the store.

    Raises:
        EvaluationError: it cannot be had.
        DownloadError: the weights of ``inception`` could not be downloaded.
    """
    if name == "inception":
        return InceptionExtractor(inception_weights(weights), scored=store.header.source.name in SCORED_SETS)
    if name == "auto":
        numbers = labels(store, store.finished_rows())
        name = "classifier" if len(numbers) and (numbers >= 0).all() and len(set(numbers.tolist())) > 1 else "selfsup"
    if name not in ("classifier", "selfsup"):
        raise EvaluationError(f"Features {name!r}", allowed="auto, classifier, selfsup, inception")
    return LearnedExtractor(name, load_or_train_features(name, store, folder=cache))
