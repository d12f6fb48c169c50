"""The published recipe of each patch model against the modern one: equal images, equal compute, one machine, one run.

    OMP_NUM_THREADS=1 python -m benchmarks.cats race --data-dir DATA --out runs/cats --processes 4
    OMP_NUM_THREADS=1 python -m benchmarks.cats race --data-dir DATA --out runs/brief --steps 500 --preset tiny
    python -m benchmarks.cats race --data-dir DATA --out runs/cats64 --device cuda --full

Encodes the cats (32x32; 64x64 with ``--full``), trains every head with both recipes on them with every seed, evaluates
all with the same features against the same images, which none of them has seen, and writes ``race.md``. Each training
gets as much CPU time (10 minutes of 4 cores unless ``--minutes`` says otherwise), so the cheaper recipe of a head
takes more steps, and sees the same batches in the same order as far as the dearer one gets. With ``--equal steps`` both
take as many as the dearer one can, with ``--steps`` as many as it says. Each image is learned once, however often the
set repeats it. Finished trainings and evaluations in ``--out`` are kept, so an interrupted race goes on where it was.

A recipe is the whole of its network, loss, noise levels, rates, weights and sampler (docs/cats.md). LPIPS, which the
published one is trained with, joins only where its weights are there (``--lpips-weights``).
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel

from benchmarks.cats.race_table import Finished, table, write_sheet
from data_schemas.files import write_file
from data_schemas.stores.open import open_store
from models.patches.model import HEADS, RECIPES, HeadName, RecipeName
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.features import FeatureName
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.reading import JSON_FILE, read_evaluation
from pipeline.train.cats_job import resolve_cats_job
from pipeline.train.job import TrainJob
from pipeline.train.state import STATE_FILE
from pipeline.train.train import train

logger = logging.getLogger("splatspace.benchmark")

RECORD_FILE = "race.json"
RATE_STEPS = 8
"""Steps from which the speed of a training is taken."""

Equal = Literal["compute", "steps"]


@dataclass(frozen=True)
class Race:
    """What all trainings of a race share.

    Attributes:
        out: folder of the store, the runs and the table.
        data_dir: folder of the cats; None fetches them.
        source: set of images.
        size: pixels of a side.
        limit: images to encode; None for all.
        preset: of the models.
        steps: of every training; None: as many as fit into ``minutes``.
        minutes: of every training: of one core's time, on an accelerator of the clock.
        equal: what both recipes of a head have as much of, where ``steps`` is None.
        batch: images per step.
        held_out: share of the images that nothing learns from.
        samples: of each evaluation; as many originals are compared.
        evaluations: of the network per sample; None takes the recipe's.
        features: in which images are compared.
        device: ``cpu``, ``cuda`` or another.
        lpips_weights: folder with the weights of LPIPS; None: the cache.
    """

    out: Path
    data_dir: Path | None
    source: str = "cats"
    size: int = 32
    limit: int | None = None
    preset: str = "small"
    steps: int | None = None
    minutes: float = 40.0
    equal: Equal = "compute"
    batch: int = 64
    held_out: float = 0.2
    samples: int = 500
    evaluations: int | None = None
    features: FeatureName = "selfsup"
    device: str = "cpu"
    lpips_weights: Path | None = None


class RaceRecord(BaseModel):
    """What one training took.

    Attributes:
        steps: of the training.
        core_seconds: CPU time; on an accelerator wall time.
        loss: last of the log; recipes measure it in different ways.
    """

    steps: int
    core_seconds: float
    loss: float | None


def store_of(race: Race) -> Path:
    """The store of the first images, encoded unless it is whole: what has been trained belongs to one store.

    Raises:
        SystemExit: the folder holds a store of other images.
    """
    path = race.out / f"{race.source}{race.size}.zarr"
    if path.exists():
        with open_store(path, "r") as store:
            if len(store.finished_rows()) == len(store):
                if race.limit is not None and len(store) > race.limit:
                    raise SystemExit(f"{path} holds {len(store):,} images and not {race.limit:,}: take another --out")
                return path
    options: dict[str, Any] = {"gaussians": 0, "limit": race.limit, "size": race.size, "data_dir": race.data_dir}
    encode(resolve_job(race.source, path, **options))
    return path


def job_of(race: Race, store: Path, run: Path, head: HeadName, recipe: RecipeName, steps: int, seed: int) -> TrainJob:
    """The training of a head with a recipe: all that is not the recipe's is the same."""
    return resolve_cats_job(
        store,
        run,
        head=head,
        recipe=recipe,
        preset=race.preset,
        steps=steps,
        batch=race.batch,
        every=steps,
        seed=seed,
        device=race.device,
        held_out=race.held_out,
        lpips_weights=race.lpips_weights,
    )


