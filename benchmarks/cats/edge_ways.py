"""Ways to put weights into eight bits, on this CPU: size, time of one evaluation, and how far predictions move.

    OMP_NUM_THREADS=1 python -m benchmarks.cats.edge_ways runs/kpn runs/lut

``splatspace export --int8`` takes the first way. The second one fills all eight bits: right where the CPU adds
products of eight bits in 32 bits (VNNI, and those of ARM), wrong where it adds pairs of them in 16. The same file with
onnxruntime's option ``session.x64quantprecision`` is right everywhere, but an option belongs to whoever opens the file.
Weights without a sign, and inputs with one, are the other two. PSNR compares predictions with the network's on states
of sampling that did not set the ranges. Times are medians of evaluations of one image, the graphs by turns, by the
clock of the process, which other programs disturb little.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cats.edge import COMPARED_IMAGES, COMPARED_SEED, COMPARED_STEPS, TIMED, milliseconds, session_of
from pipeline.export.onnx import onnx_graph
from pipeline.export.onnx_quantise import quantise_graph
from pipeline.export.sampler_states import onnx_module, prediction_psnr, sampler_states
from pipeline.sample.run import Run, load_run


@dataclass(frozen=True)
class Way:
    """How one graph is made and opened.

    Attributes:
        name: in the table.
        options: of ``quantize_static``; None for full precision.
        entries: of the session's configuration.
    """

    name: str
    options: dict[str, Any] | None
    entries: dict[str, str]


def ways() -> list[Way]:
    """All that are compared, full precision first."""
    kinds = onnx_module("onnxruntime.quantization").QuantType
    eight = {"reduce_range": False}
    return [
        Way("full precision", None, {}),
        Way("weights of 7 bits", {}, {}),
        Way("weights of 8 bits", eight, {}),
        Way("weights of 8 bits, x64quantprecision", eight, {"session.x64quantprecision": "1"}),
        Way("weights of 8 bits without a sign", {**eight, "weight_type": kinds.QUInt8}, {}),
        Way("inputs and weights of 8 bits with a sign", {**eight, "activation_type": kinds.QInt8}, {}),
    ]


def lines(run: Run, *, timed: int = TIMED) -> list[str]:
    """Lines of the table, one a way.

    Args:
        run: a generator of pixels that predicts clean images, on the CPU.
        timed: evaluations of each graph that are timed.
    """
    full = onnx_graph(run)
    compared = ways()
    graphs = [full if way.options is None else quantise_graph(full, run, way.options) for way in compared]
    sessions = [session_of(graph, way.entries) for graph, way in zip(graphs, compared, strict=True)]
    states = sampler_states(run, images=COMPARED_IMAGES, steps=COMPARED_STEPS, seed=COMPARED_SEED)
    times = milliseconds(sessions, states[0], timed, clock=time.process_time)
    found = []
    for way, graph, session, spent in zip(compared, graphs, sessions, times, strict=True):
        answers = [session.run(["clean"], state.inputs)[0] for state in states]
        quality = prediction_psnr(run, answers, states)
        found.append(f"| `{run.config['model']}` | {way.name} | {len(graph) / 1e6:.2f} | {spent:.2f} | {quality:.1f} |")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measures the runs that are named and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    given = parser.parse_args(arguments)
    print("| model | way | MB | ms | PSNR, dB |\n|---|---|---|---|---|")
    for path in given.runs:
        print("\n".join(lines(load_run(path, device="cpu"))), flush=True)


if __name__ == "__main__":
    main()
