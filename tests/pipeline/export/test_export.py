"""Splats for other programs: what they show, what is lost, and back."""

from __future__ import annotations

import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_schemas.errors import JobError, SourceError
from data_schemas.splats import ADDITIVE, GREY, NORMALISED, OVER, RGB, RGB_ALPHA, CodecName, Layout
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from pipeline.cli import app
from pipeline.export.ply import DEPTH_STEP, ply_of, read_ply, splat_of
from pipeline.export.svg import as_viewers_show, svg_of
from tests.pipeline.tiny_runs import small_store

HEIGHT, WIDTH = 24, 40


def some_splats(layout: Layout, *, seed: int = 0, count: int = 12) -> np.ndarray:
    chance = np.random.default_rng(seed)
    columns = {
        "sigma_x": chance.uniform(0.05, 0.3, count),
        "sigma_y": chance.uniform(0.05, 0.3, count),
        "rho": chance.uniform(-0.9, 0.9, count),
        "x": chance.uniform(-0.9, 0.9, count),
        "y": chance.uniform(-0.9, 0.9, count),
        "alpha": chance.uniform(0.1, 0.9, count),
        **{name: chance.uniform(0, 0.6, count) for name in ("r", "g", "b", "grey")},
    }
    return np.stack([columns[name] for name in layout.names], axis=1).astype(np.float32)


def shown(splats: np.ndarray, layout: Layout, codec: str) -> np.ndarray:
    return to_uint8(decode(splats[None], layout=layout, codec=codec, height=HEIGHT, width=WIDTH))[0]


@pytest.mark.parametrize(("layout", "codec"), [(RGB, ADDITIVE), (GREY, ADDITIVE), (RGB_ALPHA, OVER)])
def test_svg_viewers_show_the_codec(layout: Layout, codec: CodecName) -> None:
    splats = some_splats(layout)
    size = {"height": HEIGHT, "width": WIDTH}
    near = as_viewers_show(splats, layout=layout, codec=codec, **size)
    assert psnr(near[None], shown(splats, layout, codec)[None])[0] > 38
    text, cut = svg_of(splats, layout=layout, codec=codec, **size)
    assert cut == 0
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    gradients = root.findall(f".//{space}radialGradient")
    assert len(gradients) == len(splats)
    order = [shape.get("fill") for shape in root.findall(f".//{space}rect")][1:]
    numbers = [f"url(#g{index})" for index in range(len(splats))]
    assert order == (numbers[::-1] if codec == OVER else numbers)
    assert ("plus-lighter" in text) == (codec == ADDITIVE)
    # The gradient's matrix holds the covariance: M M^T = REACH^2 S in pixels.
    a, b, _, c, x, y = (float(part) for part in gradients[3].get("gradientTransform", "")[7:-1].split())
    named = dict(zip(layout.names, splats[3].tolist(), strict=True))
    sigma_x, sigma_y = named["sigma_x"] * WIDTH / 2 * 3.5, named["sigma_y"] * HEIGHT / 2 * 3.5
    expected = [sigma_x**2, named["rho"] * sigma_x * sigma_y, sigma_y**2]
    np.testing.assert_allclose([a * a, a * b, b * b + c * c], expected, rtol=1e-3)
    np.testing.assert_allclose([x, y], [(named["x"] + 1) / 2 * WIDTH, (named["y"] + 1) / 2 * HEIGHT], rtol=1e-3)


def test_svg_counts_what_it_cuts_and_refuses_a_mean() -> None:
    splats = some_splats(RGB)
    splats[[2, 5], RGB.index("g")] = -0.3
    splats[7, RGB.index("r")] = 1.5
    text, cut = svg_of(splats, layout=RGB, codec=ADDITIVE, height=HEIGHT, width=WIDTH)
    assert cut == 3
    assert "3 with a colour outside" in text
    assert "-" not in "".join(part for part in text.split('"') if part.startswith("rgb("))
    with pytest.raises(JobError, match="weighted mean"):
        svg_of(splats, layout=RGB, codec=NORMALISED, height=HEIGHT, width=WIDTH)


