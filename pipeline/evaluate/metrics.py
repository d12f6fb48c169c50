"""How far two sets of images are apart, from their features.

Every function takes features, so one pass of an extractor over the images serves all metrics.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_schemas.errors import EvaluationError

NEIGHBOURS = 5
"""k of precision, recall, density and coverage: an image reaches as far as its k-th neighbour of the same set."""

KERNEL_SUBSETS = 50
KERNEL_SUBSET = 1000
"""KID is the mean over so many random subsets of at most so many images."""

_SMALLEST_KERNEL_SET = 16
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Support:
    """How two sets cover each other (arXiv:1904.06991, arXiv:2002.09797), with ``NEIGHBOURS`` neighbours.

    Attributes:
        precision: share of generated images that lie within reach of a real one.
        recall: share of real images that lie within reach of a generated one.
        density: real images within whose reach a generated one lies, over k; 1 for equal sets, may exceed it.
        coverage: share of real images that have a generated one within their reach.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def images_needed(dimension: int) -> int:
    """Fewest images of each set for every metric on features of ``dimension`` numbers.

    FID asks for most: with no more images than features the covariance is singular.
    """
    return max(dimension + 1, _SMALLEST_KERNEL_SET, NEIGHBOURS + 2)


def require_images(count: int, needed: int, what: str, next_step: str) -> None:
    """Refuses sets that are too small.

    Raises:
        EvaluationError: fewer images than needed.
    """
    if count < needed:
        raise EvaluationError(f"{count:,} {what}", allowed=f"{needed:,} or more", next_step=next_step)


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """FID: distance of two Gaussians with the sets' means and covariances.

    Args:
        real: float [image, feature].
        generated: float [image, feature].

    Returns:
        0 or more, in squared units of the features.

    Raises:
        EvaluationError: a set with no more images than features.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    dimension = real.shape[1]
    for name, features in (("real", real), ("generated", generated)):
        require_images(
            len(features), dimension + 1, f"{name} images for FID on {dimension} features", "take more images"
        )
    metric = FrechetInceptionDistance(feature=_Given(dimension))
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return max(0.0, float(metric.compute()))


def kernel_distance(real: Tensor, generated: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """KID: squared maximum mean discrepancy with a cubic kernel, unbiased, so it may be a little below 0.

    Args:
        real: float [image, feature].
        generated: float [image, feature].
        seed: of the subsets.

    Returns:
        Mean and standard deviation over the subsets.

    Raises:
        EvaluationError: fewer than 16 images in a set.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    fewest = min(len(real), len(generated))
    require_images(fewest, _SMALLEST_KERNEL_SET, "images for KID", "take more images")
    # Half of a small set: subsets that are the whole set would have no spread.
    size = min(KERNEL_SUBSET, fewest // 2)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the library warns of the features that it keeps in memory
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=KERNEL_SUBSETS, subset_size=size)
        metric.update(real.double(), real=True)
        metric.update(generated.double(), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def inception_score(logits: Tensor, *, seed: int = 0) -> tuple[float, float]:
    """IS: how sure a classifier is of each image, and how evenly the images fall on the classes.

    Args:
        logits: float [image, class] of generated images.
        seed: of the order in which images are dealt to ten parts.

    Returns:
        Mean and standard deviation over the parts; between 1 and the number of classes.

    Raises:
        EvaluationError: fewer than 100 images.
    """
    from torchmetrics.image.inception import InceptionScore

    require_images(len(logits), 100, "images for the inception score", "take more images")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # as above
        torch.manual_seed(seed)
        metric = InceptionScore(feature=_Given(logits.shape[1]), splits=10)
        metric.update(logits.double())
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


class _Given(nn.Module):
    """Hands features that are already computed through to a metric of torchmetrics."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.num_features = dimension

    def forward(self, features: Tensor) -> Tensor:
        return features


def support(real: Tensor, generated: Tensor) -> Support:
    """Precision, recall, density and coverage, with ``NEIGHBOURS`` nearest neighbours.

    Args:
        real: float [image, feature].
        generated: float [image, feature].

    Raises:
        EvaluationError: a set with no more than ``NEIGHBOURS`` images.
    """
    fewest = min(len(real), len(generated))
    require_images(fewest, NEIGHBOURS + 1, f"images for the {NEIGHBOURS} nearest neighbours", "take more images")
    real, generated = real.double(), generated.double()
    reach_real, reach_generated = _reach(real), _reach(generated)
    within = torch.zeros(len(generated), dtype=torch.float64)
    recalled = covered = 0.0
    for first in range(0, len(real), _ROWS_AT_ONCE):
        rows = slice(first, first + _ROWS_AT_ONCE)
        distance = torch.cdist(real[rows], generated)
        within += (distance < reach_real[rows, None]).sum(dim=0)
        recalled += float((distance < reach_generated[None]).any(dim=1).sum())
        covered += float((distance.min(dim=1).values < reach_real[rows]).sum())
    return Support(
        precision=float((within > 0).double().mean()),
        recall=recalled / len(real),
        density=float(within.mean()) / NEIGHBOURS,
        coverage=covered / len(real),
    )


def _reach(features: Tensor) -> Tensor:
    """Distance of each image to its k-th neighbour within the set, itself not counted."""
    parts = [
        torch.cdist(features[first : first + _ROWS_AT_ONCE], features).kthvalue(NEIGHBOURS + 1, dim=1).values
        for first in range(0, len(features), _ROWS_AT_ONCE)
    ]
    return torch.cat(parts)


def sliced_wasserstein(real: Tensor, generated: Tensor, *, directions: int = 256, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance: the root mean square distance of sorted projections on random directions.

    Args:
        real: float [image, feature].
        generated: float [image, feature].
        directions: how many.
        seed: of the directions.

    Returns:
        0 or more, in units of the features.

    Raises:
        EvaluationError: a set without images.
    """
    require_images(min(len(real), len(generated)), 1, "images for the sliced distance", "take more images")
    generator = torch.Generator().manual_seed(seed)
    towards = torch.randn(real.shape[1], directions, generator=generator, dtype=torch.float64)
    towards /= towards.norm(dim=0)
    points = max(len(real), len(generated))
    sorted_real, sorted_generated = (
        _quantiles((features.double() @ towards).sort(dim=0).values, points) for features in (real, generated)
    )
    return float((sorted_real - sorted_generated).square().mean().sqrt())


def _quantiles(values: Tensor, points: int) -> Tensor:
    """Sorted values [image, direction] at ``points`` evenly spaced shares."""
    share = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    return values[(share * len(values)).long()]


def nearest(features: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest reference of each image.

    Args:
        features: float [image, feature].
        references: float [reference, feature], at least one.

    Returns:
        float64 [image] distances and int64 [image] positions among the references.
    """
    references = references.double()
    found = [torch.cdist(part.double(), references).min(dim=1) for part in features.split(_ROWS_AT_ONCE)]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])
