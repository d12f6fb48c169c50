"""The quality gates: a run whose PSNR, FID or recall falls short fails, after everything is written."""

from __future__ import annotations

from data_schemas.errors import QualityError
from data_schemas.locations import Location
from pipeline.generation.evaluation_report.figures import Evaluation
from pipeline.report.figures import Report


def require_quality(
    report: Report | None,
    *,
    min_psnr: float | None,
    min_psnr_p1: float | None,
    store: Location,
    html_report: Location | None,
) -> None:
    """Fails a run whose set is worse than was asked for. It judges the whole store, not only the rows of this run.

    Args:
        report: of the store; None where it could not be made.
        min_psnr: floor of the PSNR of the mean squared error in dB; None for no floor.
        min_psnr_p1: floor of the PSNR of the 1st percentile in dB; None for no floor.
        store: for the message.
        html_report: for the message.

    Raises:
        QualityError: a figure is below its floor, or there is none to judge.
    """
    quality = None if report is None else report.quality
    wanted = [
        ("PSNR of the mean error", None if quality is None else quality.of_mean_error, min_psnr, "min_psnr"),
        ("PSNR of the 1st percentile", None if quality is None else quality.p1, min_psnr_p1, "min_psnr_p1"),
    ]
    missed = [
        (name, "unknown" if value is None else f"{value:.2f} dB", floor, parameter)
        for name, value, floor, parameter in wanted
        if floor is not None and (value is None or value < floor)
    ]
    if not missed:
        return
    raise QualityError(
        f"{store} misses its quality: "
        + ", ".join(
            f"{name} is {value}, below {floor:.2f} dB ({parameter})" for name, value, floor, parameter in missed
        ),
        next_step=f"see {html_report or 'the log: the report was not made'}; more Gaussians or steps raise the PSNR",
    )


def require_generator_quality(
    found: Evaluation, *, max_fid: float | None, min_recall: float | None, page: Location
) -> None:
    """Fails a run whose generator is worse than was asked for.

    Args:
        found: of the generator.
        max_fid: ceiling of its FID against originals; None for none.
        min_recall: floor of its recall; None for none.
        page: for the message.

    Raises:
        QualityError: a figure misses its limit.
    """
    scores = found.headline
    missed = []
    if max_fid is not None and not scores.fid <= max_fid:
        missed.append(f"FID[{found.features.label}] is {scores.fid:.2f}, above {max_fid:g} (max_fid)")
    if min_recall is not None and not scores.recall >= min_recall:
        missed.append(f"recall is {scores.recall:.3f}, below {min_recall:g} (min_recall)")
    if missed:
        raise QualityError(
            f"{found.generator.name} on {found.reference.source} misses its quality at {scores.evaluations} "
            f"evaluations and n = {scores.n:,}: " + ", ".join(missed),
            next_step=f"see {page}; more steps or a larger preset lower the FID",
        )