@pytest.mark.parametrize(("layout", "codec"), [(RGB, ADDITIVE), (GREY, ADDITIVE), (RGB_ALPHA, OVER), (RGB, NORMALISED)])
def test_ply_comes_back(layout: Layout, codec: CodecName) -> None:
    splats = some_splats(layout)
    data, cut = ply_of(splats, layout=layout, codec=codec, height=HEIGHT, width=WIDTH)
    scene = read_ply(data)
    assert (cut, scene.layout, scene.codec, scene.height, scene.width) == (0, layout, codec, HEIGHT, WIDTH)
    np.testing.assert_allclose(scene.splats, splats, atol=2e-4)
    assert np.abs(shown(scene.splats, layout, codec).astype(int) - shown(splats, layout, codec)).max() <= 1


def test_scenes_are_flat_and_keep_the_order_of_depth() -> None:
    splats = some_splats(RGB_ALPHA)
    data, _ = splat_of(splats, layout=RGB_ALPHA, codec=OVER, height=HEIGHT, width=WIDTH)
    assert len(data) == 32 * len(splats)
    rows = [struct.unpack("<6f4B4B", data[at : at + 32]) for at in range(0, len(data), 32)]
    np.testing.assert_allclose([row[2] for row in rows], np.arange(len(splats)) * DEPTH_STEP, atol=1e-6)
    assert max(row[5] for row in rows) < 1e-4 < min(row[4] for row in rows)
    alpha = splats[:, RGB_ALPHA.index("alpha")]
    np.testing.assert_allclose([row[9] / 255 for row in rows], alpha, atol=0.003)
    np.testing.assert_allclose([row[0] for row in rows], splats[:, RGB_ALPHA.index("x")] * WIDTH / HEIGHT, atol=1e-5)


def test_foreign_and_cut_scenes_are_refused() -> None:
    data, _ = ply_of(some_splats(RGB), layout=RGB, codec=ADDITIVE, height=HEIGHT, width=WIDTH)
    with pytest.raises(SourceError, match="bytes of splats"):
        read_ply(data[:-10])
    for foreign in (b"", b"ply\nformat ascii 1.0\nelement vertex 3\nend_header\n1 2 3\n"):
        with pytest.raises(SourceError, match="not written by splatspace"):
            read_ply(foreign)


def changed_ply(old: bytes, new: bytes) -> bytes:
    data, _ = ply_of(some_splats(RGB), layout=RGB, codec=ADDITIVE, height=HEIGHT, width=WIDTH)
    assert data.count(old) >= 1
    return data.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"size 24 40", b"size 0 40", "image of 0 rows and 40 columns"),
        (b"size 24 40", b"size 24 -1", "image of 24 rows and -1 columns"),
        (b"size 24 40", b"size 900000 900000", "up to 50,000,000 pixels"),
        (b"size 24 40", b"size 24 " + b"9" * 5000, "not written by splatspace"),
        (b"size 24 40", b"size 24", "not written by splatspace"),
        (b"binary_little_endian 1.0", b"ascii 1.0", "format ascii 1.0"),
        (b"binary_little_endian 1.0", b"binary_big_endian 1.0", "format binary_big_endian 1.0"),
        (b"format binary_little_endian 1.0\n", b"", "format unknown"),
        (b"comment splatspace codec", b"comment splatspace \ncomment splatspace codec", ""),
        (b"comment splatspace codec", b"comment splatspace\ncomment splatspace codec", ""),
        (b"codec additive/1", b"codec", "not written by splatspace"),
        (b"layout rgb", b"layout rgb9", "not written by splatspace"),
        (b"element vertex 12", b"element vertex", "not written by splatspace"),
        (b"element vertex 12", b"element vertex -12", "816 bytes of splats for -12 Gaussians"),
        (b"element vertex 12", b"element vertex 12\nelement vertex 12", "not written by splatspace"),
        (b"element vertex 12", b"element face 0\nelement vertex 12", "other properties"),
        (b"property float x", b"property uint x", "other properties"),
        (b"property float x\nproperty float y", b"property float y\nproperty float x", "other properties"),
    ],
)
def test_headers_of_other_hands_are_refused_or_read(old: bytes, new: bytes, told: str) -> None:
    data = changed_ply(old, new)
    if not told:
        assert len(read_ply(data).splats) == 12
        return
    with pytest.raises(SourceError, match=re.escape(told)):
        read_ply(data)


