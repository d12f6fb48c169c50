"""The compiled renderer of patch splats against plain torch: images, gradients, and where it does not serve."""

from __future__ import annotations

from typing import Literal, cast

import pytest
import torch

from models.base import DataSpec
from models.patches.head import PatchGrid
from models.patches.splats import Canvas, KernelName, PatchSplats, SplatHead, blend
from models.registry import build_model
from pipeline import renderers as patch_renderer
from pipeline.renderers import blend_compiled, with_compiled_patches

GRID = PatchGrid.of(DataSpec("pixels", height=12, width=20), 4)


def random_patches(channels: int = 3, splats: int = 5, *, sharp: float = 8.0) -> PatchSplats:
    generator = torch.Generator().manual_seed(0)

    def uniform(*size: int) -> torch.Tensor:
        return torch.rand(2, GRID.rows, GRID.columns, splats, *size, generator=generator)

    wide, high = (sharp * uniform(2)).unbind(-1)
    correlation = 1.98 * uniform() - 0.99
    precision = torch.stack([wide**2, correlation * wide * high, high**2], dim=-1)
    return PatchSplats(2 * uniform(2) - 1, precision, uniform(channels), 8 * uniform())


def drawn(draw, splats: PatchSplats, canvas: Canvas, *arguments, **options):
    leaves = [value.clone().requires_grad_() for value in splats]
    image = draw(PatchSplats(*leaves), canvas, *arguments, **options)
    pull = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).to(image.dtype)
    return image.detach(), torch.autograd.grad(image, leaves, pull)


@pytest.mark.parametrize("size", [(12, 20), (9, 23), (31, 40)])
@pytest.mark.parametrize(
    ("kernel", "shared", "published", "channels"),
    [("gaussian", True, False, 3), ("flat", True, False, 1), ("gaussian", False, True, 3), ("flat", False, False, 3)],
)
def test_pictures_and_gradients_are_those_of_plain_torch(
    kernel: KernelName, shared: bool, published: bool, channels: int, size: tuple[int, int]
) -> None:
    splats, canvas = random_patches(channels), Canvas(GRID, *size)
    options = {"shared": shared, "published": published}
    if published:
        splats = splats._replace(depth=8 * splats.depth)
    image, gradients = drawn(blend_compiled, splats, canvas, kernel, **options)
    exact = PatchSplats(*(value.double() for value in splats))
    expected, expected_gradients = drawn(blend, exact, Canvas(GRID, *size).double(), kernel, **options)
    assert image.shape == (2, channels, *size)
    torch.testing.assert_close(image.double(), expected, rtol=0, atol=2e-5)
    for name, value, right in zip(PatchSplats._fields, gradients, expected_gradients, strict=True):
        scale = float(right.abs().max())
        torch.testing.assert_close(
            value.double(), right, rtol=0, atol=1e-4 * scale, msg=lambda words, name=name: f"{name}: {words}"
        )


def test_far_splats_win_where_no_other_is_near() -> None:
    # Logarithms of weights far below those that float32 can hold: only their differences count.
    splats = random_patches(splats=2, sharp=2000.0)
    canvas = Canvas(GRID, 12, 20)
    image, _ = drawn(blend_compiled, splats, canvas, "flat", shared=True)
    exact = PatchSplats(*(value.double() for value in splats))
    expected, _ = drawn(blend, exact, canvas.double(), "flat", shared=True)
    # A pixel on the edge between two splats may fall to either.
    assert ((image - expected).abs() < 1e-2).double().mean() > 0.98


def test_a_network_draws_and_learns_the_same() -> None:
    torch.manual_seed(0)
    network = build_model("cats-splats", "tiny", DataSpec("pixels", height=16, width=16))
    with torch.no_grad():
        head = cast(SplatHead, network.head)
        head.leave.weight.normal_(std=0.3)
    noisy, time = torch.randn(2, 3, 16, 16), torch.rand(2)
    names = set(network.state_dict())

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        network.zero_grad()
        image = network(noisy, time)
        image.square().mean().backward()
        assert head.leave.weight.grad is not None
        return image.detach(), head.leave.weight.grad.clone()

    plain = step()
    assert with_compiled_patches(network) is network
    assert head.blend is blend_compiled
    compiled = step()
    assert set(network.state_dict()) == names
    torch.testing.assert_close(compiled[0], plain[0], rtol=0, atol=5e-4)
    torch.testing.assert_close(compiled[1], plain[1], rtol=0, atol=1e-3 * float(plain[1].abs().max()))


def test_what_is_not_compiled_is_drawn_in_plain_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(patch_renderer, "blend_patches", refuse)
    splats, canvas = random_patches(), Canvas(GRID, 12, 20)
    with pytest.raises(AssertionError, match="compiled"):
        blend_compiled(splats, canvas, "gaussian", shared=True)
    double = PatchSplats(*(value.double() for value in splats))
    cases: list[tuple[PatchSplats, KernelName | Literal["blob"]]] = [
        (splats, "cosine"),
        (splats, "blob"),
        (double, "flat"),
        (random_patches(2), "flat"),
    ]
    for given, kernel in cases:
        result = blend_compiled(given, canvas, kernel, shared=True)
        torch.testing.assert_close(result, blend(given, canvas, kernel, shared=True))
    monkeypatch.setattr(patch_renderer, "is_traced", lambda: True)
    traced = blend_compiled(splats, canvas, "flat", shared=True)
    torch.testing.assert_close(traced, blend(splats, canvas, "flat", shared=True))
