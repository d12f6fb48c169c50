"""Exactly K Gaussians for each image that a generator of pixels draws: the engine that fits them, as encode has it.

A fit may begin with the Gaussians that a trained network answers with when it is shown the image.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_schemas.errors import JobError, SamplingError
from data_schemas.records import RowBlock, StoreHeader
from encoders.base import NO_FIT, Encoder, FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.engines import ENGINE_CODECS, create_encoder
from encoders.frame import from_splats
from models.base import DataSpec
from models.features.splats import SplatRepresentation
from models.networks.render_dit import RenderDiT
from pipeline.encode.block import BlockEncoder
from pipeline.encode.block_decision import BlockInput
from pipeline.encode.header import fit_header
from pipeline.encode.job import available_workers
from pipeline.encode.presets import PATH_DEFAULTS, PRESETS, Preset
from pipeline.encode.records import BlockSummary
from pipeline.sample.run import Run
from pipeline.sample.store import describe_source
from pipeline.sources.base import SourceImage

IMAGES_AT_ONCE = 8
"""The network always sees so many: products of another size round otherwise, and a fit would show it."""

DEFAULT_ENGINE = "cpu"

POLISH_STEPS = 100
"""Of the fit that begins with a network's own Gaussians."""

_FROM_STORE = ("steps", "target_psnr", "rounds", "codec", "colours", "start")
"""Settings of the fit that are taken over from the store that a run learned from."""


class AnsweredStarts:
    """Starts of ``encoders.cpu.engine.CpuEncoder`` from a network that draws.

    Args:
        run: of a model that looks at pixels and answers with Gaussians.

    Raises:
        SamplingError: another kind of run.
    """

    def __init__(self, run: Run) -> None:
        if not isinstance(run.model, RenderDiT):
            raise SamplingError(
                f"{run.path} does not answer with Gaussians", allowed="a run of train splats --model render-dit"
            )
        self._run, self._model = run, run.model

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pixel-frame parameters (``encoders.frame``) to begin with.

        Args:
            images: uint8 [image, row, column, channel].

        Returns:
            float32 [image, gaussian, 5 + channel].
        """
        height, width = images.shape[1:3]
        if not len(images):  # the engine compiles with none
            return np.empty((0, self._run.spec.gaussians, 5 + images.shape[3]), np.float32)
        parts = [self._answered(images[at : at + IMAGES_AT_ONCE]) for at in range(0, len(images), IMAGES_AT_ONCE)]
        splats = np.concatenate(parts)
        layout = self._model.layout
        if layout.has_alpha:
            splats = np.delete(splats, layout.index("alpha"), axis=-1)
        return from_splats(splats, height, width)

    def _answered(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = len(images)
        whole = np.concatenate([images, np.repeat(images[-1:], IMAGES_AT_ONCE - count, axis=0)])
        device = next(self._model.parameters()).device
        features = self._run.representation.encode(torch.from_numpy(whole)).to(device)
        with torch.inference_mode():
            answer = self._model(features, torch.ones(len(whole), device=device), None, whole=True)
        return answer.splats[:count].cpu().numpy()

    def recipe(self) -> dict[str, Any]:
        """What decides the starts, for the record of a store."""
        config = self._run.config
        return {"network": config["model"], "preset": config["preset"], "step": config.get("step")}


@dataclass(frozen=True)
class SampleFit:
    """What fits the samples of a run.

    Attributes:
        encoder: the engine, with its settings.
        header: of a store of what it fits.
        view: the run as a generator of the fitted splats, which renders and moves them. Its features are positions,
            covariances and colours, not normalised; its network draws pixels still.
        notes: what a user should know.
    """

    encoder: Encoder
    header: StoreHeader
    view: Run
    notes: tuple[str, ...]

    def rows(self, pixels: NDArray[np.uint8]) -> tuple[RowBlock, BlockSummary]:
        """Fits, rounds and measures images, each by itself, as encode does.

        Args:
            pixels: uint8 [image, row, column, channel].

        Returns:
            The finished rows, and what they took.
        """
        images: list[SourceImage | None] = [SourceImage(str(place), image) for place, image in enumerate(pixels)]
        empty = RowBlock.empty(len(images), self.header)
        block = BlockInput(0, 0, empty, images, repaired=False, started=time.perf_counter())
        return BlockEncoder(self.header, self.encoder, available_workers(), lambda _digest: None).run(block)

    def splats(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The fitted splats of images, float32 [image, gaussian, parameter].

        Raises:
            SamplingError: an image that cannot be fitted.
        """
        rows, summary = self.rows(pixels)
        require_fitted(summary)
        return rows.splats

    def features(self, splats: NDArray[np.float32]) -> torch.Tensor:
        """What :attr:`view` moves: float32 [image, gaussian, feature]."""
        return self.view.representation.encode(torch.from_numpy(splats))


