"""The patch models: published sizes and defects, what replaces them, and the blend of splats."""

from __future__ import annotations

import functools
import itertools
import math
from typing import cast

import pytest
import torch
from torch import Tensor

from data_schemas.errors import JobError
from models.base import DataSpec
from models.names import HeadName, RecipeName, model_name
from models.patches.head import PatchGrid
from models.patches.kpn import COLOUR, FILTER_NUMBERS, GATE, KpnHead, enlarge, filter_pixels, pyramid
from models.patches.lut import LutHead, gram_matrix, gram_penalty
from models.patches.model import HEADS, RECIPES, PatchModel
from models.patches.outer import OuterHead, cosine_factors
from models.patches.splats import Canvas, KernelName, PatchSplats, SplatHead, blend, log_fading
from models.patches.trunk import RotaryNorm, published_axis_map
from models.registry import ModelCost, build_model, measure_model
from tests.models.small_networks import awakened, noise

CATS = DataSpec("pixels", groups=1, height=64, width=64)
SMALL = DataSpec("pixels", groups=1, height=16, width=16)


def _model(name: str, spec: DataSpec = SMALL, **changes: object) -> PatchModel:
    torch.manual_seed(0)
    return cast(PatchModel, build_model(name, "tiny", spec, **changes))


def _splats(rows: int = 3, columns: int = 2, count: int = 5, *, batch: int = 2, seed: int = 0) -> PatchSplats:
    head = cast(SplatHead, _model("cats-splats", DataSpec("pixels", height=12, width=8), splats=count).head)
    return head.read(2 * noise(batch, rows, columns, count * 9, seed=seed))


@functools.cache
def full_cost(name: str) -> ModelCost:
    return measure_model(name, "full", CATS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "changes", "parameters"),
    [
        ("cats-kpn-published", {}, 31_054_467),
        ("cats-lut-published", {}, 26_133_840),
        ("cats-lut-published", {"entries": 64, "activation": "tanh"}, 25_818_000),
        ("cats-outer-published", {}, 25_863_104),
        ("cats-splats-published", {}, 25_846_752),
    ],
)
def test_published_models_have_the_published_number_of_parameters(name: str, changes: dict, parameters: int) -> None:
    cost = measure_model(name, "full", CATS, **changes) if changes else full_cost(name)
    assert cost.parameters == parameters


@pytest.mark.slow
def test_the_published_trunk_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = cast(PatchModel, build_model("cats-splats-published", "full", CATS))
    assert sum(parameter.numel() for parameter in model.trunk.parameters()) == 25_772_880


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_the_improved_model_costs_at_most_a_tenth_more(head: HeadName) -> None:
    published, modern = (full_cost(model_name(head, recipe)).gflop for recipe in RECIPES)
    assert modern < 1.1 * published


def test_the_published_map_of_positions_is_no_rotation_and_the_improved_one_is() -> None:
    for position, smallest, largest in ((1, 0.405, 1.355), (3, 0.012, 1.414), (7, 0.03, 1.414)):
        values = torch.linalg.svdvals(published_axis_map(torch.eye(256), torch.full((256,), float(position))))
        assert float(values.min()) == pytest.approx(smallest, abs=0.001)
        assert float(values.max()) == pytest.approx(largest, abs=0.001)
    grid = PatchGrid.of(CATS)
    turned = RotaryNorm(64, grid, 2)(noise(1, 1, 66, 64)).detach()
    torch.testing.assert_close(turned.norm(dim=-1), torch.full((1, 1, 66), 8.0), atol=1e-3, rtol=0)


def test_products_of_turned_queries_and_keys_depend_on_distances_only() -> None:
    grid = PatchGrid.of(CATS)
    query, key = (RotaryNorm(64, grid, 0)(noise(64, seed=seed).expand(1, 1, 64, 64)).detach()[0, 0] for seed in (1, 2))
    products = (query @ key.T).unflatten(0, (8, 8)).unflatten(2, (8, 8))
    torch.testing.assert_close(products[0, 0, 2, 3], products[5, 4, 7, 7], atol=1e-3, rtol=0)
    assert abs(float(products[0, 0, 2, 3] - products[0, 0, 3, 2])) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", [model_name(head, recipe) for head in HEADS for recipe in RECIPES])
