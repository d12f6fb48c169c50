"""Which store a generator learns best from: one set of images, several ways to encode it, equal generators.

    python -m benchmarks.starts --data-dir ../shared/data --work study
    python -m benchmarks.starts --work study --table          # what is there so far

For each set and each way a store of the same images at the same K, and for each seed a small ``splatdit`` without
labels, trained equally; its samples are compared with the original images in features that are learned once
from those images.
What is done is kept in the folder: run again, it continues, and several processes with different ``--sets`` or
``--seeds`` share one folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.encode import markdown
from data_schemas.files import write_file
from data_schemas.stores.open import open_store
from encoders.quality import psnr_of_mean_error
from pipeline.encode.job import resolve_job
from pipeline.encode.presets import preset_for
from pipeline.encode.run import encode
from pipeline.evaluate.features import build_extractor
from pipeline.evaluate.metrics import frechet_distance, support
from pipeline.report.predictability import measure_predictability
from pipeline.sample.draws import Settings, draw
from pipeline.sample.run import load_run
from pipeline.sources import open_source
from pipeline.sources.base import DrawnSource
from pipeline.store_images import originals, renderings
from pipeline.train.job import resolve_train_job
from pipeline.train.train import train

SETS = {"mnist": 70, "sprites": 150, "cifar10": 200, "demo": 12}
"""K of each set; ``demo`` needs no data and is for trying the program."""

TOKENS = 18
"""Tokens of the generator, about: Gaussians are packed until there are so few."""

EVALUATIONS = 20
SHOWN_SLOTS, SHOWN_IMAGES = 8, 400
SEED_OF_IMAGES = 0


@dataclass(frozen=True)
class Way:
    """A way to encode and to learn.

    Attributes:
        store: options of the encoder.
        order: of the Gaussians in training (``TrainJob.order``).
        of: the way whose store is taken; "" for one of its own.
    """

    store: dict[str, Any]
    order: str = "auto"
    of: str = ""


WAYS: dict[str, Way] = {
    "adaptive": Way({"start": "adaptive"}, order="stored"),
    "adaptive, reordered": Way({"start": "adaptive"}, order="anchors", of="adaptive"),
    "grid": Way({"start": "grid"}),
    "transport": Way({"start": "transport"}),
    "regressed": Way({"start": "transport", "refine": "regressed"}),
}


@dataclass(frozen=True)
class Budget:
    """How much is spent on each store.

    Attributes:
        images: of each set.
        fit_steps: of the encoder.
        train_steps: of each generator.
        samples: of each generator.
    """

    images: int
    fit_steps: int
    train_steps: int
    samples: int


FULL = Budget(images=3000, fit_steps=400, train_steps=1500, samples=1000)
QUICK = Budget(images=160, fit_steps=8, train_steps=3, samples=70)


def store_path(work: Path, name: str, way: str) -> Path:
    """Where the store of a set is kept."""
    return work / "stores" / f"{name}-{WAYS[way].of or way}.zarr"


def make_store(work: Path, name: str, way: str, data_dir: Path | None, budget: Budget) -> None:
    """Encodes a set, or continues it; a store that is finished is looked at only."""
    path = store_path(work, name, way)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = None if data_dir is None or name == "demo" else data_dir / name
    whole = open_source(name, data_dir=folder, split=preset_for(name).split)
    source = DrawnSource(whole, budget.images, seed=SEED_OF_IMAGES)
    options = {"gaussians": SETS[name], "steps": budget.fit_steps, "workers": 1, **WAYS[way].store}
    summary = encode(resolve_job(name, path, data_dir=folder, **options), source=source)
    if summary.failed:
        raise SystemExit(f"{len(summary.failed)} images of {name} could not be encoded")


def measure_store(work: Path, name: str, way: str) -> dict[str, Any]:
    """Quality of the stored splats, and how far the pixels predict them."""
    with open_store(store_path(work, name, way)) as store:
        values = store.read(["psnr"])["psnr"]
        found = measure_predictability(store).figures
        rows = store.finished_rows()
        extractor = build_extractor("auto", store, cache=work / "features")
        floor = frechet_distance(extractor.forward(originals(store, rows)), extractor.forward(renderings(store, rows)))
    return {
        "images": len(values),
        "psnr": psnr_of_mean_error(values),
        "p1": float(np.percentile(values, 1)),
        "r2": None if found is None else found.r2,
        "floor": floor,
        "features": f"{extractor.name} {extractor.sha}",
    }


def measure_generator(work: Path, name: str, way: str, seed: int, budget: Budget) -> dict[str, Any]:
    """Trains and samples one generator."""
    path = store_path(work, name, way)
    out = work / "runs" / f"{name}-{way.replace(', ', '-')}-{seed}"
    job = resolve_train_job(
        "splats", path, out, preset="tiny", changes={"pack": max(1, round(SETS[name] / TOKENS))}, order=WAYS[way].order,
        steps=budget.train_steps, every=budget.train_steps, learning_rate=1e-3, classes=False, seed=seed, device="cpu",
    )  # fmt: skip
    if not (out / "model.safetensors").exists():
        summary = train(job)
        took = summary.seconds
    else:
        took = None
    run = load_run(out, device="cpu")
    settings = Settings(run.objective.settings.sampler, EVALUATIONS, guidance=1.0, seed=seed, batch=100)
    drawn = draw(run, settings, None, budget.samples, lambda _done: None)
    with open_store(path) as store:
        extractor = build_extractor("auto", store, cache=work / "features")
        real = extractor.forward(originals(store, store.finished_rows()))
    generated = extractor.forward(drawn.images)
    cover = support(real, generated)
    return {
        "fid": frechet_distance(real, generated),
        "recall": cover.recall,
        "precision": cover.precision,
        "coverage": cover.coverage,
        "seconds": took,
        "features": f"{extractor.name} {extractor.sha}",
        "steps": budget.train_steps,
    }


def table(work: Path, sets: Sequence[str]) -> str:
    """Everything that was measured, as Markdown; FID and recall are the mean over the seeds and their range."""
    rows = [["set", "store", "PSNR of mean error", "p1", "R2", "FID", "of adaptive", "recall", "seeds", "floor"]]
    for name in sets:
        reference = _generators(work, name, "adaptive")
        for way in WAYS:
            facts = work / "results" / f"{name}-{WAYS[way].of or way}.json"
            if not facts.exists():
                continue
            store = json.loads(facts.read_text())
            found = _generators(work, name, way)
            # Quotients of equal seeds only.
            both = sorted(found.keys() & reference.keys())
            quotient = np.mean([found[seed]["fid"] / reference[seed]["fid"] for seed in both]) if both else None
            rows.append(
                [
                    f"{name}, K={SETS[name]}",
                    way,
                    f"{store['psnr']:.2f} dB",
                    f"{store['p1']:.2f} dB",
                    "" if store["r2"] is None else f"{store['r2']:.3f}",
                    _spread([one["fid"] for one in found.values()], ".4g"),
                    "" if quotient is None else f"{quotient:.2f}",
                    _spread([one["recall"] for one in found.values()], ".2f"),
                    str(len(found)),
                    f"{store['floor']:.3g}",
                ]
            )
    return markdown(rows)


def slots_plot(work: Path, name: str, path: Path) -> None:
    """Where the same slots are in many images, a panel for each store and a colour for each slot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ways = [way for way in WAYS if not WAYS[way].of and store_path(work, name, way).exists()]
    chosen = np.linspace(0, SETS[name] - 1, SHOWN_SLOTS).round().astype(int)
    figure, panels = pyplot.subplots(1, len(ways), figsize=(3 * len(ways), 3.2), squeeze=False, layout="constrained")
    for panel, way in zip(panels[0], ways, strict=True):
        with open_store(store_path(work, name, way)) as store:
            layout = store.header.splat_layout
            rows = store.finished_rows()[:SHOWN_IMAGES]
            splats = store.read(["splats"], [int(row) for row in rows])["splats"].astype(np.float32)
        for number, slot in enumerate(chosen):
            points = splats[:, slot]
            panel.scatter(
                points[:, layout.index("x")], points[:, layout.index("y")], s=3, color=f"C{number}", linewidths=0
            )
        panel.set(title=way, xlim=(-1.05, 1.05), ylim=(1.05, -1.05), xticks=[], yticks=[], aspect="equal")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _spread(values: list[float], form: str) -> str:
    if not values:
        return ""
    mean = format(float(np.mean(values)), form)
    return mean if len(values) == 1 else f"{mean} ({format(min(values), form)} to {format(max(values), form)})"


