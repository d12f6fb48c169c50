"""Networks that look at pixels as ONNX graphs: one graph is one evaluation, noisy images and times to predicted ones.

A network that answers with Gaussians says them too. The file says in its metadata, under ``splatspace``, all that
sampling needs: the run's whole configuration, the points of the sampler's path, how features become intensities, and
what the numbers of a Gaussian are. docs/sample.md has the loop.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_schemas.errors import JobError, SamplingError
from data_schemas.files import save_file
from data_schemas.stores.open import require_outside_stores
from models.diffusion.objectives import Objective
from models.features.pixels import PixelRepresentation
from models.networks.render_dit import RenderDiT
from pipeline.export.sampler_states import State, graph_answers, onnx_module, pixels_of, prediction_psnr, sampler_states
from pipeline.sample.run import Run
from pipeline.train.run_record import without_places

ENTRY = "splatspace"
GRAPH_VERSION = 1
OPSET = 20

TOLERANCE = 1e-3
"""Largest difference of a graph that is written, relative to the largest number of its answers; rounding makes 1e-5."""

SMALLEST_COLUMN = 0.01
"""Columns of splats count as so large at least: one may be zero throughout, as rho is at first."""

CHECKED_IMAGES, CHECKED_STEPS = 2, 4


@dataclass(frozen=True)
class OnnxExported:
    """What was written.

    Attributes:
        path: of the file.
        bytes: of the file.
        difference: largest difference between the full-precision graph's and the network's answers over states of
            sampling, relative to the largest number of the answers; of splats, of each column.
        int8_psnr: dB between the predictions of the quantised graph and the network's; None for full precision.
    """

    path: Path
    bytes: int
    difference: float
    int8_psnr: float | None


class _Evaluation(nn.Module):
    """What the graph holds: the network, and the reading of its answer."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return self.objective.clean(self.model, noisy, time, label)


class _DrawnEvaluation(nn.Module):
    """The same of a network that answers with Gaussians: the prediction, and what it is drawn from."""

    def __init__(self, model: RenderDiT, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        said: list[Tensor] = []

        def answer(*question: Tensor) -> Tensor:
            image, splats = self.model(*question, whole=True)
            said.append(splats)
            return image

        return self.objective.clean(answer, noisy, time, label), said[0]


def export_onnx(run: Run, out: Path, *, int8: bool = False) -> OnnxExported:
    """Writes a network that looks at pixels as an ONNX graph that was compared with the network; or nothing.

    Args:
        run: from ``load_run``, on the CPU.
        out: ends in ``.onnx``; replaced whole.
        int8: products and convolutions with weights in eight bits, but for the drift network of predicted kernels.

    Returns:
        What was written, and how near it comes.

    Raises:
        JobError: another suffix, a network that looks at splats, or a package that is missing.
        SamplingError: a network that cannot be exported, or a graph that answers otherwise.
        StoreError: the file cannot be written.
    """
    if out.suffix.lower() != ".onnx":
        raise JobError(f"--onnx {out}", allowed="a path that ends in .onnx")
    require_outside_stores(out)
    states = sampler_states(run, images=CHECKED_IMAGES, steps=CHECKED_STEPS)
    data = onnx_graph(run)
    difference = largest_difference(data, states)
    if not difference < TOLERANCE:
        raise SamplingError(
            f"The graph of {run.path} answers otherwise than the network: {difference:.2g} of the largest number",
            allowed=f"less than {TOLERANCE:g}",
        )
    quality = None
    if int8:
        from pipeline.export.onnx_quantise import quantise_graph

        data = quantise_graph(data, run)
        quality = prediction_psnr(run, graph_answers(data, states), states)
    save_file(out, data)
    return OnnxExported(out, len(data), difference, quality)


def largest_difference(data: bytes, states: list[State]) -> float:
    """How far a graph's answers are from the network's; see :class:`OnnxExported`."""
    found = [
        np.abs(answer - state.clean).max() / np.abs(state.clean).max()
        for answer, state in zip(graph_answers(data, states), states, strict=True)
    ]
    drawn = [state.splats for state in states if state.splats is not None]
    if drawn:
        for answer, splats in zip(graph_answers(data, states, "splats"), drawn, strict=True):
            largest = np.abs(splats).max(axis=(0, 1)).clip(min=SMALLEST_COLUMN)
            found.append((np.abs(answer - splats).max(axis=(0, 1)) / largest).max())
    return float(np.max(found))  # NaN stays NaN


def onnx_graph(run: Run) -> bytes:
    """One evaluation of a network that looks at pixels as a serialised ONNX model, for batches of any size.

    Computes in full precision. Its outputs are ``clean`` and, of a network that answers with Gaussians, ``splats``.

    Raises:
        JobError: a network that looks at splats, or a package that is missing.
        SamplingError: a network that cannot be exported.
    """
    representation = pixels_of(run)
    onnx = onnx_module("onnx")
    onnx_module("onnxscript")
    spec, classes = run.spec, run.objective.classes
    inputs = [torch.zeros(2, spec.channels, spec.height, spec.width), torch.tensor([0.25, 0.5])]
    names = ["noisy", "time"]
    if classes:
        inputs.append(torch.tensor([-1, 0]))
        names.append("label")
    if isinstance(run.model, RenderDiT):
        evaluation, outputs = _DrawnEvaluation(run.model, run.objective), ["clean", "splats"]
    else:
        evaluation, outputs = _Evaluation(run.model, run.objective), ["clean"]
    evaluation.eval()
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        # Tables that paths make when they are first asked are made here, not inside of the trace.
        evaluation(*inputs)
        try:
            program = torch.onnx.export(
                evaluation,
                tuple(inputs),
                input_names=names,
                output_names=outputs,
                opset_version=OPSET,
                dynamic_shapes=tuple({0: batch} for _ in inputs),
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise SamplingError(f"{run.path} cannot be exported: {next(iter(str(error).splitlines()), '')}") from error
    assert program is not None
    model = program.model_proto
    _strip(model)
    model.producer_name = ENTRY
    onnx.helper.set_model_props(model, {ENTRY: json.dumps(_metadata(run, representation), allow_nan=False)})
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _metadata(run: Run, representation: PixelRepresentation) -> dict[str, Any]:
    settings, path = run.objective.settings, run.objective.sampling_path
    times = path.times(settings.evaluations)
    points = torch.tensor(times, dtype=torch.float64)
    return {
        "version": GRAPH_VERSION,
        "config": without_places(run.config),
        "classes": run.objective.classes,
        # The graph reads classes: class c stands for labels[c], as the data set numbers and names it.
        "labels": list(run.labels.numbers),
        "label_names": [run.labels.name(label) for label in run.labels.numbers],
        "shape": list(representation.shape),
        "mean": representation.mean.tolist(),
        "scale": representation.scale.tolist(),
        "times": times,
        "signal": path.signal(points).tolist(),
        "noise": path.noise(points).tolist(),
        **({"splats": _splat_facts(run.model, run.config)} if isinstance(run.model, RenderDiT) else {}),
    }


def _splat_facts(model: RenderDiT, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "gaussians": model.spec.gaussians,
        "layout": model.layout.name,
        "parameters": list(model.layout.names),
        "codec": config["codec"],
        "colours": model.spec.colours,
    }


def _strip(model: Any) -> None:
    """Takes off what the exporter notes of the source code, paths of this machine among it."""
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    del model.functions[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter talks of its own deprecations, and of packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