@pytest.mark.parametrize(("height", "width", "channels", "patch"), [(16, 16, 3, 0), (13, 18, 1, 4), (16, 24, 3, 8)])
def test_any_size_and_patch_gives_an_image_and_a_gradient(
    name: str, height: int, width: int, channels: int, patch: int
) -> None:
    spec = DataSpec("pixels", groups=1, height=height, width=width, channels=channels)
    model = awakened(_model(name, spec, patch=patch)).train()
    image = model(noise(2, channels, height, width), torch.tensor([0.1, 0.9]))
    assert image.shape == (2, channels, height, width)
    image.square().mean().backward()
    assert image.isfinite().all()
    without = [
        label for label, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum()
    ]
    # The published kernels leave three numbers unused, but no whole tensor; one class only tells nothing apart.
    assert [label for label in without if "registers" not in label] == []


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("head", HEADS)
def test_the_noise_level_and_every_patch_matter(head: HeadName, recipe: RecipeName) -> None:
    model = awakened(_model(model_name(head, recipe)))
    image = noise(1, 3, 16, 16)
    first, second = (model(image, torch.tensor([time])) for time in (0.2, 0.8))
    assert (first - second).abs().max() > 1e-4
    changed = image.clone()
    changed[..., 0, 0] += 1
    assert (model(changed, torch.tensor([0.2])) - first)[..., 8:, 8:].abs().max() > 0


@pytest.mark.parametrize("head", ["lut", "outer", "splats"])
def test_improved_models_start_grey_whatever_they_see(head: HeadName) -> None:
    model = _model(model_name(head, "modern"))
    made = model(noise(2, 3, 16, 16), torch.tensor([0.3, 0.7])).detach()
    assert float(made.abs().max()) < 1e-4


def test_improved_kernels_start_by_keeping_most_of_the_image() -> None:
    image = noise(1, 3, 16, 16)
    kpn = cast(KpnHead, _model("cats-kpn").head)
    levels = [torch.zeros(1, 32, side, side) + kpn.start[:, None, None] for side in (16, 8)]
    kept = pyramid(image, levels, published=False)
    assert torch.corrcoef(torch.stack([kept.flatten(), image.flatten()]))[0, 1] > 0.95


