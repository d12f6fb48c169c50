"""Generators beside the published recipe and beside pixel models: equal images, equal steps, one machine, one run.

    OMP_NUM_THREADS=1 python -m benchmarks.generation --data-dir ../shared/data --out runs/generation
    OMP_NUM_THREADS=1 python -m benchmarks.generation --data-dir ../shared/data --out runs/generation --only sprites

Encodes the first images of each set with the defaults of the set, trains every contender on them with every seed,
evaluates all with the same features and the same reference images, times them in turns and writes ``generation.md``.
Finished trainings, evaluations and timings in ``--out`` are kept, so an interrupted benchmark goes on where it was; a
contender can also be run by itself (``--contender``) and all of them be put into one table later.

``published`` keeps its own network, objective, covariance, ranges and learning rate; it learns from the same splats,
which were fitted from one layout for all images: better latents than those it was published with. ``pixel-unet`` gets
the CPU time that ``splatdit`` took, everything else the same number of steps. No contender sees a label, but
``splatdit-labels``. ``pixel-dit + fit`` is not trained: it fits the K Gaussians of the store to the samples of
``pixel-dit``, as ``splatspace sample --splats`` does, and what the decoded splats show is measured.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import BaseModel

from benchmarks.generation.tables import DISTILLED, FEW_EVALUATIONS, FIT, scored, tables, timed_name, write_sheet
from benchmarks.generation.times import Timed, alternate_times
from data_schemas.errors import StoppedError
from data_schemas.files import write_file
from data_schemas.stores.open import open_store
from models.patches.model import HEADS
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.features import FeatureName
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.reading import JSON_FILE, read_evaluation
from pipeline.train.cats_job import resolve_cats_job
from pipeline.train.distil import resolve_distillation
from pipeline.train.job import TrainJob, resolve_train_job
from pipeline.train.state import STATE_FILE
from pipeline.train.train import train

logger = logging.getLogger("splatspace.benchmark")

RECORD_FILE = "benchmark.json"
DISTILLATION = 300
"""Steps of a distillation."""

RATE_STEPS = 8
"""Steps from which the speed of a contender is taken that is trained for a given time, after as many first ones."""


@dataclass(frozen=True)
class Contender:
    """A recipe.

    Attributes:
        kind: what it learns: splats, pixels, or cats for a patch model.
        options: of ``resolve_train_job``, or of ``resolve_cats_job``.
        evaluations: of the network per sample; None takes the objective's.
        same_time_as: contender whose CPU time it is trained for; None trains for the set's steps.
        fewer: further numbers of evaluations to measure.
        fit_of: contender whose samples are fitted; this one is not trained.
        distil_of: contender that this one is distilled from, in ``DISTILLATION`` steps.
    """

    kind: Any
    options: dict[str, Any]
    evaluations: int | None = None
    same_time_as: str | None = None
    fewer: tuple[int, ...] = ()
    fit_of: str | None = None
    distil_of: str | None = None


OURS: dict[str, Any] = {"model": "splatdit", "learning_rate": 3e-3}

CONTENDERS: dict[str, Contender] = {
    "published": Contender("splats", {"model": "published"}, 200),
    "splatdit": Contender("splats", {**OURS, "classes": False}, 20, fewer=(10,)),
    "splatdit-labels": Contender("splats", {**OURS, "classes": True}, 20),
    "pixel-unet": Contender("pixels", {"model": "pixel-unet", "classes": False}, 20, same_time_as="splatdit"),
    "render-dit": Contender("splats", {**OURS, "model": "render-dit", "classes": False}, 20, fewer=(1, 2, 4, 8)),
    "pixel-dit": Contender(
        "pixels",
        {"model": "pixel-dit", "classes": False, "learning_rate": OURS["learning_rate"]},
        20,
        fewer=(1, 2, 4, 8),
    ),
    FIT: Contender("pixels", {}, 20, fit_of="pixel-dit"),
    DISTILLED: Contender("splats", {"evaluations": FEW_EVALUATIONS}, FEW_EVALUATIONS, distil_of="render-dit"),
    # Patch models, each in its modern recipe and with as many evaluations as that says.
    **{head: Contender("cats", {"head": head, "held_out": 0.0}, same_time_as="render-dit") for head in HEADS},
}


@dataclass(frozen=True)
class BenchmarkSet:
    """A data set as it is benchmarked.

    Attributes:
        features: in which FID is measured.
        steps: of every training.
        images: first images of the set that are learned from; None takes all.
        samples: of each evaluation.
        source: the named set; empty takes the name in ``SETS``.
        unseen: split of that set that samples are compared with; empty compares with what was learned from.
        unseen_folder: folder of that split in ``--data-dir``, where it is not that of the set.
        batch: images per step.
        encoding: options of ``resolve_job``.
        contenders: by name, in the order in which they are run.
    """

    features: FeatureName
    steps: int
    images: int | None = 4000
    samples: int = 500
    source: str = ""
    unseen: str = ""
    unseen_folder: str = ""
    batch: int = 64
    encoding: dict[str, Any] = field(default_factory=dict)
    contenders: tuple[str, ...] = ("splatdit", "published", "pixel-unet", "render-dit", "pixel-dit", FIT)


PIXELS_IN = ("splatdit", "render-dit", DISTILLED, "pixel-dit", FIT)
"""The generators of splats that are worth it, beside the pixels."""

SETS: dict[str, BenchmarkSet] = {
    "mnist": BenchmarkSet("classifier", 1200, contenders=tuple(name for name in CONTENDERS if name not in HEADS)),
    "sprites": BenchmarkSet("selfsup", 600, samples=256),
    "mnist-unseen": BenchmarkSet(
        "classifier", 600, images=20_000, contenders=PIXELS_IN,
        source="mnist", unseen="test", unseen_folder="mnist_t10k_first9000", encoding={"split": "train"},
    ),
    "sprites-unseen": BenchmarkSet(
        "selfsup", 600, images=None, contenders=PIXELS_IN,
        source="sprites", unseen="test", encoding={"split": "train"},
    ),
    "cifar10-unseen": BenchmarkSet(
        "selfsup", 600, images=10_000, contenders=PIXELS_IN,
        source="cifar10", unseen="test", encoding={"split": "train"},
    ),
    "cats": BenchmarkSet(
        "selfsup", 2400, images=3000, samples=128, batch=32, contenders=("render-dit", *HEADS),
        encoding={"gaussians": 500},
    ),
}  # fmt: skip

QUICK: dict[str, BenchmarkSet] = {
    "demo": BenchmarkSet(
        "selfsup", 3, images=160, samples=70, batch=8, encoding={"gaussians": 12, "steps": 8, "size": 16}
    ),
}
QUICK_PUBLISHED_EVALUATIONS = 4


class RunRecord(BaseModel):
    """What one training took.

    Attributes:
        steps: of the training.
        seconds: wall time.
        core_seconds: CPU time of this process: with one thread what the training takes on a quiet core.
        loss: last of the log.
    """

    steps: int
    seconds: float
    core_seconds: float
    loss: float | None


@dataclass(frozen=True)
class Finished:
    """A contender with one seed: its folder, what it took and how good it is."""

    contender: str
    seed: int
    run: Path
    record: RunRecord
    evaluation: Evaluation


def store_of(name: str, settings: BenchmarkSet, data_dir: Path | None, out: Path) -> Path:
    """The store of a set's first images, encoded unless it is there: what has been trained belongs to one store."""
    path = out / name / f"{name}.zarr"
    encoding = {"limit": settings.images, **settings.encoding}
    return _encoded(settings.source or name, path, data_dir, settings.source or name, encoding)


