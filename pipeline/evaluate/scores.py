"""The scores of one set of images against another, and those of generated pixels as splats."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pipeline.evaluate.features import FeatureExtractor
from pipeline.evaluate.figures import FittedFigures, Scores
from pipeline.evaluate.metrics import (
    frechet_distance,
    inception_score,
    kernel_distance,
    sliced_wasserstein,
    support,
)
from pipeline.sample.draws import Drawn
from pipeline.sample.fit import SampleFit, require_fitted
from pipeline.store_images import as_channels_first, as_channels_last

_FEWEST_FOR_SCORE = 100


def scores_of(
    images: str,
    reference: str,
    real: Tensor,
    generated: Tensor,
    seed: int,
    evaluations: int | None = None,
    extractor: FeatureExtractor | None = None,
    pixels: Tensor | None = None,
) -> Scores:
    """Sets images against others.

    Args:
        images: what is measured, for the table.
        reference: with what it is compared, for the table.
        real: features of the reference, float [image, feature].
        generated: features of as many measured images.
        seed: of random subsets and directions.
        evaluations: of the network, for generated images.
        extractor: whose classes make the inception score; None leaves it out.
        pixels: of the measured images, uint8 [image, channel, row, column], for the inception score.
    """
    kid, spread = kernel_distance(real, generated, seed=seed)
    covered = support(real, generated)
    score: tuple[float, float] | tuple[None, None] = (None, None)
    if extractor is not None and pixels is not None and len(pixels) >= _FEWEST_FOR_SCORE:
        logits = extractor.logits(pixels)
        score = (None, None) if logits is None else inception_score(logits, seed=seed)
    return Scores(
        images=images,
        reference=reference,
        n=len(generated),
        evaluations=evaluations,
        fid=frechet_distance(real, generated),
        kid=kid,
        kid_spread=spread,
        precision=covered.precision,
        recall=covered.recall,
        density=covered.density,
        coverage=covered.coverage,
        sliced_wasserstein=sliced_wasserstein(real, generated, seed=seed),
        inception_score=score[0],
        inception_score_spread=score[1],
    )


def measure_fit(
    fit: SampleFit, drawn: Drawn, reference: Tensor, seed: int, evaluations: int, extractor: FeatureExtractor
) -> tuple[FittedFigures, Tensor]:
    """Fits splats to generated pixels and measures what they show.

    Args:
        fit: of the samples.
        drawn: the samples.
        reference: features of as many originals.
        seed: of random subsets and directions.
        evaluations: of the network.
        extractor: of the features.

    Returns:
        The figures, and what the splats show, uint8 [image, channel, row, column].

    Raises:
        SamplingError: a sample that cannot be fitted.
    """
    rows, summary = fit.rows(as_channels_last(drawn.images))
    require_fitted(summary)
    images = as_channels_first(fit.view.rendered(rows.splats))
    found = extractor.forward(images)
    psnr = summary.psnr
    figures = FittedFigures(
        scores=scores_of("generated, as splats", "originals", reference, found, seed, evaluations, extractor, images),
        codec=fit.header.codec,
        gaussians=fit.header.gaussians,
        steps=fit.encoder.settings.steps,
        engine=fit.encoder.name,
        psnr=None if psnr is None or not np.isfinite(psnr) else psnr,
        seconds_per_image=summary.fit_seconds / len(images),
        core_seconds_per_image=summary.core_seconds / len(images),
    )
    return figures, images
