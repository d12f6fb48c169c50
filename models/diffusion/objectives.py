"""What a network is trained to answer, and how a clean image is read from its answer.

With data x, noise e and z_t = a(t) x + b(t) e a network may predict x (``clean``), x - e (``velocity``) or e
(``epsilon``); each gives the others. Any path is the straight one up to scale: u = z / (a + b) lies at
t' = a / (a + b), where du/dt' = x - e.

The loss of ``clean`` is measured on the velocity, (x^ - x) / (1 - t), with 1 - t held above ``SMALLEST_NOISE``, unless
the settings say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data_schemas.errors import CheckpointError, JobError
from models.diffusion.noise_times import TimeDraw
from models.diffusion.objective_settings import OBJECTIVES, ObjectiveSettings, PathName
from models.diffusion.schedules import DiscretePath, Path, StraightPath
from models.features.splats import Anchors

RenderLoss = Callable[[Tensor, Tensor], Tensor]
"""(clean features [row, ...] as predicted, int64 [row] of the batch) -> weighted loss [row]."""

Answering = Callable[..., Tensor]
"""What answers to (noisy, time, label) as a ``Denoiser`` does."""

WITHDRAWN = ("rendering_weight", "splat_weight")
"""Settings that once were: where they were 0 a run is read without them."""

SMALLEST_NOISE = 0.05
SMALLEST_SIGNAL = 1e-3
"""Bounds of divisors: where there is next to no signal, predicted noise says nothing about the data."""


class Prediction(NamedTuple):
    """The two ends of the path through a noisy point, both of the shape of the data."""

    clean: Tensor
    noise: Tensor


class Objective:
    """A loss, and the reading of a network's answers.

    Args:
        settings: see there.
        groups: group of each feature on the last axis (``Representation.groups``).
        classes: labels; index ``classes`` means "no label".
        anchors: [gaussian, 2] for the boxes of ``models.diffusion.noise_times``; None where slots mean nothing.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        *,
        groups: tuple[int, ...] = (0,),
        classes: int = 0,
        anchors: Anchors | None = None,
    ) -> None:
        self.settings = settings
        self.groups = groups
        self.classes = classes
        self.training_path = self._path(settings.training_path)
        self.sampling_path = self._path(settings.sampling_path)
        self._group_index: dict[torch.device, Tensor] = {}
        points = None if anchors is None else torch.as_tensor(np.asarray(anchors), dtype=torch.float32)
        self._draw = TimeDraw(
            self.training_path,
            settings.time_mean,
            settings.time_deviation,
            settings.group_times,
            max(groups) + 1,
            points,
            settings.times == "uniform",
        )

    def _path(self, name: PathName) -> Path:
        if name == "straight":
            return StraightPath(0.02 if self.settings.target == "epsilon" else 0.0)
        return DiscretePath(name, self.settings.steps)

    @property
    def group_times(self) -> bool:
        """Whether networks are trained with parts given clean, so that known parts can be handed to them."""
        return self.settings.group_times > 0

    def spread(self, value: Tensor, like: Tensor) -> Tensor:
        """Brings a number per image, or per Gaussian and group, to where it multiplies features.

        Args:
            value: [image] or [image, gaussian, group].
            like: [image, ...] features.

        Returns:
            A tensor that broadcasts against ``like``.
        """
        if value.ndim == 1:
            return value.reshape(-1, *[1] * (like.ndim - 1))
        index = self._group_index.get(value.device)
        if index is None:
            index = self._group_index[value.device] = torch.tensor(self.groups, device=value.device)
        return value[..., index]

    def loss(
        self,
        model: nn.Module,
        clean: Tensor,
        label: Tensor | None,
        generator: torch.Generator,
        *,
        render_loss: RenderLoss | None = None,
    ) -> Tensor:
        """The training loss of a batch, with gradients.

        Args:
            model: a ``Denoiser``.
            clean: float [image, gaussian, feature] or [image, channel, row, column].
            label: int64 [image], negative where there is none; None for no labels.
            generator: the only source of chance; on the CPU or on the device of ``clean``.
            render_loss: an additional loss of the predicted clean features; see ``image_loss_from``.

        Returns:
            float32 [image]: the mean over the numbers that were not given clean.
        """
        clean = clean.float()
        gaussians = clean.shape[1] if clean.ndim == 3 else None
        time = self._draw(clean.shape[0], gaussians, generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)
        label = self._dropped(label, generator)
        shown = round(self.settings.shown_clean * len(clean))
        if shown:
            time = torch.cat([torch.ones_like(time[:shown]), time[shown:]])
            label = None if label is None else torch.cat([torch.full_like(label[:shown], self.classes), label[shown:]])
        signal, share = self._spread_path(self.training_path, time, clean)
        noisy = signal * clean + share * noise
        output = model(noisy, time, label).float()
        if self.settings.target == "clean":
            error = output - clean
            if self.settings.loss_space == "velocity":
                error = error / (share / (signal + share)).clamp_min(SMALLEST_NOISE)
        elif self.settings.target == "velocity":
            error = output - (clean - noise)
        else:
            error = output - noise
        wanted = (self.spread(time, clean) < 1).expand_as(clean).flatten(1)
        result = (error.square().flatten(1) * wanted).sum(dim=1) / wanted.sum(dim=1).clamp_min(1)
        if shown:  # nothing of them is left to predict: they were masked
            seen = error[:shown].square().flatten(1).mean(dim=1)
            result = torch.cat([self.settings.shown_weight * seen, result[shown:]])
        if render_loss is not None:
            moment = time.flatten(1).mean(dim=1) if time.ndim > 1 else time
            least = self.settings.image_loss_from
            rows = torch.nonzero(moment > least).flatten() if least else torch.arange(len(moment), device=moment.device)
            if len(rows):
                predicted = self._read(output, noisy, signal, share).clean
                weight = moment[rows] if least else torch.ones_like(moment)
                result = result.index_add(0, rows, weight * render_loss(predicted[rows], rows).float())
        return result

    def predict(
        self, model: Answering, noisy: Tensor, time: Tensor, label: Tensor | None = None, guidance: float = 1.0
    ) -> Prediction:
        """Both ends of the path through a noisy point, as the sampling schedule reads them.

        Args:
            model: a ``Denoiser``, or what answers like one.
            noisy: float [image, ...].
            time: [image] or [image, gaussian, group].
            label: int64 [image], negative where there is none; None for no labels.
            guidance: of the answer with label against the answer without; 1 is the plain answer with label.

        Returns:
            Clean data and noise, float32 of the shape of ``noisy``.
        """
        output = self._guided(model, noisy, time, label, guidance).float()
        signal, share = self._spread_path(self.sampling_path, time, noisy)
        prediction = self._read(output, noisy, signal, share)
        limit = self.settings.clean_limit
        if not limit:
            return prediction
        clean = prediction.clean.clamp(-limit, limit)
        return Prediction(clean, (noisy - signal * clean) / share.clamp_min(1e-6))

    def clean(
        self, model: Answering, noisy: Tensor, time: Tensor, label: Tensor | None = None, guidance: float = 1.0
    ) -> Tensor:
        """The clean end of :meth:`predict`."""
        return self.predict(model, noisy, time, label, guidance).clean

    def _spread_path(self, path: Path, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.spread(path.signal(time), like), self.spread(path.noise(time), like)

    def _read(self, output: Tensor, noisy: Tensor, signal: Tensor, share: Tensor) -> Prediction:
        if self.settings.target == "clean":
            return Prediction(output, (noisy - signal * output) / share.clamp_min(1e-6))
        if self.settings.target == "velocity":
            total = signal + share
            return Prediction((noisy + share * output) / total, (noisy - signal * output) / total)
        return Prediction((noisy - share * output) / signal.clamp_min(SMALLEST_SIGNAL), output)

    def _known_label(self, label: Tensor | None) -> Tensor | None:
        if label is None or self.classes == 0:
            return None
        return torch.where(label < 0, self.classes, label)

    def _dropped(self, label: Tensor | None, generator: torch.Generator) -> Tensor | None:
        known = self._known_label(label)
        if known is None or self.settings.label_drop <= 0:
            return known
        chance = torch.rand(known.shape, generator=generator, device=generator.device).to(known.device)
        return torch.where(chance < self.settings.label_drop, self.classes, known)

    def _guided(self, model: Answering, noisy: Tensor, time: Tensor, label: Tensor | None, guidance: float) -> Tensor:
        known = self._known_label(label)
        if known is None or guidance == 1:
            return model(noisy, time, known)
        pair = torch.cat([known, torch.full_like(known, self.classes)])
        answers = model(torch.cat([noisy, noisy]), torch.cat([time, time]), pair)
        with_label, without = answers.float().chunk(2)
        return without + guidance * (with_label - without)

    def config(self) -> dict[str, Any]:
        """Plain values from which ``from_config`` rebuilds this objective (all but the anchors)."""
        return {**asdict(self.settings), "groups": list(self.groups), "classes": self.classes}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, anchors: Anchors | None = None) -> Objective:
        """The objective that ``config()`` describes.

        Raises:
            CheckpointError: an entry is missing or unknown.
        """
        values = {name: value for name, value in config.items() if name not in WITHDRAWN or value}
        try:
            groups, classes = tuple(int(group) for group in values.pop("groups")), int(values.pop("classes"))
            return cls(ObjectiveSettings(**values), groups=groups, classes=classes, anchors=anchors)
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"An objective that cannot be read: {error}") from error


def build_objective(
    name: str,
    *,
    groups: tuple[int, ...] = (0,),
    classes: int = 0,
    anchors: Anchors | None = None,
    **changes: Any,
) -> Objective:
    """An objective by name.

    Args:
        name: a key of ``OBJECTIVES``.
        groups: see ``Objective``.
        classes: see ``Objective``.
        anchors: see ``Objective``.
        changes: fields of ``ObjectiveSettings`` to set otherwise, for example ``sampling_path="cosine"``.

    Raises:
        JobError: an unknown name or field.
    """
    if name not in OBJECTIVES:
        raise JobError(f"Objective {name!r}", allowed=", ".join(OBJECTIVES))
    try:
        settings = replace(OBJECTIVES[name], **changes)
    except TypeError as error:
        raise JobError(f"Objective {name!r}: {error}") from error
    return Objective(settings, groups=groups, classes=classes, anchors=anchors)