def unseen_of(name: str, settings: BenchmarkSet, data_dir: Path | None, out: Path) -> Path | None:
    """The store of the images that nothing learns from, without splats; None where the set has no such."""
    if not settings.unseen:
        return None
    source = settings.source or name
    path = out / name / f"{name}-{settings.unseen}.zarr"
    encoding = {"split": settings.unseen, "gaussians": 0}
    return _encoded(source, path, data_dir, settings.unseen_folder or source, encoding)


def _encoded(source: str, path: Path, data_dir: Path | None, folder: str, options: dict[str, Any]) -> Path:
    if path.exists():
        with open_store(path, "r") as store:
            if len(store.finished_rows()) == len(store):
                return path
    for place in (folder, source, "."):
        if data_dir is not None and (data_dir / place).exists():
            options = {**options, "data_dir": data_dir / place}
            break
    encode(resolve_job(source, path, **options))
    return path


def run_of(
    name: str,
    settings: BenchmarkSet,
    contender: str,
    seed: int,
    store: Path,
    unseen: Path | None,
    out: Path,
    *,
    quick: bool,
) -> Finished:
    """Trains and evaluates a contender with one seed, as far as that is not done."""
    recipe = CONTENDERS[contender]
    run = out / name / f"{recipe.fit_of or contender}-{seed}"
    record_path = run / RECORD_FILE
    if recipe.fit_of is not None and not record_path.exists():
        raise SystemExit(f"{contender} fits the samples of {run.name}, which has not been run: run it first")
    if not record_path.exists():
        steps = settings.steps if recipe.distil_of is None else DISTILLATION
        if recipe.same_time_as is not None:
            steps = _steps_in_time(recipe, settings, store, out / name, f"{recipe.same_time_as}-{seed}", contender)
        logger.info("%s: %s with seed %d, %d steps", name, contender, seed, steps)
        job = _job(recipe, settings, store, run, steps, seed)
        began, used = time.perf_counter(), time.process_time()
        # Half a training cannot be continued with its times: it is done again.
        for leftover in (STATE_FILE, "model.safetensors"):
            (run / leftover).unlink(missing_ok=True)
        summary = train(job)
        record = RunRecord(
            steps=steps, seconds=time.perf_counter() - began, core_seconds=time.process_time() - used, loss=summary.loss
        )
        write_file(record_path, (record.model_dump_json(indent=2) + "\n").encode())
    folder = _evaluation_folder(name, contender, seed, out)
    if not (folder / JSON_FILE).exists():
        evaluations = QUICK_PUBLISHED_EVALUATIONS if quick else recipe.evaluations
        evaluate(
            EvaluateJob(
                run=run,
                store=str(store),
                out=folder,
                reference=None if unseen is None else str(unseen),
                images=settings.samples,
                evaluations=evaluations,
                sweep=() if quick else recipe.fewer,
                features=settings.features,
                splats=recipe.fit_of is not None,
            ),
            device="cpu",
        )
    record = RunRecord.model_validate_json(record_path.read_bytes())
    return Finished(contender, seed, run, record, read_evaluation(folder))


