"""The objectives by name: what is predicted, along which path, with which times and which sampler by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Target = Literal["clean", "velocity", "epsilon"]
PathName = Literal["straight", "linear", "cosine"]
TimesName = Literal["logit-normal", "uniform"]
LossSpace = Literal["velocity", "clean"]


@dataclass(frozen=True)
class ObjectiveSettings:
    """What decides a loss and the reading of predictions; travels in the checkpoint.

    Attributes:
        name: the entry of ``OBJECTIVES`` that this was made from.
        target: what the network predicts.
        training_path: noise added in training.
        sampling_path: noise assumed in sampling; another than in training only in the published recipe.
        steps: T of the discrete paths.
        times: of the straight path, ``logit-normal`` or ``uniform``.
        loss_space: what a prediction of clean data is measured on: the ``velocity``, or the ``clean`` data as they
            are, which gives little weight to the last details.
        image_loss_from: a loss in image space is taken of images whose mean time is greater, weighted with it: noisier
            predictions are a blur; 0 takes it of all, with equal weight.
        time_mean: logit-normal times of the straight path: mean.
        time_deviation: the same: deviation.
        group_times: share of images with times of their own for each Gaussian and group.
        label_drop: share of labels withheld in training, for classifier-free guidance.
        clean_limit: bound of predicted clean features in sampling; 0 for none.
        beta_variance: ancestral noise of variance beta (as published) and not of the posterior.
        shown_clean: share of the images of a batch that a network which answers with Gaussians is shown clean, without
            label: there its answer is that of an encoder.
        shown_weight: of their loss, which counts as that of images with the least noise.
        sampler: used where none is asked for.
        evaluations: the same, of the network.
        distilled: number of evaluations, of ``euler``, that the network has learnt from another one
            (``models.diffusion.distillation``) and can be sampled with; 0: any number.
    """

    name: str
    target: Target
    training_path: PathName = "straight"
    sampling_path: PathName = "straight"
    steps: int = 1000
    times: TimesName = "logit-normal"
    loss_space: LossSpace = "velocity"
    image_loss_from: float = 0.5
    time_mean: float = -0.4
    time_deviation: float = 1.0
    group_times: float = 0.5
    label_drop: float = 0.1
    clean_limit: float = 0.0
    beta_variance: bool = False
    shown_clean: float = 0.0
    shown_weight: float = 0.0
    sampler: str = "dpmpp-2m"
    evaluations: int = 20
    distilled: int = 0


def _ddpm(name: str, path: PathName) -> ObjectiveSettings:
    return ObjectiveSettings(name, "epsilon", path, path, clean_limit=12.0, sampler="ddim", evaluations=50)


OBJECTIVES: dict[str, ObjectiveSettings] = {
    "flow-clean": ObjectiveSettings("flow-clean", "clean"),
    "flow-velocity": ObjectiveSettings("flow-velocity", "velocity"),
    "epsilon": ObjectiveSettings("epsilon", "epsilon", clean_limit=12.0),
    "ddpm-linear": _ddpm("ddpm-linear", "linear"),
    "ddpm-cosine": _ddpm("ddpm-cosine", "cosine"),
    # Trained with cosine tables and sampled with linear ones, as the published code does; both can be set.
    "published": ObjectiveSettings(
        "published",
        "epsilon",
        "cosine",
        "linear",
        steps=200,
        group_times=0.0,
        label_drop=0.0,
        beta_variance=True,
        sampler="ancestral",
        evaluations=200,
    ),
}
