"""Networks whose answer is known in closed form: the best possible one for Gaussians and mixtures of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.diffusion.objectives import Objective
from models.diffusion.schedules import Path


class Known(nn.Module):
    """Answers with the conditional mean of the clean data, put into whatever the objective wants predicted.

    Times per Gaussian and group are those of features (as many groups as features).
    """

    def __init__(self, objective: Objective, *, path: Path | None = None) -> None:
        super().__init__()
        self.objective = objective
        self.path = path or objective.sampling_path

    def clean(self, noisy: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        raise AssertionError("a subclass says it")

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        signal = self.objective.spread(self.path.signal(time), noisy)
        share = self.objective.spread(self.path.noise(time), noisy)
        clean = self.clean(noisy, signal, share)
        if self.objective.settings.target == "clean":
            return clean
        noise = (noisy - signal * clean) / share.clamp_min(1e-6)
        return noise if self.objective.settings.target == "epsilon" else clean - noise


class Gaussian(Known):
    """Independent numbers of one mean and deviation."""

    def __init__(self, objective: Objective, mean: float, deviation: float, *, path: Path | None = None) -> None:
        super().__init__(objective, path=path)
        self.mean, self.deviation = mean, deviation

    def clean(self, noisy: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        variance = self.deviation**2
        gain = signal * variance / (signal**2 * variance + share**2)
        return self.mean + gain * (noisy - signal * self.mean)


class Mixture(Known):
    """Two equal Gaussians at +-``centre``."""

    def __init__(self, objective: Objective, centre: float, deviation: float) -> None:
        super().__init__(objective)
        self.centre, self.deviation = centre, deviation

    def clean(self, noisy: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        variance = self.deviation**2
        total = signal**2 * variance + share**2
        right = torch.sigmoid(2 * signal * self.centre * noisy / total)
        centre = (2 * right - 1) * self.centre
        return centre + signal * variance / total * (noisy - signal * centre)


class Correlated(Known):
    """Two features per Gaussian, of unit variance and one correlation, each feature a group with its own time."""

    def __init__(self, objective: Objective, correlation: float) -> None:
        super().__init__(objective)
        self.covariance = torch.tensor([[1.0, correlation], [correlation, 1.0]])

    def clean(self, noisy: Tensor, signal: Tensor, share: Tensor) -> Tensor:
        signal, share = signal.expand_as(noisy), share.expand_as(noisy)
        seen = signal[..., :, None] * self.covariance * signal[..., None, :] + torch.diag_embed(share**2 + 1e-9)
        return (self.covariance @ (signal * torch.linalg.solve(seen, noisy))[..., None])[..., 0]
