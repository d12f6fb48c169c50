"""A trained generator, ready to be sampled from: everything comes from ``RUN/model.safetensors``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_schemas.errors import CheckpointError, JobError, SamplingError, SplatSpaceError, StoreMismatchError
from data_schemas.records import StoreHeader
from data_schemas.splats import CODECS, CodecName
from encoders.decode import decode, to_uint8
from models.base import DataKind, DataSpec, Denoiser
from models.checkpoint import load_checkpoint
from models.diffusion.objectives import Objective
from models.features.pixels import PixelRepresentation, representation_from
from models.features.splats import SplatRepresentation
from models.networks.render_dit import RenderDiT
from models.registry import build_model
from pipeline.devices import choose_device
from pipeline.hub.download import local_run
from pipeline.renderers import with_renderers
from pipeline.train.class_labels import ClassLabels
from pipeline.train.state import MODEL_FILE, representation_tensors, run_folder

UNBUILDABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SplatSpaceError,
    TypeError,
    ValueError,
)
"""What it may be that a network cannot be built from a configuration that this program did not write."""


@dataclass(frozen=True)
class Run:
    """A generator and what turns its answers into images.

    Attributes:
        path: folder of the run.
        model: the network with the weights to sample from, in evaluation mode.
        objective: that it was trained with.
        representation: between features and stored numbers, on the CPU.
        spec: the data that the network is built for.
        codec: renders the splats; None for pixel models.
        label_names: of the data set's labels, by label, as far as they have names.
        config: the whole header of the checkpoint.
    """

    path: Path
    model: Denoiser
    objective: Objective
    representation: SplatRepresentation | PixelRepresentation
    spec: DataSpec
    codec: CodecName | None
    label_names: tuple[str, ...]
    config: dict[str, Any]

    @property
    def splats(self) -> SplatRepresentation:
        """The representation of a generator of splats.

        Raises:
            SamplingError: it generates pixels.
        """
        if isinstance(self.representation, SplatRepresentation):
            return self.representation
        raise SamplingError(
            f"{self.path} generates pixels, not splats",
            allowed="a run of splatspace train splats",
            next_step="leave the option out, or sample from another run",
        )

    @property
    def labels(self) -> ClassLabels:
        """The label that each class of the network stands for."""
        # Older runs do not say it: theirs count from 0.
        numbers = self.config.get("labels", range(self.objective.classes))
        return ClassLabels(tuple(int(number) for number in numbers), self.label_names)

    @property
    def draws(self) -> bool:
        """Whether it looks at pixels and answers with Gaussians."""
        return isinstance(self.model, RenderDiT)

    @property
    def makes(self) -> DataKind:
        """What comes of it: splats also where it looks at pixels."""
        return "splats" if self.draws or isinstance(self.representation, SplatRepresentation) else "pixels"

    @property
    def reorders(self) -> bool:
        """Whether stored splats were brought into the order of the anchors before the network saw them."""
        return self.config["job"]["order"] == "anchors"

    def stored(self, features: torch.Tensor) -> NDArray[np.float32]:
        """Splats [image, gaussian, parameter] or pixels [image, row, column, channel] of clean features."""
        return self.representation.decode(features.detach().float().cpu()).numpy()

    def size_of(self, size: int | None) -> tuple[int, int]:
        """Rows and columns of images with ``size`` pixels on the longer side; None takes the training images'."""
        longer = max(self.spec.height, self.spec.width)
        share = (size or longer) / longer
        return max(1, round(self.spec.height * share)), max(1, round(self.spec.width * share))

    def rendered(self, stored: NDArray[Any], size: int | None = None) -> NDArray[np.uint8]:
        """What :meth:`stored` gives as images.

        Args:
            stored: splats or pixels.
            size: pixels of the longer side; None takes that of the training images. Splats are decoded at that
                size, pixels are enlarged by repeating them.

        Returns:
            uint8 [image, row, column, channel].

        Raises:
            JobError: a size for pixels that is no multiple of their own.
        """
        longer = max(self.spec.height, self.spec.width)
        if isinstance(self.representation, SplatRepresentation):
            height, width = self.size_of(size)
            assert self.codec is not None
            layout = self.representation.layout
            return to_uint8(decode(stored, layout=layout, codec=self.codec, height=height, width=width))
        factor, rest = divmod(size or longer, longer)
        if rest or not factor:
            raise JobError(
                f"--size {size} of a generator of pixels, whose images have {longer}",
                allowed=f"multiples of {longer} (each pixel is repeated)",
                next_step="leave --size out; only splats can be rendered at any size",
            )
        return to_uint8(stored).repeat(factor, axis=1).repeat(factor, axis=2)

    def require_guidable(self, guidance: float, *, label: bool = True) -> None:
        """Refuses guidance where there is no label to follow.

        Args:
            guidance: 1 for none.
            label: whether images are made for labels.

        Raises:
            SamplingError: a generator that was trained without labels, or with labels that were never withheld.
        """
        facts = self.objective.classes, self.objective.settings.label_drop, label
        if guidance != 1 and not all(facts):
            raise SamplingError(
                f"--guidance {guidance:g} without a label to follow",
                allowed="1, or a label and a run that was trained with labels, some of them withheld",
                next_step="leave --guidance out",
            )

    def require_same_size(self, header: StoreHeader, path: object) -> None:
        """Refuses a store of images of another size.

        Raises:
            StoreMismatchError: another height, width or number of channels.
        """
        self._require(header, path, splats=False)

    def require_same_data(self, header: StoreHeader, path: object) -> None:
        """Refuses a store that the network cannot read.

        Raises:
            StoreMismatchError: another codec, layout, number of Gaussians or size.
        """
        self._require(header, path, splats=True)

    def _require(self, header: StoreHeader, path: object, *, splats: bool) -> None:
        spec = self.spec
        found: dict[str, Any] = {"height": header.height, "width": header.width, "channels": header.channels}
        wanted: dict[str, Any] = {"height": spec.height, "width": spec.width, "channels": spec.channels}
        if splats and isinstance(self.representation, SplatRepresentation):
            found |= {"codec": header.codec, "layout": header.layout, "gaussians": header.gaussians}
            wanted |= {"codec": self.codec, "layout": self.representation.layout.name, "gaussians": spec.gaussians}
        differing = [name for name, value in wanted.items() if found[name] != value]
        if differing:
            raise StoreMismatchError(
                f"{path} has " + ", ".join(f"{name} {found[name]}" for name in differing),
                allowed=", ".join(f"{name} {wanted[name]}" for name in differing) + f" as {self.path} was trained on",
                next_step="give a store encoded with the same settings as the one that the run was trained on",
            )

    def require_known_labels(self, labels: NDArray[np.int64], path: object, names: Sequence[str] = ()) -> None:
        """Refuses a store with labels that the network did not learn.

        Args:
            labels: int64 [image], -1 where there is none.
            path: of the store.
            names: of the store's labels, by label.

        Raises:
            StoreMismatchError: labels that no class stands for; they are named.
        """
        known = self.labels
        unknown = known.unknown(labels) if known.numbers else ()
        if unknown:
            images = int(np.isin(labels, unknown).sum())
            named = ClassLabels((), tuple(names)).words(unknown)
            raise StoreMismatchError(
                f"{path} has labels that {self.path} did not learn: {named} ({images:,} images)",
                allowed=f"labels {known.words(known.numbers)}",
                next_step="give the store that the run was trained on, or train a run on this one",
            )


