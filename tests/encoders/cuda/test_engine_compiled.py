"""The kernels of engine ``cuda`` compiled for GPUs that are not there: registers, spills, barriers, inner loops."""

from functools import cache
from typing import Any

import pytest

from data_schemas.splats import ADDITIVE, NORMALISED, StartName
from encoders.base import FitSettings
from encoders.cuda.device_fit import tiles_for
from encoders.recipe import Recipe
from tests.encoders.cuda.compiled_kernels import compile_kernel

pytest.importorskip("triton", reason="Triton is not installed: there is none for this system")

from encoders.cuda.device_fit import REGISTERS
from encoders.cuda.fused_batch import FusedFit
from encoders.cuda.fused_fit import fit_images
from encoders.cuda.moves import judge, move_groups, rescue
from encoders.cuda.tiled_sums import derive_groups, gather_groups, render_tiles

POINTERS = {
    "target": "*u8",
    "records": "*fp32",
    "least": "*fp32",
    "taken": "*i32",
    "running": "*i32",
    "rates": "*fp32",
}
INTEGERS = {"steps", "until", "tail", "reseed_every", "reseed_until"}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compiles the fused fit; what one test compiled another reads, and nothing is taken from earlier runs."""
    folder = tmp_path_factory.mktemp("kernels")

    @cache
    def build(capability, channels, codec, gaussians=200, size=32, start: StartName = "transport"):
        settings = FitSettings(gaussians, codec=codec, start=start)
        fit = FusedFit.of(settings, Recipe(), size, size, channels, tiles=tiles_for(size, size))
        options = {"maxnreg": REGISTERS} if capability >= 90 else {}
        return compile_kernel(
            fit_images, capability, fit.constants(), POINTERS, INTEGERS, folder, num_warps=fit.tiles.warps, **options
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
        yield build


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "codec"),
    [(1, ADDITIVE), (3, ADDITIVE), (3, NORMALISED), pytest.param(1, NORMALISED, marks=pytest.mark.soak)],
)
def test_nothing_spills_on_hopper_and_inner_loops_are_short(channels, codec, compiled):
    kernel = compiled(90, channels, codec)
    assert kernel.stack == 0
    assert kernel.registers <= 128
    # Instructions per pixel and Gaussian of the forward and of the backward loop; the bounds leave room for one more.
    forward, backward = {1: (9.5, 13), 3: (9.5, 18.5)}[channels]
    loops = [size / exponentials for size, exponentials in kernel.loops if exponentials >= 16]
    assert len(loops) >= 2
    assert min(loops) < forward
    assert max(loops) < backward
    assert "atom" not in kernel.ptx
    assert "red.global" not in kernel.ptx


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 100])
@pytest.mark.parametrize(
    ("channels", "codec"),
    [
        pytest.param(1, ADDITIVE, marks=pytest.mark.soak),
        pytest.param(3, ADDITIVE, marks=pytest.mark.soak),
        (3, NORMALISED),
    ],
)
def test_other_cards_compile_with_next_to_no_spill(channels, codec, capability, compiled):
    kernel = compiled(capability, channels, codec)
    assert kernel.stack <= 16
    assert kernel.registers <= 255


@pytest.mark.slow
def test_many_gaussians_on_larger_images_compile(compiled):
    kernel = compiled(90, 3, ADDITIVE, gaussians=1024, size=64)
    assert kernel.stack == 0


@pytest.mark.slow
@pytest.mark.parametrize(("start", "barriers"), [("transport", 7), ("grid", 3)])
def test_every_barrier_is_there(start, barriers, compiled):
    """The interpreter sees no race: what one lane writes and another reads must have a barrier between.

    Three a step (derived factors, residual planes, parameters), and with the rescue of dark Gaussians four more
    (needed light, before and after a Gaussian moves, the end).
    """
    # Sizes that need no barrier of the compiler's own.
    for channels, size in ((1, 28), (3, 32)):
        assert compiled(90, channels, ADDITIVE, start=start, size=size).barriers == barriers


LARGE = {"CHANNELS": 3, "ROOM": 20_000, "HEIGHT": 1000, "GROUP": 32}
COUNTED = {"COUNT": 19_990, "WIDTH": 1000}
TILED_POINTERS = {
    "target": "*u8",
    **dict.fromkeys(("boxes", "taken", "running", "better"), "*i32"),
    **dict.fromkeys(
        ("tables", "derived", "planes", "needed", "errors", "sums", "least", "rates"),
        "*fp32",
    ),
}
TILED: dict[str, tuple[Any, dict[str, Any]]] = {
    "derive_groups": (derive_groups, {**LARGE, **COUNTED}),
    "judge": (judge, {"TILES": 3969, "LANES": 128}),
    "move_groups": (move_groups, {**LARGE, **COUNTED, "BOUNDED": True, "PARTS": 8}),
    "rescue": (rescue, {**LARGE, **COUNTED, "STRIDE": 1008, "LANES": 1024}),
}
SIDES = {"TOGETHER": 8, "STRIP": 8, "ROWS": 16, "COLUMNS": 16}


def tiled(kernel, constants, folder, monkeypatch, capability=90):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(folder / "triton"))
    options = {"num_warps": 8 if kernel is rescue else 1, **({"maxnreg": REGISTERS} if capability >= 90 else {})}
    return compile_kernel(kernel, capability, constants, TILED_POINTERS, {"steps", "tail"}, folder, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TILED))
def test_small_kernels_for_large_images_compile_without_a_spill(name, tmp_path, monkeypatch):
    function, constants = TILED[name]
    kernel = tiled(function, constants, tmp_path, monkeypatch)
    assert kernel.stack == 0
    assert "atom" not in kernel.ptx


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [False, True])
def test_sums_over_large_images_compile_without_a_spill_and_with_short_loops(normalised, tmp_path, monkeypatch):
    constants = {**LARGE, "NORMALISED": normalised, "STRIDE": 1008}
    render = tiled(render_tiles, {**constants, "WIDTH": 1000, **SIDES}, tmp_path, monkeypatch)
    gather = tiled(gather_groups, {**constants, "RUN": 16, "PARTS": 8}, tmp_path, monkeypatch)
    for kernel, most in ((render, 10), (gather, 19)):
        assert kernel.stack == 0
        assert kernel.barriers == 0  # lanes exchange nothing but sums
        assert "atom" not in kernel.ptx
        assert max(size / exponentials for size, exponentials in kernel.loops if exponentials >= 16) < most
