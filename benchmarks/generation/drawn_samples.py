"""What the splats of samples are good for: polish, moving, interpolation, encoding in one pass, larger images.

    OMP_NUM_THREADS=1 python -m benchmarks.generation.drawn_samples RUN --store sprites.zarr --unseen sprites-test.zarr
    OMP_NUM_THREADS=1 python -m benchmarks.generation.drawn_samples RUN --store sprites.zarr \
        --unseen sprites-test.zarr --larger sprites64-test.zarr --beside RUN64

``RUN`` is a training of ``render-dit`` on ``--store``; ``--unseen`` holds images that it did not learn from. A run of
``pixel-dit`` is measured with its samples fitted from ``transport``: the composition, under the same head lines.
Samples of ``--beside`` runs, which learned at the size of ``--larger``, stand in its table, and their splats.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.encode import markdown
from data_schemas.splats import layout_named
from data_schemas.stores.open import open_store
from encoders.base import Encoder, FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from pipeline.evaluate.features import FeatureExtractor, build_extractor
from pipeline.evaluate.metrics import frechet_distance, support
from pipeline.sample.draws import Settings, between, draw
from pipeline.sample.fit import AnsweredStarts, SampleFit, sample_fit
from pipeline.sample.run import Run, load_run
from pipeline.store_images import as_channels_first, as_channels_last, originals

DARK = 0.02
"""Intensity below which a Gaussian draws nothing that is seen."""

POLISH = (0, 25, 50, 100)
ENCODER = (0, 25, 50, 100, 200, 400)
ENLARGED = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Measured:
    """Sampled images, and with what they are compared.

    Attributes:
        run: the generator.
        images: uint8 [image, row, column, channel].
        extractor: of features.
        real: features of images that it did not learn from.
    """

    run: Run
    images: NDArray[np.uint8]
    extractor: FeatureExtractor
    real: Tensor

    def score(self, pictures: NDArray[np.uint8]) -> list[str]:
        """FID, precision, recall."""
        found = self.extractor.forward(as_channels_first(pictures))
        covered = support(self.real, found)
        fid = frechet_distance(self.real, found)
        return [f"{fid:.3f}", f"{covered.precision:.3f}", f"{covered.recall:.3f}"]


def drawn(run: Run, splats: NDArray[np.float32], size: int | None = None) -> NDArray[np.uint8]:
    """Splats of a run, decoded; ``size`` is the longer side in pixels."""
    config = run.config
    layout = layout_named(str(config["layout"]))
    height, width = run.size_of(size)
    return to_uint8(decode(splats, layout=layout, codec=str(config["codec"]), height=height, width=width))


def fitted(run: Run, images: NDArray[np.uint8], steps: int, *, own: bool) -> tuple[NDArray[np.float32], float]:
    """Splats of images, and core seconds per image, the network's answer included."""
    config = run.config
    settings = FitSettings(
        int(config["store"]["identity"]["gaussians"]), steps, codec=config["codec"], colours=config["colours"]
    )
    engine: Encoder = CpuEncoder(settings, workers=1, starts=AnsweredStarts(run) if own else None)
    engine.fit(images[:1])  # compiles
    used = time.process_time()
    splats = engine.fit(images).splats
    return splats, (time.process_time() - used) / len(images)


def curve(run: Run, images: NDArray[np.uint8], steps: tuple[int, ...], score: Callable[..., list[str]] | None) -> str:
    """PSNR over steps, from the network's own splats and from ``transport``."""
    head = ["start", "steps", "PSNR, dB", "PSNR of the worst 1 %", "core-ms/image", "dark splats"]
    rows = [head + (["FID", "precision", "recall"] if score is not None else [])]
    for own in (True, False) if run.draws else (False,):
        for number in steps:
            if not (own or number):
                continue
            splats, seconds = fitted(run, images, number, own=own)
            pictures = drawn(run, splats)
            error = np.square(pictures.astype(np.float64) - images).mean(axis=(1, 2, 3))
            mean = 10 * np.log10(255**2 / error.mean())
            worst = np.quantile(psnr(pictures, images), 0.01)
            colours = splats[..., layout_named(str(run.config["layout"])).colour_slice]
            dark = float((np.abs(colours).max(axis=-1) < DARK).mean())
            start = "the network" if own else "transport"
            row = [start, str(number), f"{mean:.1f}", f"{worst:.1f}", f"{seconds * 1000:.2f}", f"{dark:.3f}"]
            rows.append(row + ([] if score is None else score(pictures)))
    return markdown(rows)


