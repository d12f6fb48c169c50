"""Generators of pixels as ONNX graphs: one graph is one evaluation, noisy images and times to predicted clean ones.

The file says in its metadata, under ``splatspace``, all that sampling needs: the run's whole configuration, the points
of the sampler's path and how features become intensities. docs/cats.md has the loop.
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
from numpy.typing import NDArray
from torch import Tensor, nn

from data_schemas.errors import JobError, SamplingError
from data_schemas.files import explained, remove_abandoned, write_file
from data_schemas.stores.open import require_outside_stores
from models.diffusion.objectives import Objective
from models.diffusion.samplers import generators_for
from models.diffusion.samplers import sample as sample_batch
from models.features.pixels import PixelRepresentation
from pipeline.documents import extra_module
from pipeline.sample.run import Run

ENTRY = "splatspace"
GRAPH_VERSION = 1
OPSET = 20

TOLERANCE = 1e-3
"""Largest difference of a graph that is written, relative to the largest number of its answers; rounding makes 1e-5."""

CHECKED_IMAGES, CHECKED_STEPS = 2, 4


@dataclass(frozen=True)
class OnnxExported:
    """What was written.

    Attributes:
        path: of the file.
        bytes: of the file.
        difference: largest difference between the full-precision graph's and the network's answers over states of
            sampling, relative to the largest number of the answers.
        int8_psnr: dB between the predictions of the quantised graph and the network's; None for full precision.
    """

    path: Path
    bytes: int
    difference: float
    int8_psnr: float | None


@dataclass(frozen=True)
class State:
    """A batch on its way from noise to images, as the graph is fed.

    Attributes:
        inputs: ``noisy`` float32 [image, channel, row, column], ``time`` float32 [image] and, of generators with
            classes, ``label`` int64 [image] of classes.
        clean: float32 as ``noisy``: the network's prediction.
    """

    inputs: dict[str, NDArray[Any]]
    clean: NDArray[np.float32]


class _Evaluation(nn.Module):
    """What the graph holds: the network, and the reading of its answer."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        return self.objective.clean(self.model, noisy, time, label)


def onnx_module(name: str) -> Any:
    """A module of the extra ``onnx``.

    Raises:
        JobError: it is not installed.
    """
    return extra_module(name, extra="onnx", wanted_by="ONNX", without="sampling with splatspace sample, without it")


