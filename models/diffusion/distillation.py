"""A network that learns to make in a few steps what another makes in many.

The teacher walks from noise to data by its own sampler in steps of t, and passes through the few times at which the
pupil will be asked: z at t_k. From there the pupil's step, straight to t_{k+1}, has to end where the teacher was then,

    z_{k+1} = z_k + (t_{k+1} - t_k) (x^ - z_k) / (1 - t_k),

which one clean prediction x^ does. This is the progressive distillation of Salimans & Ho (arXiv:2202.00512), from the
given number of steps at once, and along the teacher's own paths: no data is needed, only noise and labels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.base import Denoiser
from models.diffusion.objective_settings import ObjectiveSettings
from models.diffusion.objectives import SMALLEST_NOISE, Objective, RenderLoss
from models.diffusion.samplers import sample
from models.features.splats import Anchors

TEACHER_STEPS = 20
"""Steps of the teacher from noise to data, at least."""

LEAST_WITHIN = 3
"""Steps of the teacher within one of the pupil, at least."""


class DistillingObjective(Objective):
    """The loss of a pupil on the steps of its teacher; predictions are read as the teacher's are.

    Args:
        settings: with ``distilled``, the number of the pupil's steps.
        teacher: in evaluation mode, without gradients.
        teacher_settings: of its objective, whose sampler it walks by.
        groups: see ``Objective``.
        classes: see ``Objective``.
        anchors: see ``Objective``.
    """

    def __init__(
        self,
        settings: ObjectiveSettings,
        teacher: Denoiser,
        teacher_settings: ObjectiveSettings,
        *,
        groups: tuple[int, ...] = (0,),
        classes: int = 0,
        anchors: Anchors | None = None,
    ) -> None:
        super().__init__(settings, groups=groups, classes=classes, anchors=anchors)
        self._teacher = teacher
        self._walks = Objective(teacher_settings, groups=groups, classes=classes, anchors=anchors)
        self._within = max(LEAST_WITHIN, -(-TEACHER_STEPS // settings.distilled))

    def loss(
        self,
        model: nn.Module,
        clean: Tensor,
        label: Tensor | None,
        generator: torch.Generator,
        *,
        render_loss: RenderLoss | None = None,
    ) -> Tensor:
        """The loss of as many steps as there are images.

        Args:
            model: the pupil.
            clean: [image, ...] features; only the share ``shown_clean`` is looked at, as ``Objective.loss`` does.
            label: int64 [image], negative where there is none; None for no labels.
            generator: the only source of chance.
            render_loss: must be None: a loss in image space is the teacher's matter.

        Returns:
            float32 [image].
        """
        assert render_loss is None
        clean = clean.float()
        label = self._dropped(label, generator)
        shown = round(self.settings.shown_clean * len(clean))
        count = len(clean) - shown
        walks = -(-count // self.settings.distilled)
        noise = torch.randn((walks, *clean.shape[1:]), generator=generator, device=generator.device).to(clean.device)
        of_walks = None if label is None else label[shown : shown + walks]
        noisy, time, target = (part[:count] for part in self.steps(noise, of_walks))
        if of_walks is not None:
            label = of_walks.repeat_interleave(self.settings.distilled)[:count]
        if shown:
            noisy, time = torch.cat([clean[:shown], noisy]), torch.cat([torch.ones_like(time[:shown]), time])
            target = torch.cat([clean[:shown], target])
            label = None if label is None else torch.cat([torch.full_like(label[:shown], self.classes), label])
        signal, share = self._spread_path(self.sampling_path, time, noisy)
        predicted = self._read(model(noisy, time, label).float(), noisy, signal, share).clean
        # As far as the steps end apart, but for their length: the velocity, as everywhere.
        error = (predicted - target).flatten(1).square().mean(dim=1) / (1 - time).clamp_min(SMALLEST_NOISE).square()
        if not shown:
            return error
        seen = (predicted[:shown] - clean[:shown]).flatten(1).square().mean(dim=1)
        return torch.cat([self.settings.shown_weight * seen, error[shown:]])

    def steps(self, noise: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """What the pupil will be asked along the teacher's walks, and what it should answer.

        Args:
            noise: [walk, ...] to begin with.
            label: int64 [walk], or None.

        Returns:
            Noisy data [walk * step, ...], times [walk * step] and clean predictions [walk * step, ...], walk by walk.
        """
        number = self.settings.distilled
        passed: list[Tensor] = []

        def pass_by(step: int, _time: float, noisy: Tensor, _clean: Tensor) -> None:
            if step % self._within == 0:
                passed.append(noisy)

        end = sample(
            self._walks,
            self._teacher,
            noise.shape,
            generators=[torch.Generator()] * len(noise),  # of samplers with fresh noise, which this is none of
            evaluations=number * self._within,
            label=label,
            start=noise,
            trajectory=pass_by,
        )
        times = self.sampling_path.times(number)
        passed.append(end)
        answers = [
            here + (there - here) * ((1 - now) / (then - now))
            for here, there, now, then in zip(passed[:-1], passed[1:], times[:-1], times[1:], strict=True)
        ]
        moments = torch.tensor(times[:-1], dtype=torch.float32, device=noise.device).repeat(len(noise))
        return torch.stack(passed[:-1], dim=1).flatten(0, 1), moments, torch.stack(answers, dim=1).flatten(0, 1)


def teacher_settings(settings: ObjectiveSettings) -> ObjectiveSettings:
    """How a teacher walks.

    Args:
        settings: of its objective.

    Returns:
        The same with its sampler, or with the default where that takes two evaluations a step or adds noise.
    """
    return replace(settings, sampler="euler" if settings.sampler in ("euler", "ddim") else "dpmpp-2m", distilled=0)