def _seconds(race: Race) -> float:
    """A clock: of the CPU, so that other work does not count; of the wall where an accelerator works."""
    return time.process_time() if race.device == "cpu" else time.perf_counter()


def _trained(race: Race, store: Path, run: Path, head: HeadName, recipe: RecipeName, steps: int, seed: int) -> Path:
    """Trains from the start, unless it is done with as many steps.

    Half a training cannot be continued with its times: it is done again.
    """
    path = run / RECORD_FILE
    if path.exists():
        if RaceRecord.model_validate_json(path.read_bytes()).steps == steps:
            return path
        raise SystemExit(f"{run} was trained for other than {steps:,} steps: remove it, or take another --out")
    for leftover in (STATE_FILE, "model.safetensors"):
        (run / leftover).unlink(missing_ok=True)
    began = _seconds(race)
    summary = train(job_of(race, store, run, head, recipe, steps, seed))
    record = RaceRecord(steps=steps, core_seconds=_seconds(race) - began, loss=summary.loss)
    write_file(path, (record.model_dump_json(indent=2) + "\n").encode())
    return path


def steps_of(race: Race, store: Path, head: HeadName, recipe: RecipeName) -> int:
    """Steps of a training: as given, or as many as the time allows; kept beside the runs."""
    if race.steps is not None:
        return race.steps
    fitting = _fitting_steps(race, store, head)
    return min(fitting.values()) if race.equal == "steps" else fitting[recipe]


def _fitting_steps(race: Race, store: Path, head: HeadName) -> dict[str, int]:
    """How many steps each recipe takes in the time."""
    path = race.out / f"{head}-steps.json"
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["minutes"] == race.minutes:
            return kept["steps"]
    fitting: dict[str, int] = {}
    for recipe in RECIPES:
        taken = []
        for steps in (1, 1 + RATE_STEPS):
            run = race.out / "trials" / f"{head}-{recipe}-{steps}"
            record = _trained(race, store, run, head, recipe, steps, 0)
            taken.append(RaceRecord.model_validate_json(record.read_bytes()).core_seconds)
        each = max(1e-4, (taken[1] - taken[0]) / RATE_STEPS)
        fitting[recipe] = max(1, round((60 * race.minutes - taken[0]) / each))
    write_file(path, (json.dumps({"minutes": race.minutes, "steps": fitting}) + "\n").encode())
    return fitting


def run_of(race: Race, store: Path, head: HeadName, recipe: RecipeName, seed: int) -> None:
    """Trains and evaluates, as far as that is not done."""
    run = race.out / f"{head}-{recipe}-{seed}"
    steps = steps_of(race, store, head, recipe)
    logger.info("%s, %s, seed %d: %d steps", head, recipe, seed, steps)
    _trained(race, store, run, head, recipe, steps, seed)
    folder = run / "evaluation"
    if not (folder / JSON_FILE).exists():
        job = EvaluateJob(
            run,
            str(store),
            folder,
            images=race.samples,
            evaluations=race.evaluations,
            sweep=(),
            features=race.features,
        )
        evaluate(job, device=race.device)


