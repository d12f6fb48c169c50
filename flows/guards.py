"""What a run may do and what it must reach: folders, quality gates.

Whoever may start a run chooses its parameters, so on a shared server the paths among them need a fence: the folders of
``SPLATSPACE_ROOTS``. A run whose PSNR, FID or recall falls short fails, after everything is written.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from pydantic import Field

from data_schemas.errors import JobError, QualityError, StoreError
from data_schemas.locations import Location, resolve_path
from pipeline.evaluate.figures import Evaluation
from pipeline.format import format_psnr
from pipeline.report.figures import Report
from pipeline.sources import SOURCES

ROOTS_VARIABLE = "SPLATSPACE_ROOTS"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
_LOCAL_SCHEMES = ("file", "local")
_SEPARATOR = re.compile(re.escape(os.pathsep) + r"(?!//)")

PsnrFloor = Annotated[float, Field(gt=0, le=100)]
"""In dB; a lossless image counts as 100 dB."""


def require_inside_roots(*, dataset: str | None = None, **places: str | os.PathLike[str] | None) -> None:
    """Refuses paths outside the roots; call it before anything is opened.

    Symbolic links are followed and ``..`` is collapsed first. A URL is inside where a root is the beginning of it.
    Without ``SPLATSPACE_ROOTS`` everything is allowed.

    Args:
        dataset: the name of a data set, which is no path, or a path.
        places: the other parameters that are paths, by name; None where one is not given.

    Raises:
        JobError: a path outside, or a link that leads back to itself; the message says what was got and which roots
            there are.
    """
    roots = read_roots()
    if roots is None:
        return
    given = {name: os.fspath(place) for name, place in places.items() if place is not None}
    if dataset is not None and dataset not in SOURCES:
        given["dataset"] = dataset
    for name, text in given.items():
        try:
            inside = _is_inside(text, roots)
        except StoreError as error:
            raise JobError(f"{name}: {error.got}", allowed=error.allowed, next_step=error.next_step) from error
        if not inside:
            raise JobError(
                f"{name} {text!r} lies outside the folders that flows may use",
                allowed=", ".join(roots) or "nothing",
                next_step=f"give a path inside one of them, or change {ROOTS_VARIABLE} where the flows run",
            )


def read_roots() -> tuple[str, ...] | None:
    """Folders and URLs of ``SPLATSPACE_ROOTS``, separated as in ``PATH``; None where it is not set.

    Set to nothing it allows nothing: a mistake there must not open everything.
    """
    text = os.environ.get(ROOTS_VARIABLE)
    if text is None:
        return None
    return tuple(part.strip() for part in _SEPARATOR.split(text) if part.strip())


def _is_inside(text: str, roots: tuple[str, ...]) -> bool:
    url = _remote(text)
    if url is not None:
        return any(_has_prefix(url, prefix) for root in roots if (prefix := _remote(root)) is not None)
    folders = [folder for root in roots if _remote(root) is None for folder in _resolve(root)[-1:]]
    # `~` is expanded by some readers and not by others: both places must be inside.
    return all(any(place.is_relative_to(folder) for folder in folders) for place in _resolve(text))


def _remote(text: str) -> str | None:
    """A URL with two slashes after its scheme; None for what is a local path."""
    match = _URL.fullmatch(text)
    if match is None or match["scheme"].lower() in _LOCAL_SCHEMES:
        return None
    return f"{match['scheme'].lower()}://{match['rest']}"


def _has_prefix(url: str, root: str) -> bool:
    # Dots that climb and chains of file systems would leave what the beginning promises.
    steps = re.split(r"[/\\]", unquote(url))
    if ".." in steps or "::" in unquote(url):
        return False
    return url == root.rstrip("/") or url.startswith(root.rstrip("/") + "/")


def _resolve(text: str) -> list[Path]:
    """The real paths that a text may stand for; the last is the one with ``~`` expanded."""
    match = _URL.fullmatch(text)
    path = Path(text) if match is None else Path("/" + match["rest"].lstrip("/"))
    try:
        expanded = path.expanduser()
    except RuntimeError:  # `~` of a user that this system does not know
        expanded = path
    # An absolute path is not expanded.
    return [resolve_path(Path.cwd() / place) for place in (path, expanded)]


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
        (name, format_psnr(value, none="unknown"), floor, parameter)
        for name, value, floor, parameter in wanted
        if floor is not None and (value is None or value < floor)
    ]
    if not missed:
        return
    raise QualityError(
        f"{store} misses its quality: "
        + ", ".join(
            f"{name} is {value}, below {format_psnr(floor)} ({parameter})" for name, value, floor, parameter in missed
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
