"""What eight bits cost generators of pixels: size, time of one evaluation, predictions and KID, before and after.

    OMP_NUM_THREADS=1 python -m benchmarks.cats.edge runs/kpn runs/lut --store cats.zarr --images 256

Each run becomes an ONNX graph in full precision and one in eight bits (``splatspace export --onnx``); both sample the
same images from the same noise in onnxruntime, on one thread of the CPU, and are measured against the same
originals. Times are medians of single evaluations of one image, the two graphs by turns. PSNR compares the predictions
of both graphs with the network's on states of sampling that did not set the ranges. The order of lines is that of
the runs; nothing is written.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_schemas.errors import JobError
from data_schemas.stores.open import open_store
from models.base import DataSpec, Denoiser
from pipeline.evaluate.features import FeatureExtractor, build_extractor
from pipeline.evaluate.metrics import kernel_distance
from pipeline.export.onnx import onnx_graph
from pipeline.export.onnx_quantise import quantise_graph
from pipeline.export.sampler_states import State, graph_answers, onnx_module, prediction_psnr, sampler_states
from pipeline.sample.draws import Settings, draw
from pipeline.sample.run import Run, load_run
from pipeline.store_images import originals

TIMED = 30
COMPARED_IMAGES, COMPARED_STEPS, COMPARED_SEED = 8, 8, 2


@dataclass(frozen=True)
class Precision:
    """One graph of a run.

    Attributes:
        bytes: of the file.
        milliseconds: of one evaluation of one image, median.
        psnr: of predictions against the network's, dB.
        kid: against the originals.
        kid_deviation: over the subsets.
    """

    bytes: int
    milliseconds: float
    psnr: float
    kid: float
    kid_deviation: float


@dataclass(frozen=True)
class Compared:
    """A run before and after.

    Attributes:
        name: of the network.
        full: in full precision.
        int8: in eight bits.
    """

    name: str
    full: Precision
    int8: Precision


def session_of(data: bytes, entries: Mapping[str, str] | None = None) -> Any:
    """The graph in onnxruntime, on one thread, with entries of the session's configuration."""
    runtime = onnx_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for name, value in (entries or {}).items():
        options.add_session_config_entry(name, value)
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


class GraphModel(Denoiser):
    """A graph in the place of the network that it was made of.

    Args:
        spec: of the network.
        session: see :func:`session_of`.
    """

    def __init__(self, spec: DataSpec, session: Any) -> None:
        super().__init__(spec)
        self._session = session

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`."""
        inputs = {"noisy": noisy.numpy(), "time": time.float().numpy()}
        if self.spec.classes:
            absent = torch.full((len(noisy),), -1)
            known = absent if label is None else torch.where(label == self.spec.classes, absent, label)
            inputs["label"] = known.numpy()
        return torch.from_numpy(self._session.run(["clean"], inputs)[0])


def compared(
    run: Run, real: Tensor, extractor: FeatureExtractor, *, evaluations: int | None = None, timed: int = TIMED
) -> Compared:
    """Measures one run in both precisions.

    Args:
        run: a generator of pixels that predicts clean images, on the CPU.
        real: uint8 [image, channel, row, column]; as many are sampled.
        extractor: of features for KID.
        evaluations: of sampling; None takes the run's.
        timed: evaluations of each graph that are timed.

    Raises:
        JobError: a generator of splats, or one that predicts something else than clean images.
    """
    if run.objective.settings.target != "clean":
        raise JobError(f"{run.path} predicts {run.objective.settings.target}", allowed="runs that predict clean images")
    full = onnx_graph(run)
    graphs = [full, quantise_graph(full, run)]
    states = sampler_states(run, images=COMPARED_IMAGES, steps=COMPARED_STEPS, seed=COMPARED_SEED)
    sessions = [session_of(data) for data in graphs]
    times = milliseconds(sessions, states[0], timed)
    settings = Settings(
        sampler=run.objective.settings.sampler,
        evaluations=evaluations or run.objective.settings.evaluations,
        guidance=1.0,
        seed=0,
        batch=32,
    )
    classes = run.objective.classes
    labels = np.arange(len(real)) % classes if classes else None
    features = extractor.forward(real)
    found = []
    for data, session, median in zip(graphs, sessions, times, strict=True):
        sampled = dataclasses.replace(run, model=GraphModel(run.spec, session))
        drawn = draw(sampled, settings, labels, len(real), lambda _done: None)
        kid, deviation = kernel_distance(features, extractor.forward(drawn.images))
        quality = prediction_psnr(run, graph_answers(data, states), states)
        found.append(Precision(len(data), median, quality, kid, deviation))
    return Compared(str(run.config["model"]), *found)


def milliseconds(
    sessions: list[Any], state: State, timed: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Medians of evaluations of one image, the sessions by turns, so that a busy machine slows all alike."""
    feed = {name: value[:1] for name, value in state.inputs.items()}
    seen: list[list[float]] = [[] for _ in sessions]
    for number in range(timed + 1):
        for session, times in zip(sessions, seen, strict=True):
            began = clock()
            session.run(["clean"], feed)
            if number:  # the first one warms up
                times.append(1000 * (clock() - began))
    return [statistics.median(times) for times in seen]


def table(found: list[Compared]) -> str:
    """Markdown with a line a run."""
    lines = [
        "| model | MB | MB int8 | ms | ms int8 | PSNR int8, dB | KID | KID int8 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        full, int8 = each.full, each.int8
        lines.append(
            f"| `{each.name}` | {full.bytes / 1e6:.2f} | {int8.bytes / 1e6:.2f} | {full.milliseconds:.2f} |"
            f" {int8.milliseconds:.2f} | {int8.psnr:.1f} | {full.kid:.2f} ± {full.kid_deviation:.2f} |"
            f" {int8.kid:.2f} ± {int8.kid_deviation:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measures the runs that are named and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--store", required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--evaluations", type=int, default=None)
    given = parser.parse_args(arguments)
    runs = [load_run(path, device="cpu") for path in given.runs]
    with open_store(given.store, "r") as store:
        for run in runs:
            run.require_same_data(store.header, store.path)
        rows = np.random.default_rng(0).permutation(store.finished_rows())[: given.images]
        real, extractor = originals(store, rows), build_extractor("auto", store)
    print(table([compared(run, real, extractor, evaluations=given.evaluations) for run in runs]))


if __name__ == "__main__":
    main()
