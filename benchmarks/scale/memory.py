"""Memory of a run over millions of images: client, scheduler and workers, second by second.

    python -m benchmarks.scale.memory --images 10000000 --plot docs/images/memory.png

A source that makes its images on demand and an engine that takes no time leave only what grows with the number of
images. Scheduler and workers are processes of their own, on loopback. Prints a table in Markdown.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from benchmarks.encode import markdown
from benchmarks.harness import CountedImages, MeanEncoder
from pipeline.encode.compute import encode_shards, open_compute
from pipeline.encode.compute.local import shards
from pipeline.encode.job import resolve_job
from pipeline.encode.plan import survey
from pipeline.encode.records import BlockSummary

MEBIBYTE = 2**20

_WORKER = ("worker", "--host", "127.0.0.1", "--no-dashboard", "--nthreads", "1", "--memory-limit", "0")
_SCHEDULER = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")


class Sampler:
    """Resident memory of named groups of processes, once a period, in a thread of its own.

    Args:
        groups: name -> answers which processes belong to it now.
        period: seconds.
    """

    def __init__(self, groups: dict[str, Callable[[], list[psutil.Process]]], period: float = 1.0) -> None:
        self._groups, self._period = groups, period
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.began = time.monotonic()
        self.seconds: list[float] = []
        self.mebibytes: dict[str, list[float]] = {name: [] for name in groups}

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self.seconds.append(self.now())
            for name, processes in self._groups.items():
                self.mebibytes[name].append(sum(map(resident, processes())) / MEBIBYTE)


def resident(process: psutil.Process) -> int:
    """Bytes of memory that a process holds; 0 where it has gone."""
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


class Progress:
    """Counts the images that are done.

    Args:
        sampler: gives the time.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self.done = [(0.0, 0)]

    def within_block(self, summary: BlockSummary) -> None:
        """Not counted."""

    def block_done(self, summary: BlockSummary) -> None:
        """Some more are done."""
        self.done.append((self._sampler.now(), self.done[-1][1] + summary.images))


@contextlib.contextmanager
def dask(*arguments: str) -> Iterator[psutil.Process]:
    """``dask ARGUMENTS`` as a process, ended with its children."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        env={**os.environ, "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    one = psutil.Process(process.pid)
    try:
        yield one
    finally:
        everybody = [*one.children(recursive=True), one]
        for each in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


def heaviest_child(nanny: psutil.Process) -> list[psutil.Process]:
    """The worker below its nanny."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return sorted(nanny.children(recursive=True), key=resident)[-1:]
    return []


def measure(images: int, workers: int, folder: Path, period: float) -> dict[str, Any]:
    """Runs it and returns times, memory and the marks between the phases."""
    file, out = folder / "scheduler.json", folder / "counted.zarr"
    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(dask(*_SCHEDULER, "--scheduler-file", str(file)))
        while not file.exists() or not file.read_text().strip().endswith("}"):
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        local = ("--local-directory", str(folder))
        nannies = [stack.enter_context(dask(*_WORKER, *local, address)) for _ in range(workers)]
        groups: dict[str, Callable[[], list[psutil.Process]]] = {
            "client": lambda: [psutil.Process()],
            "scheduler": lambda: [scheduler],
        }
        for number, nanny in enumerate(nannies, 1):
            groups[f"worker {number}"] = partial(heaviest_child, nanny)
        sampler = stack.enter_context(Sampler(groups, period))
        progress = Progress(sampler)
        job = resolve_job("counted images", out, compute=address, workers=workers, images=False, start="grid")
        plan = survey(job, source=CountedImages(images), encoder=MeanEncoder()).plan
        planned = sampler.now()
        with open_compute(plan, source_factory=partial(CountedImages, images), encoder_factory=MeanEncoder) as compute:
            groups_of_blocks = shards(plan.blocks, plan.header.block_rows, 1, most=len(plan.blocks))
            summary = compute.finish(encode_shards(compute, groups_of_blocks, progress))
        encoded = sampler.now()
        if summary.rows_done != images:
            raise SystemExit(f"{summary.rows_done} of {images} rows are done")
    return {
        "images": images,
        "workers": workers,
        "shards": len(groups_of_blocks),
        "planned": planned,
        "encoded": encoded,
        "seconds": sampler.seconds,
        "mebibytes": sampler.mebibytes,
        "done": progress.done,
        "stored_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "files": sum(path.is_file() for path in out.rglob("*")),
    }


def phases(result: dict[str, Any]) -> list[list[str]]:
    """A table: the most memory while planning and in four quarters of the encoding."""
    times = [result["planned"] + part / 4 * (result["encoded"] - result["planned"]) for part in range(5)]
    rows = [["process", "planning", *(f"{part}th quarter" for part in ("1", "2", "3", "4"))]]
    rows[0][2:5] = ["1st quarter", "2nd quarter", "3rd quarter"]
    for name, values in result["mebibytes"].items():
        spans = [(0.0, times[0]), *itertools.pairwise(times)]
        most = [
            max((v for t, v in zip(result["seconds"], values, strict=True) if low <= t < high), default=0.0)
            for low, high in spans
        ]
        rows.append([name, *(f"{value:.0f} MiB" for value in most)])
    return rows


def draw(result: dict[str, Any], path: Path) -> None:
    """Memory and images done over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, values in result["mebibytes"].items():
        axes.plot(result["seconds"], values, label=name, linewidth=1.3)
    axes.axvline(result["planned"], color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="seconds", ylabel="resident memory (MiB)", ylim=(0, None))
    count = axes.twinx()
    count.plot(*zip(*result["done"], strict=True), color="black", linestyle="--", linewidth=1)
    count.set(ylabel="images done (dashed)", ylim=(0, None))
    axes.set_title(f"{result['images']:,} images through {result['workers']} Dask workers; dotted: end of planning")
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, ncols=2, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(
    images: Annotated[int, typer.Option(min=1000, help="How many images.")] = 10_000_000,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 4,
    folder: Annotated[Path | None, typer.Option(help="Where the store is written, and removed; needs space.")] = None,
    period: Annotated[float, typer.Option(min=0.05, help="Seconds between two looks.")] = 1.0,
    plot: Annotated[Path | None, typer.Option(help="Where to write the plot (PNG).")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Where to write the samples.")] = None,
) -> None:
    """Prints the table of docs/scaling.md."""
    scratch = Path(tempfile.mkdtemp(prefix="splatspace-memory-", dir=folder))
    try:
        result = measure(images, workers, scratch, period)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = result["encoded"] - result["planned"]
    print(
        f"{images:,} images, {workers} workers, {result['shards']:,} shards: planned in {result['planned']:.0f} s, "
        f"encoded in {seconds:.0f} s ({images / seconds:,.0f} images/s), {result['files']:,} files, "
        f"{result['stored_bytes'] / images:.0f} bytes an image, on {os.cpu_count()} cores\n"
    )
    print(markdown(phases(result)))
    if plot is not None:
        draw(result, plot)
    if json_out is not None:
        json_out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    typer.run(main)
