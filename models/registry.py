"""Every generator by name, its presets, and what one step of it costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.descriptions import DESCRIPTIONS, ModelDescription
from models.names import PresetName, model_name
from models.networks.pixel_dit import PixelDiT, PixelDiTConfig
from models.networks.pixel_unet import PixelUNet, PixelUNetConfig
from models.networks.published import PublishedConfig, PublishedTransformer
from models.networks.render_dit import RenderDiT, RenderDiTConfig, nothing_drawn
from models.networks.set_transformer import SetConfig, SetTransformer
from models.networks.splatdit import SplatDiT, SplatDiTConfig
from models.networks.trunk import TrunkSize
from models.operations import CountedProducts, UnwrittenWeights
from models.patches.model import FAMILIES, PatchModel, PublishedPatchModel

__all__ = [
    "MODELS",
    "DataSpec",
    "Denoiser",
    "ModelCost",
    "ModelEntry",
    "PresetName",
    "build_model",
    "measure_model",
    "model_named",
    "step_gflop",
]

PRESETS: tuple[PresetName, ...] = get_args(PresetName)

_TRUNKS: dict[PresetName, TrunkSize] = {
    "tiny": TrunkSize(width=128, depth=4, heads=2),
    "small": TrunkSize(width=256, depth=8, heads=4),
    "medium": TrunkSize(width=384, depth=8, heads=6),
    # A little narrower inside than 8/3, to stay below 3.8 GFLOP per step at K = 150.
    "full": TrunkSize(width=512, depth=12, heads=8, hidden=1312),
}


@dataclass(frozen=True, kw_only=True)
class ModelEntry(ModelDescription):
    """A kind of generator that can be built.

    Attributes:
        network: the class that is built, with ``spec`` and one of the presets.
        presets: the sizes.
    """

    network: Callable[[DataSpec, Any], Denoiser]
    presets: Mapping[str, Any]


_NETWORKS: Mapping[str, tuple[Callable[[DataSpec, Any], Denoiser], Mapping[str, Any]]] = {
    "splatdit": (SplatDiT, {name: SplatDiTConfig(size) for name, size in _TRUNKS.items()}),
    "set": (SetTransformer, {name: SetConfig(size) for name, size in _TRUNKS.items()}),
    "set-induced": (SetTransformer, {name: SetConfig(size, inducing=32) for name, size in _TRUNKS.items()}),
    "published": (
        PublishedTransformer,
        {
            "tiny": PublishedConfig(width=64, depth=8),
            "small": PublishedConfig(width=192, depth=8),
            "medium": PublishedConfig(width=288, depth=8),
            "full": PublishedConfig(width=512, depth=8),
        },
    ),
    "pixel-unet": (
        PixelUNet,
        {
            "tiny": PixelUNetConfig(channels=32, multiples=(1, 2, 2), blocks=1),
            "small": PixelUNetConfig(channels=64, multiples=(1, 2, 2, 2), blocks=1),
            "medium": PixelUNetConfig(channels=96, multiples=(1, 2, 2, 2), blocks=2, head_width=32),
            "full": PixelUNetConfig(channels=128, multiples=(1, 2, 2, 2), blocks=2),
        },
    ),
    "pixel-dit": (PixelDiT, {name: PixelDiTConfig(size) for name, size in _TRUNKS.items()}),
    "render-dit": (RenderDiT, {name: RenderDiTConfig(size) for name, size in _TRUNKS.items()}),
} | {
    model_name(head, recipe): (PatchModel if recipe == "modern" else PublishedPatchModel, presets)
    for (head, recipe), presets in FAMILIES.items()
}

MODELS: dict[str, ModelEntry] = {
    name: ModelEntry(**vars(described), network=_NETWORKS[name][0], presets=_NETWORKS[name][1])
    for name, described in DESCRIPTIONS.items()
}


def model_named(name: str) -> ModelEntry:
    """The entry of a model.

    Raises:
        JobError: no such model.
    """
    if name not in MODELS:
        raise JobError(f"model {name!r}", allowed=", ".join(MODELS), next_step="splatspace models lists them")
    return MODELS[name]


def build_model(name: str, preset: str, spec: DataSpec, **changes: Any) -> Denoiser:
    """Builds a network on torch's current default device, with weights from torch's current generator.

    Args:
        name: of :data:`MODELS`.
        preset: ``tiny``, ``small``, ``medium`` or ``full``.
        spec: the data.
        changes: fields of the preset that differ, such as ``pack=4`` (splatdit) or ``patch=8`` (pixel-dit).

    Returns:
        The network in training mode.

    Raises:
        JobError: an unknown name, preset or change, or data that the model does not take.
    """
    entry = model_named(name)
    if preset not in entry.presets:
        raise JobError(f"preset {preset!r} of model {name}", allowed=", ".join(entry.presets))
    if spec.kind != entry.sees:
        fitting = ", ".join(other for other, candidate in MODELS.items() if candidate.sees == spec.kind)
        raise JobError(f"model {name} looks at {entry.sees}, and the data is {spec.kind}", allowed=fitting)
    config = entry.presets[preset]
    known = [field.name for field in dataclasses.fields(config)]
    unknown = sorted(set(changes) - set(known))
    if unknown:
        raise JobError(f"{', '.join(unknown)} of model {name}", allowed=", ".join(known))
    for field, value in changes.items():
        wanted = type(getattr(config, field))
        if not isinstance(value, (int, float) if wanted is float else wanted):
            raise JobError(f"{field} = {value!r} of model {name}", allowed=f"{wanted.__name__}")
    try:
        return entry.network(spec, dataclasses.replace(config, **changes))
    except (RuntimeError, MemoryError, ArithmeticError) as error:  # what torch says of sizes that it cannot make
        given = ", ".join(f"{field} = {value}" for field, value in changes.items()) or "no changes"
        reason = next(iter(str(error).splitlines()), "no reason is known")
        raise JobError(f"A network of model {name} ({preset}) with {given} cannot be built: {reason}") from error


@dataclass(frozen=True)
class ModelCost:
    """What a network costs.

    Attributes:
        parameters: trainable numbers.
        gflop: billions of floating-point operations of one forward pass of one sample.
    """

    parameters: int
    gflop: float


@contextmanager
def _count_plain_attention() -> Iterator[None]:
    """Attention in its plain form: the counter sees neither torch's fused layers nor its fused attention on a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def measure_model(name: str, preset: str, spec: DataSpec, **changes: Any) -> ModelCost:
    """Parameters and cost of one step, counted without computing a product.

    Args:
        name: see :func:`build_model`.
        preset: see :func:`build_model`.
        spec: the data; its K or its size set the number of tokens.
        changes: see :func:`build_model`.

    Returns:
        Counted with one time per sample, as in sampling; a product and its sum are two operations.

    Raises:
        JobError: see :func:`build_model`.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), UnwrittenWeights():
        model = build_model(name, preset, spec, **changes)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelCost(parameters=parameters, gflop=step_gflop(model))


def step_gflop(model: Denoiser) -> float:
    """Billions of operations of one forward pass of one sample.

    Args:
        model: on any device; its products are not computed.

    Returns:
        GFLOP; matrix products, convolutions and attention are counted, as two operations per product. What a renderer
        of Gaussians does is not.
    """
    spec = model.spec
    device = next(model.parameters()).device
    if spec.kind == "splats":
        noisy = torch.zeros(1, spec.gaussians, spec.features, device=device)
    else:
        noisy = torch.zeros(1, spec.channels, spec.height, spec.width, device=device)
    time = torch.full((1,), 0.5, device=device)
    was_training = model.training
    renderer = model.renderer if isinstance(model, RenderDiT) else None
    model.eval()
    try:
        if isinstance(model, RenderDiT):
            model.renderer = nothing_drawn
        with (
            torch.no_grad(),
            _count_plain_attention(),
            CountedProducts() as counted,
            counted.count_repeats_once(model),
        ):
            model(noisy, time)
    finally:
        model.train(was_training)
        if isinstance(model, RenderDiT):
            model.renderer = renderer
    return counted.total / 1e9