def midpoints(measured: Measured, fit: SampleFit) -> str:
    """Slot by slot halfway between samples of pairs, beside the samples."""
    splats = fit.splats(measured.images)
    features = fit.features(splats)
    half = len(features) // 2
    middle = np.concatenate([between(fit.view, features[i], features[i + half], frames=3)[1:2] for i in range(half)])
    few = replace(measured, real=measured.real[:half])
    rows = [["pictures", "FID", "precision", "recall"]]
    rows.append([f"{half} samples", *few.score(drawn(measured.run, splats[:half]))])
    rows.append([f"{half} midpoints of two samples, slot by slot", *few.score(drawn(measured.run, middle))])
    mixed = (measured.images[:half].astype(np.uint16) + measured.images[half : 2 * half] + 1) // 2
    rows.append([f"{half} midpoints of their pixels", *few.score(mixed.astype(np.uint8))])
    return markdown(rows)


def sampled(run: Run, count: int, evaluations: int) -> NDArray[np.uint8]:
    """Images as the network answers them, uint8 [image, row, column, channel]."""
    settings = Settings(run.objective.settings.sampler, evaluations, 1.0, 0, 64)
    return as_channels_last(draw(run, settings, None, count, lambda _done: None).images)


def enlarged(
    measured: Measured, splats: NDArray[np.float32], larger: Path, count: int, beside: dict[str, NDArray[np.uint8]]
) -> str:
    """Samples drawn at the size of ``larger``, beside the same samples enlarged as pixels, and others of that size."""
    with open_store(larger, "r") as store:
        size = max(store.header.height, store.header.width)
        rows = np.random.default_rng(0).permutation(store.finished_rows())[: 2 * count]
        extractor = build_extractor("selfsup", store)
        pictures = originals(store, rows)
    real, others = (extractor.forward(part) for part in (pictures[:count], pictures[count:]))
    there = replace(measured, extractor=extractor, real=real)
    rows_of_table = [["pictures", "FID", "precision", "recall"]]
    rows_of_table.append([f"splats drawn at {size}", *there.score(drawn(measured.run, splats, size))])
    for name, way in ENLARGED.items():
        larger_pixels = [np.asarray(Image.fromarray(image).resize((size, size), way)) for image in measured.images]
        rows_of_table.append([f"pixels enlarged, {name}", *there.score(np.stack(larger_pixels))])
    for name, images in beside.items():
        rows_of_table.append([name, *there.score(images)])
    floor = support(real, others)
    rows_of_table.append(
        ["other originals", f"{frechet_distance(real, others):.3f}", f"{floor.precision:.3f}", f"{floor.recall:.3f}"]
    )
    return markdown(rows_of_table)


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a training of render-dit, or of pixels.")],
    store: Annotated[Path, typer.Option(help="The store that it was trained on.")],
    unseen: Annotated[Path, typer.Option(help="A store of images that it did not learn from.")],
    larger: Annotated[Path | None, typer.Option(help="A store of such images at a larger size, square.")] = None,
    beside: Annotated[list[Path] | None, typer.Option(help="Trainings at that larger size.")] = None,
    images: Annotated[int, typer.Option(help="Samples, and images to compare with.")] = 500,
    evaluations: Annotated[int, typer.Option(help="Of the network per sample.")] = 20,
) -> None:
    """Prints the tables of benchmarks/generation/pixels_in_splats_out.md."""
    torch.set_num_threads(1)
    generator = load_run(run, device="cpu")
    with open_store(store, "r") as learned, open_store(unseen, "r") as other:
        extractor = build_extractor("selfsup", learned)
        rows = np.random.default_rng(0).permutation(other.finished_rows())[: 2 * images]
        pictures = originals(other, rows)
    samples = sampled(generator, images, evaluations)
    measured = Measured(generator, samples, extractor, extractor.forward(pictures[:images]))
    fit = sample_fit(generator)
    print(f"\n{images} samples as drawn: FID, precision, recall {', '.join(measured.score(samples))}")
    print("\n## Splats of samples\n\n" + curve(generator, samples, POLISH, measured.score))
    print("\n## Halfway between samples\n\n" + midpoints(measured, fit))
    print(
        "\n## Images that it did not learn from\n\n"
        + curve(generator, as_channels_last(pictures[images:]), ENCODER, None)
    )
    if larger is not None:
        others = {}
        for path in beside or []:
            run_beside = load_run(path, device="cpu")
            seen = sampled(run_beside, images, evaluations)
            others[f"samples of {path.name}"] = seen
            if run_beside.draws:
                others[f"splats of {path.name}"] = drawn(run_beside, sample_fit(run_beside).splats(seen))
        print("\n## Drawn larger\n\n" + enlarged(measured, fit.splats(samples), larger, images, others))


if __name__ == "__main__":
    typer.run(main)