def load_run(path: str | os.PathLike[str], *, device: str = "auto") -> Run:
    """Reads a run.

    Args:
        path: folder of the run, its ``model.safetensors``, or ``hf://USER/NAME``, which is downloaded into the cache.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        The generator on that device.

    Raises:
        CheckpointError: missing, damaged, or of another kind of network.
        HubError: a URL of the hub that names no run, or a hub that cannot be reached.
        JobError: a device that is not there, or no library of the hub.
    """
    given = local_run(path)
    file = given / MODEL_FILE if run_folder(given) == given else given
    checkpoint = load_checkpoint(file)
    config = checkpoint.config
    try:
        spec = DataSpec.from_dict(config["data"])
        model = with_renderers(
            build_model(config["model"], config["preset"], spec, **config["changes"]), str(config["codec"])
        )
        representation = representation_from(config["representation"], representation_tensors(checkpoint))
        objective = Objective.from_config(config["objective"], anchors=spec.anchors)
        codec = config["codec"] if spec.kind == "splats" else None
        if spec.kind == "splats" and codec not in CODECS:
            raise CheckpointError(f"{file} makes splats of codec {codec!r}", allowed=", ".join(CODECS))
        names = tuple(str(name) for name in config["label_names"])
        # What is asked for later on: after long work it would be too late to miss it.
        _ = config["colours"], config["store"]["identity"]["start"], config["store"]["source"]["name"]
        _ = [config["job"][name] for name in ("order", "batch", "ema", "seed")]
        _ = [config["store"][name] for name in ("path", "images", "order")]
    except CheckpointError:
        raise
    except UNBUILDABLE as error:
        raise CheckpointError(
            f"{file} describes no generator that can be built: {error}",
            allowed="the model.safetensors of splatspace train",
            next_step="give the folder of a run",
        ) from error
    checkpoint.load_into(model)
    run = Run(file.parent, model, objective, representation, spec, codec, names, config)
    _require_label_for_each_class(run, file)
    model.eval().requires_grad_(False).to(choose_device(device))
    return run


def _require_label_for_each_class(run: Run, file: Path) -> None:
    classes = run.objective.classes
    try:
        numbers = run.labels.numbers
        sound = len(numbers) == classes and list(numbers) == sorted({number for number in numbers if number >= 0})
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise CheckpointError(
            f"{file} does not say what its {classes} classes stand for",
            allowed="an ascending label for each class",
            next_step="give the folder of a run",
        )
