"""How a patch model makes its images: roll-out, seams, patterns, filtered image and drift, splats at any size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from data_schemas.errors import SamplingError
from models.patches.kpn import KpnHead
from models.patches.lut import LutHead, gram_matrix
from models.patches.model import PatchModel
from models.patches.outer import OuterHead
from models.patches.splats import PatchSplats, SplatHead
from pipeline.images import grid_of
from pipeline.render import save_png
from pipeline.sample.run import Run

MOST_SHOWN = 8
ROLL_OUT_ROWS = 17
ZOOMS = (4, 8)
SEAM_ZOOM = 4
"""Of splats, where seams are looked for: one of the zooms."""

SEAM_SIDE = 256
"""Pixels of the longer side, to which smaller images are enlarged beside their seams."""

WHITE_STEP = 32
"""Grey levels of a step between neighbouring pixels that is shown white."""

ELLIPSE_SIDE = 512


@dataclass(frozen=True)
class LastStep:
    """What the last step of sampling began with, of every image.

    Attributes:
        noisy: [image, channel, row, column].
        time: its time.
        label: int64 [image], -1 for none.
    """

    noisy: Tensor
    time: float
    label: Tensor


class Watch:
    """Looks on while images are sampled, batch by batch: the way of the first ones, and the last step of more.

    Args:
        labels: int64 [image], the class of each image, -1 for none.
        count: images of which the last step is kept.
    """

    def __init__(self, labels: NDArray[np.int64], *, count: int) -> None:
        self._labels, self._count = torch.from_numpy(labels), count
        self._steps: list[tuple[float, Tensor]] = []
        self.way: list[tuple[float, Tensor]] = []

    def __call__(self, number: int, time: float, noisy: Tensor, clean: Tensor) -> None:
        """See ``models.diffusion.samplers.Trajectory``."""
        if number:
            self._steps.pop()
        held = sum(len(values) for _, values in self._steps)
        self._steps.append((time, noisy[: max(0, self._count - held)]))
        if number == len(self.way):
            self.way.append((time, clean[:MOST_SHOWN].cpu()))
        else:
            shown = self.way[number][1]
            self.way[number] = time, torch.cat([shown, clean[: MOST_SHOWN - len(shown)].cpu()])

    def last(self, part: slice) -> LastStep:
        """What the last step of some images began with."""
        noisy = torch.cat([values for _, values in self._steps])[part]
        return LastStep(noisy, self._steps[0][0], self._labels[: self._count][part])


def patch_model(run: Run) -> PatchModel:
    """The network of a patch model.

    Raises:
        SamplingError: another kind of network.
    """
    if not isinstance(run.model, PatchModel):
        raise SamplingError(
            f"{run.path} is a {run.config['model']}, which has no parts to show",
            allowed="a run of splatspace train cats",
            next_step="leave --anatomy out",
        )
    return run.model


def splat_head(run: Run) -> SplatHead | None:
    """The head of a patch model that draws splats; None for all others."""
    head = run.model.head if isinstance(run.model, PatchModel) else None
    return head if isinstance(head, SplatHead) else None


@torch.no_grad()
def splats_of(run: Run, step: LastStep) -> PatchSplats:
    """The splats that the last step drew."""
    head = splat_head(run)
    assert head is not None
    tokens, _ = _tokens(run, step)
    return head.splats(tokens)


@torch.no_grad()
def draw_splats(run: Run, splats: PatchSplats, height: int, width: int, *, blobs: bool = False) -> NDArray[np.uint8]:
    """Splats of a patch model at any size.

    Args:
        run: its generator.
        splats: from :func:`splats_of`.
        height: rows of the images.
        width: columns of the images.
        blobs: as round cones of one size.

    Returns:
        uint8 [image, row, column, channel].
    """
    head = splat_head(run)
    assert head is not None
    canvas = head.canvas_of(height, width)
    parts = [
        head.draw(PatchSplats(*(part[image : image + 1] for part in splats)), canvas, blobs=blobs)
        for image in range(len(splats.depth))
    ]
    return _pictures(run, torch.cat(parts))


def draw_last_step(run: Run, step: LastStep, longer: int) -> NDArray[np.uint8]:
    """What the last step drew, at any size.

    Args:
        run: a generator whose patch model draws splats.
        step: of the images.
        longer: pixels of the longer side.
    """
    share = longer / max(run.spec.height, run.spec.width)
    height, width = (max(1, round(side * share)) for side in (run.spec.height, run.spec.width))
    return draw_splats(run, splats_of(run, step), height, width)


def save_anatomy(run: Run, folder: Path, watch: Watch) -> list[Path]:
    """Writes the images that the head of a patch model has.

    Args:
        run: its generator.
        folder: where to write.
        watch: of the sampling.

    Returns:
        Their paths: ``roll-out.png``, ``seams.png`` and, by head, ``table.png`` and ``gram.png``, ``drift.png``, or
        ``zoom-4x.png``, ``zoom-8x.png``, ``blobs.png`` and ``ellipses.png``.
    """
    model, head = patch_model(run), patch_model(run).head
    last, way = watch.last(slice(0, MOST_SHOWN)), watch.way
    count = len(last.noisy)
    rows = np.unique(np.linspace(0, len(way) - 1, min(ROLL_OUT_ROWS, len(way))).round().astype(int))
    pictures = np.concatenate([_pictures(run, way[row][1]) for row in rows])
    made = {"roll-out": grid_of(pictures, columns=count)[0]}
    finished = _pictures(run, way[-1][1])
    with torch.no_grad():
        if isinstance(head, LutHead):
            patterns = head.patterns()
            made["table"], made["gram"] = _table(patterns), _gram(patterns)
        elif isinstance(head, OuterHead):
            patterns = head.patterns(_tokens(run, last)[1])[0]
            made["table"], made["gram"] = _table(patterns), _gram(patterns)
        elif isinstance(head, KpnHead):
            tokens, _ = _tokens(run, last)
            noisy = model.grid.padded(last.noisy)
            time = torch.full((count,), last.time, device=noisy.device)
            filtered, drift = head.filtered(tokens, noisy), head.drift(noisy, time)
            shown = [model.grid.cropped(part) for part in (filtered + drift, filtered, drift)]
            made["drift"] = grid_of(np.concatenate([_pictures(run, part) for part in shown]), columns=count)[0]
        elif isinstance(head, SplatHead):
            splats = splats_of(run, last)
            height, width = run.spec.height, run.spec.width
            zoomed = {zoom: draw_splats(run, splats, zoom * height, zoom * width) for zoom in ZOOMS}
            made |= {f"zoom-{zoom}x": _row(large) for zoom, large in zoomed.items()}
            finished = zoomed[SEAM_ZOOM]
            made["blobs"] = _row(draw_splats(run, splats, 4 * height, 4 * width, blobs=True))
            made["ellipses"] = _ellipses(splats, head)
    steps = np.broadcast_to(step_sizes(finished)[..., None], finished.shape)
    made["seams"] = grid_of(np.concatenate([finished, steps]), columns=count, smallest=SEAM_SIDE)[0]
    paths = []
    for name, picture in made.items():
        save_png(picture, folder / f"{name}.png")
        paths.append(folder / f"{name}.png")
    return paths


def step_sizes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """How much each pixel differs from its neighbours: borders between patches that can be seen are a grid of lines.

    Args:
        images: uint8 [image, row, column, channel].

    Returns:
        uint8 [image, row, column]: the greater of the steps to the right and down, mean of the channels; 255 for
        ``WHITE_STEP`` grey levels or more. A line is one pixel wide, in the last row or column before the border.
    """
    extended = np.pad(images.astype(np.float32), ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
    here, right, down = extended[:, :-1, :-1], extended[:, :-1, 1:], extended[:, 1:, :-1]
    greater = np.maximum(*(np.abs(other - here).mean(axis=-1) for other in (right, down)))
    return (greater * (255 / WHITE_STEP)).round().clip(0, 255).astype(np.uint8)


def _tokens(run: Run, step: LastStep) -> tuple[Tensor, Tensor]:
    model = patch_model(run)
    classes = run.objective.classes
    label = torch.where(step.label < 0, classes, step.label).to(step.noisy.device) if classes else None
    time = torch.full((len(step.noisy),), step.time, device=step.noisy.device)
    return model.tokens(model.grid.padded(step.noisy), time, label)


def _pictures(run: Run, features: Tensor) -> NDArray[np.uint8]:
    return run.rendered(run.stored(features))


def _row(pictures: NDArray[np.uint8]) -> Image.Image:
    """Up to four large images beside each other, in their own pixels."""
    shown = np.concatenate(list(pictures[:4]), axis=1)
    return Image.fromarray(shown if shown.shape[2] == 3 else shown[..., 0])


def _table(patterns: Tensor) -> Image.Image:
    """Every pattern, each brought to the range of grey levels by itself."""
    low, high = patterns.amin(dim=(1, 2, 3), keepdim=True), patterns.amax(dim=(1, 2, 3), keepdim=True)
    shown = ((patterns - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)
    pixels = shown.permute(0, 2, 3, 1).cpu().numpy()
    return grid_of(pixels, columns=max(1, round(len(pixels) ** 0.5)))[0]


def _gram(patterns: Tensor) -> Image.Image:
    """Cosines between patterns: black for -1, grey for 0, white for 1."""
    cosines = gram_matrix(patterns.flatten(1).float(), normalised=True)
    pixels = ((cosines + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    picture = Image.fromarray(pixels)
    factor = max(1, 256 // len(pixels))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _ellipses(splats: PatchSplats, head: SplatHead) -> Image.Image:
    """The splats of the first image: where each weighs exp(-2) of what it weighs at its centre."""
    grid = head.grid
    scale = ELLIPSE_SIDE / max(grid.rows, grid.columns)
    picture = Image.new("RGB", (round(grid.columns * scale), round(grid.rows * scale)))
    brush = ImageDraw.Draw(picture)
    mean, precision, colour, depth = (part[0].double().cpu().numpy() for part in splats)
    row, column = np.indices(depth.shape)[:2]
    x, y = mean[..., 0] + column + 0.5, mean[..., 1] + row + 0.5
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(turn), np.sin(turn)])
    for index in sorted(np.ndindex(depth.shape), key=lambda index: depth[index]):
        xx, xy, yy = precision[index]
        values, axes = np.linalg.eigh(np.array([[xx, xy], [xy, yy]]))
        # A very flat splat is drawn one patch long: it is hidden by others beyond that.
        outline = (axes * np.minimum(np.sqrt(0.5 / np.maximum(values, 1e-9)), 1.0)) @ circle
        points = [((x[index] + dx) * scale, (y[index] + dy) * scale) for dx, dy in outline.T]
        shade = np.broadcast_to((colour[index] * 255).round().clip(0, 255).astype(int), 3)
        brush.polygon(points, fill=(int(shade[0]), int(shade[1]), int(shade[2])))
    return picture
