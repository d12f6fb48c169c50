"""Dask workers against the single-process engine on the same images, and what each shard and block costs beside.

    python -m benchmarks.scale.out --data-dir ../shared/data --plot docs/images/scale-out.png

Each pair, n threads of one process and n worker processes, encodes the same images with the same settings, one after
the other, in turns: on a machine that others use too, compare within a pair. Times leave out planning, which both
share. Prints tables in Markdown.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.encode import markdown
from benchmarks.harness import CountedImages, MeanEncoder
from pipeline.encode.compute import balance_shards, encode_shards, open_compute
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.plan import survey


@dataclass(frozen=True)
class Timing:
    """One run.

    Attributes:
        images: encoded.
        start: seconds until the first shard could begin.
        work: seconds from then to the last one's end.
        core_seconds: CPU time of the engine.
    """

    images: int
    start: float
    work: float
    core_seconds: float

    @property
    def rate(self) -> float:
        """Images per second, the start left out."""
        return self.images / self.work


def run(job: EncodeJob) -> Timing:
    """Encodes into a new store and takes the time."""
    ready = survey(job)
    plan = ready.plan
    local = job.compute == "local"
    began = time.perf_counter()
    with open_compute(plan, source_factory=(lambda: ready.source) if local else None) as compute:
        open_at = time.perf_counter()
        summary = compute.finish(encode_shards(compute, [plan.blocks] if local else balance_shards(plan)))
        ended = time.perf_counter()
    if summary.failed or summary.rows_done != plan.images:
        raise SystemExit(f"{job.out}: {summary.rows_done} of {plan.images} rows are done")
    return Timing(summary.fitted, open_at - began, ended - open_at, summary.core_seconds)


def pairs(
    dataset: str, data_dir: Path, counts: list[int], images: int, repeats: int, folder: Path
) -> dict[int, list[tuple[Timing, Timing]]]:
    """(single process, Dask) for each number of workers, ``images`` for each worker, in turns."""
    found: dict[int, list[tuple[Timing, Timing]]] = {count: [] for count in counts}
    options = {"data_dir": data_dir / dataset, "split": "train" if dataset in ("mnist", "cifar10") else "all"}
    run(resolve_job(dataset, folder / "warm.zarr", **options, limit=16, workers=1, overwrite=True))
    for turn in range(repeats):
        for count in counts:
            places = ["local", "dask"] if turn % 2 == 0 else ["dask", "local"]
            timings = {
                place: run(
                    resolve_job(
                        dataset,
                        folder / f"{place}.zarr",
                        **options,
                        limit=images * count,
                        workers=count,
                        compute=place,
                        overwrite=True,
                    )
                )
                for place in places
            }
            found[count].append((timings["local"], timings["dask"]))
    return found


def ratio(timings: list[tuple[Timing, Timing]]) -> float:
    """Median over pairs of Dask's rate by that of one process."""
    return statistics.median(dask.rate / local.rate for local, dask in timings)


def efficiency_table(found: dict[int, list[tuple[Timing, Timing]]]) -> list[list[str]]:
    """Median rates, and the median of the ratios within pairs."""
    head = ["workers", "images", "one process, images/s", "Dask, images/s", "Dask / one process", "start of Dask"]
    rows = [head]
    for count, timings in found.items():
        local, dask = (statistics.median(pair[which].rate for pair in timings) for which in (0, 1))
        start = statistics.median(pair[1].start for pair in timings)
        images = timings[0][0].images
        rows.append(
            [str(count), f"{images:,}", f"{local:.0f}", f"{dask:.0f}", f"{ratio(timings):.0%}", f"{start:.1f} s"]
        )
    return rows


