"""What a network is asked while images are sampled, and what an exported graph answers to the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import JobError
from encoders.quality import psnr_of_error
from models.diffusion.samplers import generators_for
from models.diffusion.samplers import sample as sample_batch
from models.features.pixels import PixelRepresentation
from models.networks.render_dit import RenderDiT
from pipeline.documents import extra_module
from pipeline.sample.run import Run


@dataclass(frozen=True)
class State:
    """A batch on its way from noise to images, as the graph is fed.

    Attributes:
        inputs: ``noisy`` float32 [image, channel, row, column], ``time`` float32 [image] and, of generators with
            classes, ``label`` int64 [image] of classes.
        clean: float32 as ``noisy``: the network's prediction.
        splats: float32 [image, gaussian, parameter], the network's Gaussians; None of networks without.
    """

    inputs: dict[str, NDArray[Any]]
    clean: NDArray[np.float32]
    splats: NDArray[np.float32] | None = None


def onnx_module(name: str) -> Any:
    """A module of the extra ``onnx``.

    Raises:
        JobError: it is not installed.
    """
    return extra_module(name, extra="onnx", wanted_by="ONNX", without="sampling with splatspace sample, without it")


def sampler_states(run: Run, *, images: int, steps: int, seed: int = 0) -> list[State]:
    """What a graph meets while images are sampled, step by step.

    A network that answers with Gaussians is shown the finished images too, without labels, as sampling does.

    Args:
        run: of a network that looks at pixels, on the CPU.
        images: in each batch; their labels go through all classes.
        steps: of Euler's method; a distilled network is asked for those that it has learnt.
        seed: of the noise.

    Raises:
        JobError: of a network that looks at splats.
    """
    representation = pixels_of(run)
    classes = run.objective.classes
    label = torch.arange(images) % classes if classes else None
    found: list[State] = []

    def watch(_number: int, time: float, noisy: Tensor, clean: Tensor) -> None:
        inputs: dict[str, NDArray[Any]] = {"noisy": noisy.numpy(), "time": np.full(images, time, np.float32)}
        if label is not None:
            inputs["label"] = label.numpy()
        found.append(State(inputs, clean.numpy(), _splats(run, noisy, time, label)))

    finished = sample_batch(
        run.objective,
        run.model,
        (images, *representation.shape),
        generators=generators_for(seed, images),
        evaluations=run.objective.settings.distilled or steps,
        sampler="euler",
        label=label,
        trajectory=watch,
    )
    if run.draws:
        inputs: dict[str, NDArray[Any]] = {"noisy": finished.numpy(), "time": np.ones(images, np.float32)}
        if label is not None:
            inputs["label"] = np.full(images, -1)
        with torch.no_grad():
            clean = run.objective.clean(run.model, finished, torch.ones(images))
        found.append(State(inputs, clean.numpy(), _splats(run, finished, 1.0, None)))
    return found


def _splats(run: Run, noisy: Tensor, time: float, label: Tensor | None) -> NDArray[np.float32] | None:
    if not isinstance(run.model, RenderDiT):
        return None
    with torch.no_grad():
        return run.model(noisy, torch.full((len(noisy),), time), label, whole=True).splats.numpy()


def graph_answers(
    data: bytes, states: list[State], output: Literal["clean", "splats"] = "clean"
) -> list[NDArray[np.float32]]:
    """What onnxruntime makes of the states on the CPU, with as many threads as torch.

    Args:
        data: of ``pipeline.export.onnx.onnx_graph``.
        states: to feed it.
        output: of the graph.

    Raises:
        JobError: onnxruntime is not installed.
    """
    runtime = onnx_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return [session.run([output], state.inputs)[0] for state in states]


def prediction_psnr(run: Run, answers: list[NDArray[np.float32]], states: list[State]) -> float:
    """DB between predicted images, intensities held in [0, 1]."""
    representation = pixels_of(run)
    made, wanted = (
        representation.decode(torch.from_numpy(np.concatenate(parts)))
        for parts in (answers, [state.clean for state in states])
    )
    return psnr_of_error(float((made - wanted).square().mean()))


def pixels_of(run: Run) -> PixelRepresentation:
    """How the run's network sees images.

    Raises:
        JobError: it looks at splats.
    """
    if isinstance(run.representation, PixelRepresentation):
        return run.representation
    raise JobError(
        f"--onnx of {run.path}, whose model {run.config['model']} looks at splats",
        allowed="models that look at pixels: render-dit, pixel-dit, pixel-unet, patch models",
        next_step="splatspace sample renders splats; splatspace export STORE --out writes them for other programs",
    )