def _evaluation_folder(name: str, contender: str, seed: int, out: Path) -> Path:
    return out / name / f"{contender.replace(' ', '')}-{seed}" / "evaluation"


def _job(recipe: Contender, settings: BenchmarkSet, store: Path, run: Path, steps: int, seed: int) -> TrainJob:
    shared: dict[str, Any] = {
        "preset": "tiny", "steps": steps, "batch": settings.batch, "every": steps, "seed": seed, "device": "cpu",
    }  # fmt: skip
    if recipe.distil_of is not None:
        shared.pop("preset")
        teacher = run.parent / f"{recipe.distil_of}-{seed}"
        return resolve_distillation(recipe.kind, store, run, distil=teacher, **recipe.options, **shared)
    if recipe.kind == "cats":
        return resolve_cats_job(store, run, **recipe.options, **shared)
    return resolve_train_job(recipe.kind, store, run, **recipe.options, **shared)


def _steps_in_time(
    recipe: Contender, settings: BenchmarkSet, store: Path, out: Path, measured: str, contender: str
) -> int:
    """Steps that take the CPU time of another run: the start and the samples of that one are not taken off."""
    path = out / measured / RECORD_FILE
    if not path.exists():
        raise SystemExit(f"{contender} is trained for the time of {measured}, which has not been run: run it first")
    allowed = RunRecord.model_validate_json(path.read_bytes()).core_seconds
    trial = out / f"{contender}-trial"
    for leftover in (STATE_FILE, "model.safetensors"):
        (trial / leftover).unlink(missing_ok=True)
    times: list[float] = []

    def should_stop() -> bool:
        times.append(time.process_time())
        return len(times) > 2 * RATE_STEPS

    with contextlib.suppress(StoppedError):
        train(_job(recipe, settings, store, trial, 4 * RATE_STEPS, 0), should_stop=should_stop)
    return max(1, round(allowed * RATE_STEPS / (times[-1] - times[-1 - RATE_STEPS])))