def test_a_scene_without_gaussians_is_refused() -> None:
    data = changed_ply(b"element vertex 12", b"element vertex 0")
    with pytest.raises(SourceError, match="0 bytes of splats for 0 Gaussians"):
        read_ply(data[: data.index(b"end_header\n") + 11])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("x", np.nan), ("f_dc_1", np.inf), ("scale_0", 1e30), ("scale_0", 200.0), ("scale_1", -400.0),
        ("rot_3", np.nan),
    ],
)  # fmt: skip
def test_gaussians_that_cannot_be_drawn_are_named(field: str, value: float) -> None:
    """Among them a needle, whose correlation would be 1, and one of no size."""
    data, _ = ply_of(some_splats(RGB), layout=RGB, codec=ADDITIVE, height=HEIGHT, width=WIDTH)
    start = data.index(b"end_header\n") + 11
    table = np.frombuffer(data[start:], "<f4").reshape(12, -1).copy()
    fields = [line.split()[-1] for line in data[:start].decode().splitlines() if line.startswith("property")]
    table[7, fields.index(field)] = value
    with pytest.raises(SourceError, match=r"Gaussians 7 of this \.ply cannot be drawn"):
        read_ply(data[:start] + table.tobytes())


@pytest.mark.slow
def test_a_refused_scene_leaves_no_store(tmp_path: Path) -> None:
    def splatspace(*arguments: object):
        return CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])

    (tmp_path / "bad.ply").write_bytes(changed_ply(b"size 24 40", b"size 0 40"))
    (tmp_path / "good.ply").write_bytes(changed_ply(b"size 24 40", b"size 24 40"))
    failed = splatspace("export", tmp_path / "bad.ply", "--out", tmp_path / "a.zarr")
    assert failed.exit_code == 1
    assert "bad.ply: This .ply is of an image of 0 rows" in failed.output
    assert not (tmp_path / "a.zarr").exists()
    assert splatspace("export", tmp_path / "good.ply", "--out", tmp_path / "a.zarr").exit_code == 0
    again = splatspace("export", tmp_path / "good.ply", "--out", tmp_path / "a.zarr")
    assert again.exit_code == 1
    assert "delete what is there" in again.output


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    def splatspace(*arguments: object):
        return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])

    store = small_store(tmp_path / "small.zarr", images=2)
    result = splatspace("export", store, "--image", "image-0001", "--out", tmp_path / "a" / "one.svg", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["lossless"] or content["psnr"] > 35
    assert content["bytes"] == (tmp_path / "a" / "one.svg").stat().st_size
    for suffix in ("ply", "splat"):
        assert splatspace("export", store, "-i", 1, "--out", tmp_path / f"one.{suffix}").exit_code == 0
    assert splatspace("export", tmp_path / "one.ply", "--out", tmp_path / "again.zarr").exit_code == 0
    for name, place in (("before", store), ("after", tmp_path / "again.zarr")):
        image = 1 if name == "before" else 0
        assert splatspace("render", place, "-i", image, "--out", tmp_path / f"{name}.png").exit_code == 0
    assert (tmp_path / "before.png").read_bytes() == (tmp_path / "after.png").read_bytes()
    assert splatspace("export", store, "--image", 0, "--out", tmp_path / "one.stl").exit_code == 2
    assert splatspace("export", store, "--out", tmp_path / "two.svg").exit_code == 2
    assert splatspace("export", tmp_path / "none.ply", "--out", tmp_path / "none.zarr").exit_code == 1