def _generators(work: Path, name: str, way: str) -> dict[int, dict[str, Any]]:
    stem = f"{name}-{way.replace(', ', '-')}-seed"
    return {
        int(path.stem.removeprefix(stem)): json.loads(path.read_text())
        for path in sorted((work / "results").glob(f"{stem}[0-9]*.json"))
    }


def _keep(path: Path, facts: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(facts, indent=2) + "\n").encode())


def main(
    work: Annotated[Path, typer.Option(help="Folder of stores, runs and results.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the folders mnist, sprites and cifar10.")] = None,
    sets: Annotated[str, typer.Option(help="Names of sets, with commas between.")] = "mnist,sprites,cifar10",
    ways: Annotated[str, typer.Option(help="Stores, with semicolons between. Default: all.")] = ";".join(WAYS),
    seeds: Annotated[str, typer.Option(help="Seeds of the generators, with commas between.")] = "0,1,2",
    images: Annotated[int, typer.Option(min=100, help="Images of each set.")] = FULL.images,
    train_steps: Annotated[int, typer.Option(min=1, help="Steps of each generator.")] = FULL.train_steps,
    quick: Annotated[bool, typer.Option("--quick", help="The set demo, a few steps: does it run?")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw slots of the first set's stores there, as a .png.")] = None,
    only_table: Annotated[bool, typer.Option("--table", help="Only print what is there.")] = False,
) -> None:
    """Encodes, trains, measures what is not there yet, and prints the table."""
    torch.set_num_threads(1)
    budget = QUICK if quick else Budget(images, FULL.fit_steps, train_steps, FULL.samples)
    names = ["demo"] if quick else sets.split(",")
    wanted = ways.split(";")
    for unknown in [*(set(names) - set(SETS)), *(set(wanted) - set(WAYS))]:
        raise SystemExit(f"{unknown!r} is neither a set ({', '.join(SETS)}) nor a store ({'; '.join(WAYS)})")
    if not only_table:
        for seed in [0] if quick else [int(number) for number in seeds.split(",")]:
            for name in names:
                for way in wanted:
                    facts = work / "results" / f"{name}-{WAYS[way].of or way}.json"
                    if not facts.exists():
                        make_store(work, name, way, data_dir, budget)
                        _keep(facts, measure_store(work, name, way))
                    result = work / "results" / f"{name}-{way.replace(', ', '-')}-seed{seed}.json"
                    if not result.exists():
                        _keep(result, measure_generator(work, name, way, seed, budget))
                        print(f"{result.stem}: {result.read_text()}", flush=True)
    print(table(work, names))
    if plot is not None:
        slots_plot(work, names[0], plot)


if __name__ == "__main__":
    typer.run(main)