def require_fitted(summary: BlockSummary) -> None:
    """Refuses images without splats.

    Raises:
        SamplingError: names the first of them.
    """
    if summary.failed:
        first = summary.failed[0]
        raise SamplingError(
            f"{len(summary.failed)} of {summary.images} images cannot be fitted, first image {first.row}: "
            f"{first.reason}",
            next_step="give other --gaussians or --steps",
        )


def sample_fit(run: Run, *, gaussians: int | None = None, steps: int | None = None, seed: int = 0) -> SampleFit:
    """The engine for the samples of a run.

    Codec, colours, start, steps, engine and K are those of the store that the run learned from, so the fitted samples
    are splats of the same kind as that store's. Where it held images only, K and the rest are those of the named set.

    Args:
        run: a generator of pixels.
        gaussians: K; None takes that of the store.
        steps: of the optimiser; None takes those of the store.
        seed: of starts that are drawn.

    Raises:
        SamplingError: the run generates splats.
        JobError: K is neither given nor known, or a setting outside its range.
    """
    if run.spec.kind == "splats":
        raise SamplingError(
            f"--splats, and {run.path} generates splats already",
            allowed="--splats with a run of splatspace train pixels or train cats",
            next_step="leave --splats out",
        )
    if run.draws:
        encoder, notes = _polish(run, gaussians, steps, seed)
    else:
        encoder, notes = _engine(run, _settings(run, gaussians, steps, seed))
    spec = run.spec
    header = fit_header(
        encoder,
        (spec.height, spec.width, spec.channels),
        source=describe_source(run),
        block_rows=1,
        dtype="float32",
        images=True,
    )
    representation = SplatRepresentation(
        layout=header.layout, gaussians=header.gaussians, anchors=header.anchors, colours=header.colours
    )
    shape = DataSpec(
        "splats",
        gaussians=header.gaussians,
        features=representation.features,
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        classes=spec.classes,
        anchors=header.anchors,
    )
    view = dataclasses.replace(run, representation=representation, spec=shape, codec=header.codec)
    return SampleFit(encoder, header, view, notes)


def _polish(run: Run, gaussians: int | None, steps: int | None, seed: int) -> tuple[Encoder, tuple[str, ...]]:
    """The CPU's engine, which begins with what the network answers to the sampled image."""
    if gaussians not in (None, run.spec.gaussians):
        raise JobError(
            f"--gaussians {gaussians}, and {run.path} answers with {run.spec.gaussians}",
            allowed=f"{run.spec.gaussians}, or no --gaussians",
            next_step="leave --gaussians out",
        )
    settings = _settings(run, run.spec.gaussians, POLISH_STEPS if steps is None else steps, seed)
    return CpuEncoder(settings, workers=available_workers(), starts=AnsweredStarts(run)), ()


def _settings(run: Run, gaussians: int | None, steps: int | None, seed: int) -> FitSettings:
    identity: dict[str, Any] = run.config["store"]["identity"]
    preset = _preset(run)
    known = preset or PATH_DEFAULTS
    chosen: dict[str, Any] = {name: getattr(known, name) for name in ("steps", "codec", "colours", "start")}
    if identity["gaussians"]:
        chosen |= {name: identity[name] for name in ("codec", "colours", "start") if identity[name] is not None}
    recorded = identity["settings"]
    if "recipe" in recorded:  # of an engine of this program: the settings mean what they mean here
        chosen |= {name: recorded[name] for name in _FROM_STORE if name in recorded}
    if steps is not None:
        chosen["steps"] = steps
    count = gaussians or identity["gaussians"] or (preset.gaussians if preset else 0)
    if not count:
        raise JobError(
            f"--splats without --gaussians, and the store that {run.path} learned from had images only",
            allowed=f"a run whose store had splats, or of a named set ({', '.join(PRESETS)})",
            next_step="give --gaussians K",
        )
    return FitSettings(gaussians=count, seed=seed, **chosen)


def _preset(run: Run) -> Preset | None:
    """The named set that the images are of; one of another size, or of a file of that name, is not it."""
    preset = PRESETS.get(str(run.config["store"]["source"]["name"]).partition(" ")[0])
    shape = run.spec.height, run.spec.width, run.spec.channels
    return preset if preset is not None and (preset.height, preset.width, preset.channels) == shape else None


def _engine(run: Run, settings: FitSettings) -> tuple[Encoder, tuple[str, ...]]:
    """That of the store where it can run here; else the CPU's, which fits everywhere what it can fit."""
    workers = available_workers()
    wanted = str(run.config["store"]["identity"]["engine"])
    notes: list[str] = []
    if wanted != NO_FIT and settings.codec in ENGINE_CODECS.get(wanted, ()):
        try:
            return create_encoder(wanted, settings, workers=workers), ()
        except JobError as error:
            notes.append(f"Engine {wanted}, which made the store, cannot run here ({error.got}): another one fits.")
    engine = DEFAULT_ENGINE if settings.codec in ENGINE_CODECS[DEFAULT_ENGINE] else "auto"
    return create_encoder(engine, settings, workers=workers), tuple(notes)
