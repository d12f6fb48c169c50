"""From noise to data in a given number of evaluations of the network.

All samplers follow u = z / (a + b) along t' = a / (a + b), whose slope is x^ - e^ (``models.diffusion.objectives``):

- ``euler``: straight to the next time; on a diffusion path this is DDIM (arXiv:2010.02502), so ``ddim`` is the same.
- ``heun``: the mean of the slopes at both ends, two evaluations a step, second order (arXiv:2206.00364).
- ``dpmpp-2m``: DPM-Solver++(2M) (arXiv:2211.01095), one evaluation a step; x^ is extrapolated in log(a / b). Second
  order, but for a logarithm of the number of steps that comes from the last ones, where log(a / b) leaps.
- ``ancestral``: fresh noise at every step, of the posterior's variance (DDPM, arXiv:2006.11239) or as published.

The last step of each returns the predicted clean data. Noise of a sample comes from its own generator alone.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from data_schemas.errors import JobError, SamplingError
from models.diffusion.objective_settings import ObjectiveSettings
from models.diffusion.objectives import Objective, Prediction
from models.diffusion.schedules import LARGEST_BETA, StraightPath
from models.names import MOST_EVALUATIONS, SamplerName

SAMPLERS: tuple[str, ...] = get_args(SamplerName)

Trajectory = Callable[[int, float, Tensor, Tensor], None]
"""(number of the step, time, noisy data, predicted clean data): called when the start of a step was evaluated."""


def generators_for(seed: int, count: int, *, first: int = 0) -> list[torch.Generator]:
    """A random generator per sample: sample ``first`` + i gets the same numbers in any batch.

    Args:
        seed: of the whole set.
        count: how many samples.
        first: number of the first sample.

    Returns:
        ``count`` generators on the CPU, so that the noise is the same on every device.
    """
    result = []
    for number in range(first, first + count):
        digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
        result.append(torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1))
    return result


def steps_of(sampler: str, evaluations: int) -> int:
    """Steps that a number of evaluations pays for; Heun's take two each but the last.

    Raises:
        JobError: an unknown sampler, no evaluation, or more than ``MOST_EVALUATIONS``.
    """
    if sampler not in SAMPLERS:
        raise JobError(f"Sampler {sampler!r}", allowed=", ".join(SAMPLERS))
    if not 1 <= evaluations <= MOST_EVALUATIONS:
        raise JobError(f"{evaluations} evaluations", allowed=f"1 to {MOST_EVALUATIONS:,}")
    return (evaluations + 1) // 2 if sampler == "heun" else evaluations


def require_learnt(settings: ObjectiveSettings, sampler: str, evaluations: int) -> None:
    """Refuses other steps than a distilled network has learnt.

    Raises:
        JobError: another number of evaluations, or another sampler than ``euler``.
    """
    if settings.distilled and (sampler not in ("euler", "ddim") or evaluations != settings.distilled):
        raise JobError(
            f"{evaluations} evaluations by {sampler} of a distilled generator",
            allowed=f"{settings.distilled} by euler, the steps that it has learnt",
            next_step="leave --evaluations and --sampler out, or take the run that it was distilled from",
        )


@dataclass
class _Point:
    """A place on the path: its time, signal and noise."""

    time: float
    signal: float
    share: float


class _Run:
    """One batch on its way: the network, what is known of the data, and the noise."""

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        label: Tensor | None,
        guidance: float,
        start: Tensor,
        known: Tensor | None,
        keep: Tensor | None,
    ) -> None:
        self.objective, self.model, self.label = objective, model, label
        self.guidance, self.start = guidance, start
        self.known, self.keep = known, keep
        self.conditioned = keep is not None and keep.ndim == 3 and objective.group_times
        self.mask = None if keep is None else self._over_features(keep)

    def _over_features(self, keep: Tensor) -> Tensor:
        if keep.ndim == 3:
            keep = self.objective.spread(keep, self.start)
        try:
            return keep.expand(self.start.shape)
        except RuntimeError:
            raise SamplingError(
                f"A mask of shape {tuple(keep.shape)} for data of shape {tuple(self.start.shape)}",
                allowed="[image, gaussian, group] for splats, [image, 1, row, column] for pixels",
            ) from None

    def held(self, noisy: Tensor, at: _Point) -> Tensor:
        """The noisy data with the known part put in: clean for networks trained for that, else at the same noise."""
        if self.mask is None or self.known is None:
            return noisy
        known = self.known if self.conditioned else at.signal * self.known + at.share * self.start
        return torch.where(self.mask, known, noisy)

    def predict(self, noisy: Tensor, at: _Point) -> Prediction:
        time = torch.full((noisy.shape[0],), at.time, device=noisy.device)
        if self.conditioned and self.keep is not None:
            time = torch.where(self.keep, 1.0, time[:, None, None])
        prediction = self.objective.predict(self.model, noisy, time, self.label, self.guidance)
        if self.mask is None or self.known is None:
            return prediction
        return Prediction(
            torch.where(self.mask, self.known, prediction.clean), torch.where(self.mask, self.start, prediction.noise)
        )


def sample(
    objective: Objective,
    model: nn.Module,
    shape: Sequence[int],
    *,
    generators: Sequence[torch.Generator],
    evaluations: int | None = None,
    sampler: str | None = None,
    label: Tensor | None = None,
    guidance: float = 1.0,
    known: Tensor | None = None,
    keep: Tensor | None = None,
    start: Tensor | None = None,
    sketch: Tensor | None = None,
    signal: float = 0.0,
    device: torch.device | None = None,
    trajectory: Trajectory | None = None,
) -> Tensor:
    """Samples a batch.

    Sample i follows from its generator, label and known part: not from the batch, up to the rounding of matrix
    products whose sizes differ.

    Args:
        objective: that the network was trained with.
        model: a ``Denoiser``; evaluated in evaluation mode and put back.
        shape: (image, gaussian, feature) or (image, channel, row, column), the batch included.
        generators: one per image (``generators_for``); the only source of chance.
        evaluations: of the network (with ``guidance``, of pairs); None takes the objective's.
        sampler: one of ``SAMPLERS``; None takes the objective's.
        label: int64 [image], negative or None for no label.
        guidance: 1 samples the plain conditional model, more follows the label more closely.
        known: features of the shape of the batch, of which ``keep`` is kept exactly.
        keep: bool [image, gaussian, group], or for pixels [image, 1, row, column].
        start: noise to start from, of the shape of the batch, instead of the generators' first numbers.
        sketch: clean features of the shape of the batch to begin with instead of pure noise, on the straight path.
        signal: share of the sketch, from 0 to below 1; the rest is noise, and sampling begins at that time.
        device: where to compute; None takes the network's.
        trajectory: called after each step's evaluation.

    Returns:
        float32 of ``shape``: clean features.

    Raises:
        JobError: an unknown sampler, an impossible number of evaluations, or what a distilled network has not learnt.
        SamplingError: shapes that do not fit, or a result that is not finite.
    """
    chosen = sampler or objective.settings.sampler
    number = objective.settings.evaluations if evaluations is None else evaluations
    steps = steps_of(chosen, number)
    require_learnt(objective.settings, chosen, number)
    times = objective.sampling_path.times(steps)
    _check(tuple(shape), generators, known, keep, start, sketch)
    if sketch is not None:
        if not isinstance(objective.sampling_path, StraightPath) or not 0 <= signal < 1:
            raise JobError(f"A sketch with signal {signal:g}", allowed="the straight path, 0 up to below 1")
        if objective.settings.distilled:
            raise JobError(
                "A sketch for a distilled generator, which has learnt the steps from pure noise only",
                allowed="none",
                next_step="take the run that it was distilled from",
            )
        times = [signal + (1 - signal) * time for time in times]
    device = device or next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    noise = _noise(shape, generators, device) if start is None else start.float().to(device)
    run = _Run(
        objective,
        model,
        None if label is None else label.to(device),
        guidance,
        noise,
        None if known is None else known.float().to(device),
        None if keep is None else keep.to(device),
    )
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            first = noise if sketch is None else signal * sketch.float().to(device) + (1 - signal) * noise
            result = _walk(run, first, [_point(objective, time) for time in times], chosen, generators, trajectory)
    finally:
        model.train(training)
    bad = torch.nonzero(~torch.isfinite(result).flatten(1).all(dim=1)).flatten().tolist()
    if bad:
        raise SamplingError(
            f"{len(bad)} of {len(result)} samples are not finite, first sample {bad[0]}",
            next_step="sample with more evaluations, less guidance or an earlier checkpoint",
        )
    return result


def _check(
    shape: tuple[int, ...],
    generators: Sequence[torch.Generator],
    known: Tensor | None,
    keep: Tensor | None,
    start: Tensor | None,
    sketch: Tensor | None,
) -> None:
    if len(generators) != shape[0]:
        raise SamplingError(f"{len(generators)} generators for {shape[0]} samples", allowed="one per sample")
    if (known is None) != (keep is None):
        raise SamplingError("Only one of known and keep", allowed="both or neither")
    for name, value in (("known", known), ("start", start), ("sketch", sketch)):
        if value is not None and tuple(value.shape) != shape:
            raise SamplingError(f"{name} of shape {tuple(value.shape)}", allowed=str(shape))


def _noise(shape: Sequence[int], generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    size = tuple(shape[1:])
    return torch.stack([torch.randn(size, generator=each, device=each.device).to(device) for each in generators])


def _point(objective: Objective, time: float) -> _Point:
    moment = torch.tensor(time, dtype=torch.float64)
    path = objective.sampling_path
    return _Point(time, float(path.signal(moment)), float(path.noise(moment)))


def _walk(
    run: _Run,
    noisy: Tensor,
    points: list[_Point],
    sampler: str,
    generators: Sequence[torch.Generator],
    trajectory: Trajectory | None,
) -> Tensor:
    earlier: tuple[Tensor, _Point] | None = None
    for number, (here, there) in enumerate(itertools.pairwise(points)):
        noisy = run.held(noisy, here)
        prediction = run.predict(noisy, here)
        if trajectory is not None:
            trajectory(number, here.time, noisy, prediction.clean)
        if there.share == 0:
            return prediction.clean
        if sampler == "dpmpp-2m":
            noisy, earlier = _multistep(noisy, prediction.clean, here, there, earlier), (prediction.clean, here)
        elif sampler == "heun":
            noisy = _heun(run, noisy, prediction, here, there)
        elif sampler == "ancestral":
            fresh = _noise(noisy.shape, generators, noisy.device)
            noisy = _ancestral(run.objective, noisy, prediction, here, there, fresh)
        else:
            noisy = there.signal * prediction.clean + there.share * prediction.noise
    raise SamplingError("A path that does not end in clean data")


def _heun(run: _Run, noisy: Tensor, first: Prediction, here: _Point, there: _Point) -> Tensor:
    guess = run.held(there.signal * first.clean + there.share * first.noise, there)
    second = run.predict(guess, there)
    slope = (first.clean - first.noise + second.clean - second.noise) / 2
    before, after = here.signal + here.share, there.signal + there.share
    return after * (noisy / before + (there.signal / after - here.signal / before) * slope)


def _multistep(
    noisy: Tensor, clean: Tensor, here: _Point, there: _Point, earlier: tuple[Tensor, _Point] | None
) -> Tensor:
    now, then = _log_ratio(here), _log_ratio(there)
    direction = clean
    if earlier is not None and math.isfinite(before := _log_ratio(earlier[1])):
        weight = (then - now) / (now - before) / 2
        direction = (1 + weight) * clean - weight * earlier[0]
    shrink = there.share / here.share
    return shrink * noisy + (there.signal - shrink * here.signal) * direction


def _log_ratio(point: _Point) -> float:
    return math.log(point.signal / point.share) if point.signal > 0 else -math.inf


def _ancestral(
    objective: Objective, noisy: Tensor, prediction: Prediction, here: _Point, there: _Point, fresh: Tensor
) -> Tensor:
    ratio = here.signal / there.signal
    if objective.settings.beta_variance:
        beta = min(1 - ratio**2, LARGEST_BETA)
        mean = (noisy - beta / here.share * prediction.noise) / math.sqrt(1 - beta)
        return mean + math.sqrt(beta) * fresh
    added = here.share**2 - (ratio * there.share) ** 2
    deviation = there.share / here.share * math.sqrt(max(added, 0.0))
    kept = ratio * there.share**2 / here.share
    return there.signal * prediction.clean + kept * prediction.noise + deviation * fresh