def main(
    out: Annotated[Path, typer.Option(help="Folder of stores, runs and the table.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the folders mnist and sprites.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
    contender: Annotated[list[str] | None, typer.Option(help="Only these contenders; the table has all.")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, as 0,1,2.")] = "0,1",
    sheets: Annotated[Path | None, typer.Option(help="Folder for sheets of samples side by side.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of every training, instead of the set's.")] = None,
    images: Annotated[int | None, typer.Option(help="That are learned from, instead of the set's.")] = None,
    samples: Annotated[int | None, typer.Option(help="Of each evaluation, instead of the set's.")] = None,
    quick: Annotated[bool, typer.Option(help="Seconds instead of hours, on the demo set: that it runs.")] = False,
    tables_only: Annotated[bool, typer.Option(help="Only the table, of what is done.")] = False,
) -> None:
    """Prints the tables of docs/results.md and writes them to ``OUT/generation.md``."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    torch.set_num_threads(1)
    sets = {name: one for name, one in (QUICK if quick else SETS).items() if not only or name in only}
    budget = {"steps": steps, "images": images, "samples": samples}
    given = {name: number for name, number in budget.items() if number is not None}
    sets = {name: replace(one, **given) for name, one in sets.items()}
    numbers = [int(seed) for seed in seeds.split(",")]
    finished: dict[str, list[Finished]] = {}
    times: dict[str, dict[str, float]] = {}
    for name, settings in sets.items():
        store = out / name / f"{name}.zarr"
        unseen = out / name / f"{name}-{settings.unseen}.zarr" if settings.unseen else None
        wanted = [known for known in settings.contenders if not contender or known in contender]
        if not tables_only:
            store, unseen = store_of(name, settings, data_dir, out), unseen_of(name, settings, data_dir, out)
            for seed in numbers:
                for one in wanted:
                    run_of(name, settings, one, seed, store, unseen, out, quick=quick)
        done = [
            run_of(name, settings, one, seed, store, unseen, out, quick=quick)
            for one in settings.contenders
            for seed in numbers
            if (_evaluation_folder(name, one, seed, out) / JSON_FILE).exists()
        ]
        if done:
            finished[name] = done
            first = {found.contender: found for found in reversed(done)}
            times[name] = _times(out / name / "times.json", first, quick=quick, measure=not tables_only)
            if sheets is not None:
                write_sheet(sheets / f"generated-{name}.png", first)
    text = tables(finished, times)
    write_file(out / "generation.md", text.encode())
    print(text)


def _times(path: Path, first: dict[str, Finished], *, quick: bool, measure: bool) -> dict[str, float]:
    """CPU seconds per image of each contender, kept beside the runs; measured again when one has joined."""
    kept: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    runs = {
        timed_name(name, scores.evaluations): Timed(found.run, scores.evaluations, found.evaluation.fitted is not None)
        for name, found in first.items()
        for scores in scored(found)
        if scores.evaluations is not None
    }
    if measure and set(runs) - set(kept):
        kept = alternate_times(runs, images=2 if quick else 16, rounds=1 if quick else 3)
        write_file(path, (json.dumps(kept, indent=2) + "\n").encode())
    return kept


if __name__ == "__main__":
    typer.run(main)