def export_onnx(run: Run, out: Path, *, int8: bool = False) -> OnnxExported:
    """Writes a generator of pixels as an ONNX graph that was compared with the network; or nothing.

    Args:
        run: from ``load_run``, on the CPU.
        out: ends in ``.onnx``; replaced whole.
        int8: products and convolutions with weights in eight bits, but for the drift network of predicted kernels.

    Returns:
        What was written, and how near it comes.

    Raises:
        JobError: another suffix, a generator of splats, or a package that is missing.
        SamplingError: a network that cannot be exported, or a graph that answers otherwise.
        StoreError: the file cannot be written.
    """
    if out.suffix.lower() != ".onnx":
        raise JobError(f"--onnx {out}", allowed="a path that ends in .onnx")
    require_outside_stores(out)
    states = sampler_states(run, images=CHECKED_IMAGES, steps=CHECKED_STEPS)
    data = onnx_graph(run)
    answers = graph_answers(data, states)
    difference = max(
        float(np.abs(answer - state.clean).max() / np.abs(state.clean).max())
        for answer, state in zip(answers, states, strict=True)
    )
    if not difference < TOLERANCE:
        raise SamplingError(
            f"The graph of {run.path} answers otherwise than the network: {difference:.2g} of the largest number",
            allowed=f"less than {TOLERANCE:g}",
        )
    quality = None
    if int8:
        from pipeline.export.onnx_quantise import quantised_graph

        data = quantised_graph(data, run)
        quality = prediction_psnr(run, graph_answers(data, states), states)
    with explained("write", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(out)
        write_file(out, data)
    return OnnxExported(out, len(data), difference, quality)


def onnx_graph(run: Run) -> bytes:
    """One evaluation of a generator of pixels as a serialised ONNX model in full precision, for batches of any size.

    Raises:
        JobError: a generator of splats, or a package that is missing.
        SamplingError: a network that cannot be exported.
    """
    representation = _pixels(run)
    onnx = onnx_module("onnx")
    onnx_module("onnxscript")
    spec, classes = run.spec, run.objective.classes
    inputs = [torch.zeros(2, spec.channels, spec.height, spec.width), torch.tensor([0.25, 0.5])]
    names = ["noisy", "time"]
    if classes:
        inputs.append(torch.tensor([-1, 0]))
        names.append("label")
    evaluation = _Evaluation(run.model, run.objective).eval()
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        # Tables that paths make when they are first asked are made here, not inside of the trace.
        evaluation(*inputs)
        try:
            program = torch.onnx.export(
                evaluation,
                tuple(inputs),
                input_names=names,
                output_names=["clean"],
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


def _pixels(run: Run) -> PixelRepresentation:
    if isinstance(run.representation, PixelRepresentation):
        return run.representation
    raise JobError(
        f"--onnx of {run.path}, which generates splats",
        allowed="generators of pixels: patch models, pixel-unet, pixel-dit",
        next_step="splatspace sample renders splats; splatspace export STORE --out writes them for other programs",
    )


def _metadata(run: Run, representation: PixelRepresentation) -> dict[str, Any]:
    settings, path = run.objective.settings, run.objective.sampling_path
    times = path.times(settings.evaluations)
    points = torch.tensor(times, dtype=torch.float64)
    return {
        "version": GRAPH_VERSION,
        "config": _without_places(run.config),
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
    }


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it may leave this machine: of files and folders only their names."""

    def named(part: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
        return {**part, **{name: str(part[name]).rpartition("/")[2] for name in fields if part.get(name)}}

    places = {"job": ("store", "out", "lpips_weights"), "store": ("path",)}
    return {**config, **{part: named(config[part], fields) for part, fields in places.items() if part in config}}


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


def sampler_states(run: Run, *, images: int, steps: int, seed: int = 0) -> list[State]:
    """What a graph meets while images are sampled, step by step.

    Args:
        run: a generator of pixels, on the CPU.
        images: in each batch; their labels go through all classes.
        steps: of Euler's method.
        seed: of the noise.

    Raises:
        JobError: a generator of splats.
    """
    representation = _pixels(run)
    classes = run.objective.classes
    label = torch.arange(images) % classes if classes else None
    found: list[State] = []

    def watch(_number: int, time: float, noisy: Tensor, clean: Tensor) -> None:
        inputs: dict[str, NDArray[Any]] = {"noisy": noisy.numpy(), "time": np.full(images, time, np.float32)}
        if label is not None:
            inputs["label"] = label.numpy()
        found.append(State(inputs, clean.numpy()))

    sample_batch(
        run.objective,
        run.model,
        (images, *representation.shape),
        generators=generators_for(seed, images),
        evaluations=steps,
        sampler="euler",
        label=label,
        trajectory=watch,
    )
    return found


def graph_answers(data: bytes, states: list[State]) -> list[NDArray[np.float32]]:
    """What onnxruntime makes of the states on the CPU, with as many threads as torch.

    Raises:
        JobError: onnxruntime is not installed.
    """
    runtime = onnx_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [session.run(["clean"], state.inputs)[0] for state in states]


def prediction_psnr(run: Run, answers: list[NDArray[np.float32]], states: list[State]) -> float:
    """DB between predicted images, intensities held in [0, 1]."""
    representation = _pixels(run)
    made, wanted = (
        representation.decode(torch.from_numpy(np.concatenate(parts)))
        for parts in (answers, [state.clean for state in states])
    )
    error = float((made - wanted).square().mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error))
