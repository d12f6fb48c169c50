"""Steps that a pupil learns from its teacher's walks."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from data_schemas.errors import JobError
from models.base import Denoiser
from models.diffusion.distillation import DistillingObjective, teacher_settings
from models.diffusion.objective_settings import OBJECTIVES, ObjectiveSettings
from models.diffusion.objectives import build_objective
from models.diffusion.samplers import sample

SHAPE = (5, 2, 3, 3)


class Teacher(torch.nn.Module):
    """Predicts data that follow from the place, the time and the label, by no straight path."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        self.asked += len(noisy)
        known = torch.zeros_like(time) if label is None else label.float()
        return torch.sin(2 * noisy + (3 * time + known)[:, None, None, None])


class Told(torch.nn.Module):
    """Answers as it was told for these noisy data, which it compares with what it is asked."""

    def __init__(self, noisy: Tensor, answers: Tensor) -> None:
        super().__init__()
        self.noisy, self.answers = noisy, answers

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        apart = (noisy.flatten(1)[:, None] - self.noisy.flatten(1)).abs().amax(dim=2)
        nearest = apart.argmin(dim=1)
        assert apart.amin(dim=1).max() < 1e-4
        return self.answers[nearest]


def objective(number: int, *, classes: int = 0, **changes: float) -> tuple[DistillingObjective, Teacher]:
    changed: dict[str, Any] = {"sampler": "euler", "evaluations": number, "distilled": number, **changes}
    settings = build_objective("flow-clean", **changed).settings
    teacher = Teacher()
    walks = teacher_settings(OBJECTIVES["flow-clean"])
    return DistillingObjective(settings, cast(Denoiser, teacher), walks, classes=classes), teacher


def noise(count: int = SHAPE[0]) -> Tensor:
    return torch.randn((count, *SHAPE[1:]), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("number", "evaluations"), [(1, 20), (3, 21), (4, 20), (8, 24)])
def test_a_pupil_that_answers_as_told_ends_where_the_teacher_ends(number: int, evaluations: int) -> None:
    distilling, teacher = objective(number)
    noisy, time, answers = distilling.steps(noise(), None)
    assert teacher.asked == evaluations * SHAPE[0]
    assert noisy.shape == answers.shape == (SHAPE[0] * number, *SHAPE[1:])
    assert time.tolist() == pytest.approx([step / number for _ in range(SHAPE[0]) for step in range(number)])
    generators = [torch.Generator()] * SHAPE[0]
    made = sample(distilling, Told(noisy, answers), SHAPE, generators=generators, start=noise())
    walked = sample(
        build_objective("flow-clean"), teacher, SHAPE, generators=generators, start=noise(), evaluations=evaluations
    )
    torch.testing.assert_close(made, walked, rtol=0, atol=2e-5)
    straight = sample(distilling, Teacher(), SHAPE, generators=generators, start=noise())
    assert (straight - walked).abs().mean() > 20 * (made - walked).abs().mean() + 1e-3, "the teacher itself in as few"


def test_the_loss_is_zero_for_such_a_pupil_and_one_number_an_image() -> None:
    distilling, _ = objective(4)
    seen: list[Tensor] = []

    class Recorder(torch.nn.Module):
        def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
            seen.extend([noisy, time])
            return torch.zeros_like(noisy)

    def losses(pupil: torch.nn.Module) -> Tensor:
        return distilling.loss(pupil, torch.zeros(10, *SHAPE[1:]), None, torch.Generator().manual_seed(3))

    from_zero = losses(Recorder())
    assert from_zero.shape == (10,)
    start = seen[0][::4]  # the first point of each of three walks, the last one cut short
    noisy, time, answers = distilling.steps(start, None)
    torch.testing.assert_close(seen[0], noisy[:10])
    wanted = answers[:10].flatten(1).square().mean(dim=1) / (1 - time[:10]).square()
    torch.testing.assert_close(from_zero, wanted)
    assert losses(Told(noisy, answers)).abs().max() < 1e-10


def test_labels_go_with_their_walks_and_clean_images_stay_known() -> None:
    distilling, _ = objective(2, classes=3, label_drop=0.0, shown_clean=0.25, shown_weight=0.5)
    clean = torch.full((8, *SHAPE[1:]), 0.5)
    label = torch.tensor([0, 0, 0, 1, 2, -1, 1, 1])
    asked: dict[str, Tensor] = {}

    class Recorder(torch.nn.Module):
        def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
            assert label is not None
            asked.update(noisy=noisy, time=time, label=label)
            return torch.zeros_like(noisy)

    losses = distilling.loss(Recorder(), clean, label, torch.Generator().manual_seed(0))
    assert asked["label"].tolist() == [3, 3, 0, 0, 1, 1, 2, 2]
    assert asked["time"].tolist() == [1, 1, 0, 0.5, 0, 0.5, 0, 0.5]
    torch.testing.assert_close(asked["noisy"][:2], clean[:2])
    torch.testing.assert_close(losses[:2], torch.full((2,), 0.5 * 0.25))
    _, _, answers = distilling.steps(asked["noisy"][2::2], torch.tensor([0, 1, 2]))
    torch.testing.assert_close(losses[2:], answers.flatten(1).square().mean(dim=1) / torch.tensor([1, 0.25] * 3))


def test_other_steps_than_those_learnt_are_refused() -> None:
    distilling, _ = objective(4)
    generators = [torch.Generator()] * SHAPE[0]
    wrongs: tuple[dict[str, Any], ...] = ({"evaluations": 8}, {"sampler": "dpmpp-2m"}, {"sampler": "heun"})
    for wrong in wrongs:
        with pytest.raises(JobError, match=r"distilled generator.*4 by euler"):
            sample(distilling, Teacher(), SHAPE, generators=generators, **wrong)
    with pytest.raises(JobError, match="sketch for a distilled"):
        sample(distilling, Teacher(), SHAPE, generators=generators, sketch=noise(), signal=0.5)
    assert sample(distilling, Teacher(), SHAPE, generators=generators, sampler="ddim").shape == SHAPE


def test_a_teacher_walks_by_a_sampler_of_one_evaluation_a_step_without_noise() -> None:
    for sampler, walked_by in (("euler", "euler"), ("ddim", "euler"), ("heun", "dpmpp-2m"), ("ancestral", "dpmpp-2m")):
        settings = ObjectiveSettings("flow-clean", "clean", sampler=sampler, distilled=3)
        found = teacher_settings(settings)
        assert (found.sampler, found.distilled) == (walked_by, 0)