def shard_overhead(folder: Path, shards: int = 200) -> tuple[float, float]:
    """Milliseconds for a shard without blocks: one after the other, and with every slot in use."""
    job = resolve_job("counted", folder / "empty.zarr", compute="dask", workers=4, images=False, start="grid")
    plan = survey(job, source=CountedImages(8192), encoder=MeanEncoder()).plan
    with open_compute(plan, source_factory=partial(CountedImages, 8192), encoder_factory=MeanEncoder) as compute:
        encode_shards(compute, [()] * 8)  # each worker opens its session
        began = time.perf_counter()
        for _ in range(shards):
            compute.encode(())
        alone = time.perf_counter() - began
        began = time.perf_counter()
        encode_shards(compute, [()] * shards)
        together = time.perf_counter() - began
    return 1e3 * alone / shards, 1e3 * together / shards


def block_overhead(folder: Path, block_rows: int, blocks: int = 16) -> float:
    """Milliseconds for a block of tiny images with an engine that takes no time: reading, hashing, eleven files."""
    job = resolve_job(
        "counted",
        folder / f"{block_rows}.zarr",
        compute="local",
        workers=1,
        images=False,
        start="grid",
        block_rows=block_rows,
    )
    ready = survey(job, source=CountedImages(block_rows * blocks), encoder=MeanEncoder())
    with open_compute(
        ready.plan, source_factory=lambda: ready.source, encoder_factory=lambda: ready.encoder
    ) as compute:
        compute.encode(ready.plan.blocks[:1])
        began = time.perf_counter()
        compute.encode(ready.plan.blocks[1:])
        return 1e3 * (time.perf_counter() - began) / (blocks - 1)


def draw(results: dict[str, dict[int, list[tuple[Timing, Timing]]]], path: Path) -> None:
    """Rates over workers for each set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, found in results.items():
        counts = list(found)
        local, dask = ([statistics.median(pair[which].rate for pair in found[n]) for n in counts] for which in (0, 1))
        (line,) = axes.plot(counts, dask, marker="o", label=f"{name}: Dask workers")
        axes.plot(counts, local, marker="x", linestyle=":", color=line.get_color(), label=f"{name}: threads")
        for count, rate in zip(counts, dask, strict=True):
            axes.annotate(
                f"{ratio(found[count]):.0%}", (count, rate), textcoords="offset points", xytext=(6, -11), fontsize=8
            )
    axes.set(xlabel="workers", ylabel="images per second", ylim=(0, None))
    axes.set_xticks(list(next(iter(results.values()))))
    axes.set_title("n Dask worker processes against n threads of one process, same images", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the folders of the sets; none: overheads.")] = None,
    datasets: Annotated[list[str] | None, typer.Option("--set", help="Which sets. Default: sprites, mnist.")] = None,
    workers: Annotated[list[int] | None, typer.Option(help="Numbers of workers. Default: 1, 2, 4.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images for each worker.")] = 8192,
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of runs.")] = 3,
    plot: Annotated[Path | None, typer.Option(help="Where to write the plot (PNG).")] = None,
) -> None:
    """Prints the tables of docs/scaling.md."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the beginning")
    results = {}
    with tempfile.TemporaryDirectory(prefix="splatspace-scale-") as scratch:
        folder = Path(scratch)
        if data_dir is not None:
            for name in datasets or ["sprites", "mnist"]:
                results[name] = pairs(name, data_dir, workers or [1, 2, 4], images, repeats, folder)
                print(f"\n{name}, {repeats} pairs:\n\n{markdown(efficiency_table(results[name]))}", flush=True)
        alone, together = shard_overhead(folder)
        print(f"\nshard without work: {alone:.1f} ms one after the other, {together:.1f} ms with 4 workers busy\n")
        rows = [["rows of a block", "ms a block", "us a row"]]
        for size in (256, 1024, 8192):
            cost = block_overhead(folder, size)
            rows.append([f"{size:,}", f"{cost:.0f}", f"{1e3 * cost / size:.0f}"])
        print(markdown(rows))
    if plot is not None and results:
        draw(results, plot)


if __name__ == "__main__":
    typer.run(main)