def test_a_filter_of_one_is_the_image_and_a_shifted_one_moves_it() -> None:
    image = noise(1, 2, 8, 8)
    numbers = torch.zeros(1, 32, 8, 8)
    numbers[:, FILTER_NUMBERS // 2] = 20.0
    torch.testing.assert_close(filter_pixels(image, numbers), image)
    moved = torch.zeros(1, 32, 8, 8)
    moved[:, FILTER_NUMBERS // 2 + 1] = 20.0
    torch.testing.assert_close(filter_pixels(image, moved)[..., :-1], image[..., 1:])


@pytest.mark.parametrize("published", [False, True])
def test_enlarging_is_the_mean_that_its_formula_says(published: bool) -> None:
    image, numbers = noise(1, 1, 4, 5), noise(1, 32, 8, 10, seed=2)
    made = enlarge(image, numbers, published=published)
    for row, column in itertools.product((0, 3, 7), (0, 5, 9)):
        raw = numbers[0, FILTER_NUMBERS : FILTER_NUMBERS + 3, row, column]
        wide, high, slant = 4 * raw[0].sigmoid(), 4 * raw[1].sigmoid(), raw[2].tanh()
        total = weights = torch.zeros(())
        for y, x in itertools.product(range(-2, 3), repeat=2):
            dy, dx = y + (row // 2 + 0.5) - (row + 0.5) / 2, x + (column // 2 + 0.5) - (column + 0.5) / 2
            square = wide * high if published else high**2
            distance = wide**2 * dx**2 + square * dy**2 + 2 * slant * wide * high * dx * dy
            weight = torch.exp(-2 * distance)
            pixel = image[0, 0, min(3, max(0, row // 2 + y)), min(4, max(0, column // 2 + x))]
            total, weights = total + weight * pixel, weights + weight
        torch.testing.assert_close(made[0, 0, row, column], total / weights, atol=1e-4, rtol=1e-3)


def test_an_open_gate_keeps_what_the_level_showed() -> None:
    image = noise(1, 3, 8, 8)
    numbers = torch.zeros(1, 32, 8, 8)
    numbers[:, FILTER_NUMBERS // 2], numbers[:, GATE] = 20.0, 40.0
    torch.testing.assert_close(pyramid(image, [numbers], published=False), image)
    assert COLOUR + 3 <= 32


def test_the_gram_penalty_sees_angles_and_not_lengths() -> None:
    table = noise(6, 12)
    normalised = gram_penalty(table, normalised=True)
    torch.testing.assert_close(gram_penalty(3 * table, normalised=True), normalised)
    torch.testing.assert_close(gram_penalty(3 * table, normalised=False), 81 * gram_penalty(table, normalised=False))
    assert float(gram_penalty(torch.eye(6, 12), normalised=True)) == 0
    torch.testing.assert_close(gram_matrix(table, normalised=True).diagonal(), torch.ones(6))
    published = cast(LutHead, _model("cats-lut-published", CATS, entries=64, activation="tanh", gram=0.2).head)
    penalty = published.penalty()
    assert penalty is not None
    assert float(penalty.detach()) == pytest.approx(37.8, rel=0.05), "as published, it dwarfs every other loss at first"
    modern = _model("cats-lut", CATS).penalty()
    assert modern is not None
    assert float(modern.detach()) < 0.01


def test_means_of_patterns_stay_between_them() -> None:
    head = cast(LutHead, _model("cats-lut-published", entries=8).head)
    with torch.no_grad():
        head.table.copy_(torch.linspace(-0.5, 0.5, 8)[:, None].expand_as(head.table))
    image = head(5 * noise(1, 16, 64), noise(1, 0, 64), noise(1, 3, 16, 16), torch.tensor([0.5]))
    assert float(image.detach().abs().max()) <= 0.5
    assert head.patterns().shape == (8, 3, 4, 4)


@pytest.mark.parametrize("name", ["cats-outer", "cats-outer-published"])
def test_patterns_of_an_image_are_products(name: str) -> None:
    model = cast(PatchModel, awakened(_model(name, entries=5)))
    head = cast(OuterHead, model.head)
    tokens, static = model.tokens(noise(2, 3, 16, 16), torch.tensor([0.2, 0.9]))
    assert static.shape == (2, 5, 64)
    patterns = head.patterns(static)
    assert patterns.shape == (2, 5, 3, 4, 4)
    assert float(torch.linalg.svdvals(patterns.detach())[..., 1:].max()) < 1e-4
    assert (patterns[0] - patterns[1]).abs().max() > 1e-4, "every image has its own"
    assert tokens.shape == (2, 16, 64)


@pytest.mark.parametrize(("entries", "channels", "patch"), [(64, 3, 8), (64, 3, 4), (5, 1, 4)])
def test_patterns_start_as_waves_that_do_not_resemble_each_other(entries: int, channels: int, patch: int) -> None:
    waves = min(entries, channels * patch**2)
    pairs = cosine_factors(entries, channels, patch).unflatten(-1, (channels, 2, patch))
    patterns = (pairs[:, :, 0, :, None] * pairs[:, :, 1, None, :]).flatten(1)
    assert len(patterns) == entries
    gram = patterns[:waves] @ patterns[:waves].T / patterns.shape[1]
    torch.testing.assert_close(gram, torch.eye(waves), atol=1e-5, rtol=0)
    assert patterns[0].eq(1).all(), "the first is the mean of a patch"
    if entries > waves:
        similar = torch.corrcoef(patterns[waves:]).fill_diagonal_(0).abs()
        assert float(similar.max()) < 0.9, "those beyond the waves differ, too"


def test_patterns_of_a_new_network_are_nearly_waves_and_learn_at_once() -> None:
    model = cast(PatchModel, _model("cats-outer"))
    head = cast(OuterHead, model.head)
    tokens, static = model.tokens(noise(2, 3, 16, 16), torch.tensor([0.2, 0.9]))
    patterns = head.patterns(static)[:, :48].flatten(2)
    gram = (patterns @ patterns.transpose(1, 2) / 48).detach()
    assert float((gram - torch.eye(48)).abs().max()) < 0.5
    image = head(tokens, static, noise(2, 3, 16, 16), torch.tensor([0.2, 0.9]))
    assert float(image.detach().abs().max()) == 0
    (image - noise(2, 3, 16, 16)).square().mean().backward()
    assert head.leave.weight.grad is not None
    assert float(head.leave.weight.grad.norm()) > 0


@pytest.mark.parametrize("kernel", ["cosine", "gaussian", "flat"])
@pytest.mark.parametrize("published", [False, True])
def test_the_order_of_splats_does_not_matter(kernel: KernelName, published: bool) -> None:
    splats, canvas = _splats(), Canvas(PatchGrid(4, 3, 2, 12, 8), 12, 8)
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = PatchSplats(*(part[:, :, :, order] for part in splats))
    torch.testing.assert_close(
        blend(splats, canvas, kernel, shared=not published, published=published),
        blend(shuffled, canvas, kernel, shared=not published, published=published),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("scale", [1.0, 20.0, 1e4])
def test_any_number_gives_a_positive_definite_precision_and_a_finite_picture(scale: float) -> None:
    head = cast(SplatHead, _model("cats-splats").head)
    raw = (scale * noise(1, 4, 4, 4 * 9)).requires_grad_()
    splats = head.read(raw)
    xx, xy, yy = splats.precision.unbind(-1)
    assert bool((xx * yy - xy**2 >= 0).all())
    if scale <= 20:
        assert bool((xy**2 <= (1 - 1e-4) * xx * yy).all())
    with torch.autocast("cpu", torch.bfloat16):
        image = head.draw(splats)
    assert image.dtype == torch.float32
    assert float(image.detach().abs().max()) <= 1 + 1e-5
    image.square().mean().backward()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_nothing_is_black_where_all_splats_are_deep_but_as_published() -> None:
    splats = _splats()._replace(depth=torch.zeros(2, 3, 2, 5), colour=torch.ones(2, 3, 2, 5, 3))
    canvas = Canvas(PatchGrid(4, 3, 2, 12, 8), 12, 8)
    assert float(blend(splats, canvas, "flat", shared=False).min()) > 0.999
    assert float(blend(splats, canvas, "flat", shared=False, published=True).max()) < 1e-3


@pytest.mark.parametrize("kernel", ["cosine", "gaussian", "flat"])
def test_drawing_with_neighbours_is_the_sum_over_all_splats_in_reach(kernel: KernelName) -> None:
    rows, columns, side = 3, 4, 5
    splats = _splats(rows, columns, 3, batch=1, seed=4)
    canvas = Canvas(PatchGrid(side, rows, columns, rows * side, columns * side), rows * side, columns * side)
    made = blend(splats, canvas, kernel, shared=True)
    for pixel_row, pixel_column in itertools.product((0, 4, 5, 9, 14), (0, 7, 12, 19)):
        y, x = (pixel_row + 0.5) / side, (pixel_column + 0.5) / side
        logits, shown = [], []
        for row, column, number in itertools.product(range(rows), range(columns), range(3)):
            if abs(row - pixel_row // side) > 1 or abs(column - pixel_column // side) > 1:
                continue
            dx = x - (float(splats.mean[0, row, column, number, 0]) + column + 0.5)
            dy = y - (float(splats.mean[0, row, column, number, 1]) + row + 0.5)
            xx, xy, yy = splats.precision[0, row, column, number].tolist()
            distance = xx * dx * dx + 2 * xy * dx * dy + yy * dy * dy
            factor = {
                "cosine": math.exp(-distance) * math.cos(6 * distance),
                "gaussian": math.exp(-distance),
                "flat": 1.0,
            }[kernel]
            fading = float(log_fading(torch.tensor(x - column - 0.5), torch.tensor(y - row - 0.5)))
            logits.append(2 * float(splats.depth[0, row, column, number]) - 4 * distance + fading)
            shown.append(factor * splats.colour[0, row, column, number])
        expected = torch.tensor(logits).softmax(0) @ torch.stack(shown)
        torch.testing.assert_close(made[0, :, pixel_row, pixel_column], expected, atol=2e-4, rtol=1e-3)


def test_moving_all_splats_by_a_patch_moves_the_picture() -> None:
    splats = _splats(4, 4, 3, batch=1)
    canvas = Canvas(PatchGrid(8, 4, 4, 32, 32), 32, 32)
    moved = PatchSplats(*(part.roll((1, 1), (1, 2)) for part in splats))
    one, two = (blend(each, canvas, "flat", shared=True) for each in (splats, moved))
    torch.testing.assert_close(two[..., 16:24, 16:24], one[..., 8:16, 8:16], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(48, 72), (17, 29), (12, 18), (5, 4)])
def test_any_size_shows_the_same_picture(height: int, width: int) -> None:
    # 12 x 18 pixels in patches of 4: the last column of patches hangs over the edge.
    grid = PatchGrid(4, 3, 5, 12, 18)
    splats = _splats(3, 5, 4, batch=1)
    made = blend(splats, Canvas(grid, height, width), "flat", shared=True)
    assert made.shape == (1, 3, height, width)
    dense = blend(splats, Canvas(grid, 3 * height, 3 * width), "flat", shared=True)
    torch.testing.assert_close(made, dense[..., 1::3, 1::3], atol=1e-4, rtol=0)


def _seam_ratio(image: Tensor, side: int) -> float:
    steps = (image[..., 1:] - image[..., :-1]).abs().mean(dim=(0, 1, 2))
    border = torch.arange(1, image.shape[-1]) % side == 0
    return float(steps[border].mean() / steps[~border].mean())


@pytest.mark.slow
def test_shared_splats_have_no_seams() -> None:
    ratios = {}
    for neighbourhood in ("patch", "3x3"):
        head = cast(SplatHead, _model("cats-splats", DataSpec("pixels"), patch=8, neighbourhood=neighbourhood).head)
        start = head.leave.bias.detach().expand(4, 4, 4, -1)
        splats = head.read(start + noise(4, 4, 4, start.shape[-1]))
        ratios[neighbourhood] = _seam_ratio(head.draw(splats, head.canvas_of(128, 128)), 32)
    assert ratios["3x3"] < 1.3
    assert ratios["patch"] > 2


def test_blobs_are_round_and_a_quarter_patch_in_radius() -> None:
    head = cast(SplatHead, _model("cats-splats", DataSpec("pixels"), patch=8, splats=1).head)
    splats = head.read(torch.zeros(1, 4, 4, 9))
    picture = head.draw(splats, head.canvas_of(128, 128), blobs=True)[0, 0]
    bright = picture[:32, :32] > -1
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    torch.testing.assert_close(bright, (x**2 + y**2) < 64)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cats-kpn", {"patch": 6}, "patches of 6 pixels"),
        ("cats-kpn", {"patch": 1}, "patches of 1 pixels"),
        ("cats-lut", {"entries": -1}, "table of -1 patterns"),
        ("cats-lut", {"activation": "relu"}, "softmax or tanh"),
        ("cats-outer", {"entries": 0}, "table of 0 patterns"),
        ("cats-splats", {"splats": -1}, "-1 splats"),
        ("cats-splats", {"kernel": "blob"}, "kernel blob"),
        ("cats-splats", {"neighbourhood": "5x5"}, "neighbourhood 5x5"),
        ("cats-splats", {"patch": 17}, "17 pixels on an image of 16x16"),
        ("cats-splats-published", {"registers": 2}, "2 registers"),
        ("cats-splats", {"entries": 3}, "entries of model cats-splats"),
    ],
)
def test_impossible_heads_are_refused(name: str, changes: dict, message: str) -> None:
    with pytest.raises(JobError, match=message):
        _model(name, **changes)