def head_of_race(race: Race, store: Path, head: HeadName, seed: int) -> None:
    """Both recipes of a head, one after the other, as far as they are not done."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    if race.device == "cpu":
        torch.set_num_threads(1)
    for recipe in RECIPES:
        run_of(race, store, head, recipe, seed)


def finished(out: Path) -> list[Finished]:
    """Every training of a folder that has been evaluated, in the order of the heads."""
    found = []
    for head in HEADS:
        for recipe in RECIPES:
            for run in sorted(out.glob(f"{head}-{recipe}-*")):
                if (run / "evaluation" / JSON_FILE).exists():
                    record = RaceRecord.model_validate_json((run / RECORD_FILE).read_bytes())
                    seed = int(run.name.rsplit("-", 1)[1])
                    figures = read_evaluation(run / "evaluation")
                    found.append(Finished(head, recipe, seed, run, record.steps, record.core_seconds, figures))
    return found


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks.cats.__main__ race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the store, the runs and the table")
    parser.add_argument("--data-dir", type=Path, help="folder that holds the cats; fetched without it")
    parser.add_argument("--heads", default=",".join(HEADS), help="as splats,lut")
    parser.add_argument("--seeds", default="0", help="as 0,1")
    parser.add_argument(
        "--minutes", type=float, help="of each training: of one core's time (40), on an accelerator of the clock"
    )
    parser.add_argument("--equal", choices=get_args(Equal), help="what both recipes have as much of: compute, steps")
    parser.add_argument("--steps", type=int, help="of each training, instead of minutes")
    parser.add_argument("--processes", type=int, default=1, help="heads at a time; kpn takes longest to sample")
    parser.add_argument("--preset", help="tiny, small, medium or full")
    parser.add_argument("--images", type=int, help="first images of the set")
    parser.add_argument("--samples", type=int, help="of each evaluation, and as many originals")
    parser.add_argument("--features", choices=get_args(FeatureName), help="in which images are compared")
    parser.add_argument("--lpips-weights", type=Path, help="file or folder of the weights of LPIPS; else the cache")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.add_argument("--sheet", type=Path, help="write samples of all side by side there")
    parser.add_argument("--full", action="store_true", help="all cats, 64x64, full models, 1,000 samples")
    parser.add_argument("--quick", action="store_true", help="seconds, on the demo set: that it runs")
    parser.add_argument("--table-only", action="store_true", help="only the table, of what is done")
    return parser.parse_args(arguments)


def _race(options: argparse.Namespace) -> Race:
    chosen: dict[str, Any] = {}
    if options.full:
        chosen = {"size": 64, "limit": None, "preset": "full", "samples": 1000}
        chosen |= {"held_out": 0.25, "minutes": 60.0}
    if options.quick:
        chosen = {"source": "demo", "size": 16, "limit": 400, "preset": "tiny", "steps": 2, "batch": 8}
        chosen |= {"held_out": 0.5, "samples": 70, "evaluations": 3}
    given = {
        "minutes": options.minutes,
        "steps": options.steps,
        "equal": options.equal,
        "preset": options.preset,
        "limit": options.images,
        "samples": options.samples,
        "features": options.features,
        "lpips_weights": options.lpips_weights,
        "device": options.device,
    }
    chosen |= {name: value for name, value in given.items() if value is not None}
    if options.minutes is not None and options.steps is None:
        chosen["steps"] = None
    return Race(options.out, options.data_dir, **chosen)


def main(arguments: list[str] | None = None) -> None:
    """Prints the table and writes it to ``OUT/race.md``."""
    options = _options(arguments)
    race = _race(options)
    wanted: set[str] = set(options.heads.split(","))
    unknown = sorted(wanted.difference(HEADS))
    if unknown:
        raise SystemExit(f"--heads {', '.join(unknown)}: there are {', '.join(HEADS)}")
    if not options.table_only:
        store = store_of(race)
        heads: list[HeadName] = [head for head in HEADS if head in wanted]
        seeds = [int(seed) for seed in options.seeds.split(",")]
        if options.processes > 1:
            with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
                running = [pool.submit(head_of_race, race, store, head, seed) for seed in seeds for head in heads]
                for each in running:
                    each.result()
        else:
            for seed in seeds:
                for head in heads:
                    head_of_race(race, store, head, seed)
    done = finished(race.out)
    text = table(done)
    write_file(race.out / "race.md", text.encode())
    if options.sheet is not None and done:
        write_sheet(options.sheet, done)
    print(text)
