"""A store, its report and everything else that SplatSpace writes into the folder of the images: never images of it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_schemas.stores.open import open_store
from pipeline.cli import app
from pipeline.sources import open_source
from pipeline.sources.folder import own_outputs

FAST = ("--steps", "3", "--workers", "1", "--json")
IMAGES_ONLY = ("--gaussians", "0")


def encoded(*arguments: Any) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["encode", *map(str, arguments), *FAST])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of two images, and a text."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for name, image in zip(("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"), pixels, strict=True):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("text")
    return tmp_path / "photos"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("a.zarr", ("--gaussians", "8")), ("b.h5", IMAGES_ONLY)])
def test_a_store_inside_of_its_source_changes_nothing(photos: Path, name: str, options: tuple[str, ...]) -> None:
    out = photos / name
    first = encoded(photos, "--out", out, *options)
    assert (first["images"], first["fitted"], first["failed"], first["left_out"]) == (4, 4, [], 1)
    assert (photos / "a-report" / "panel.png").is_file() or options == IMAGES_ONLY
    with open_store(out) as store:
        before = store.header
    again = encoded(photos, "--out", out, *options)
    assert (again["images"], again["kept"], again["fitted"], again["left_out"]) == (4, 4, 0, 1)
    with open_store(out) as store:
        assert store.header == before
        assert store.header.source.label_names == ("cat", "dog")
        assert store.header.source.left_out == 1
        assert store.read(["label"])["label"].tolist() == [0, 0, 1, 1]
    if options == IMAGES_ONLY:
        return
    report = json.loads((photos / "a-report" / "report.json").read_text())
    assert report["source"]["left_out"] == 1
    assert "1 other files left out" in (photos / "a-report" / "report.html").read_text()


@pytest.mark.slow
def test_another_store_of_the_same_folder_reads_the_same_images(photos: Path) -> None:
    encoded(photos, "--out", photos / "a.zarr", *IMAGES_ONLY)
    second = encoded(photos, "--out", photos / "cat" / "b.zarr", *IMAGES_ONLY)
    assert (second["images"], second["fitted"], second["left_out"]) == (4, 4, 1)


def test_samples_trainings_and_evaluations_are_known() -> None:
    page = files("pipeline.evaluate").joinpath("evaluation.html.j2").read_bytes()
    content = {"eval/evaluation.html": page, "other/evaluation.html": b"<title>mine</title>"}
    own = {
        "one/0000.png", "one/grid.png", "one/samples.zarr/zarr.json", "one/forward.gif", "two/0000.png", "two/grid.png",
        "run/card.md", "run/log.jsonl", "run/samples/00000100.png", "deep/m/eval/evaluation.html", "eval/panel.png",
        "eval/evaluation.html", "deep/x.zarr.0123456789ab.partial/c/0",
        "drawn/0000.png", "drawn/grid.png", "drawn/pixels.png", "drawn/samples.zarr/zarr.json", "run.lock",
        "begun/state.json", "begun/state.safetensors", "begun/samples/00000010.png", "deep/m/eval.lock",
    }  # fmt: skip
    content["deep/m/eval/evaluation.html"] = page
    theirs = {
        "0000.png", "grid.png", "three/0000.png", "three/grid.png", "three/cat.png", "four/card.md", "four/1.png",
        "other/evaluation.html", "deep/x.zarr.partial/1.png", "photo.zarr/1.png", "a.h5", "three.lock",
        "five/state.json", "five/pixels.png",
    }  # fmt: skip
    found = own_outputs(own | theirs, lambda name: content.get(name, b""))
    assert found == {
        "one", "two", "run", "run.lock", "eval", "deep/m/eval", "deep/m/eval.lock", "drawn", "begun",
        "deep/x.zarr.0123456789ab.partial",
    }  # fmt: skip


def test_samples_that_are_given_themselves_are_a_source(photos: Path) -> None:
    for name in ("0000.png", "0001.png", "grid.png"):
        Image.new("RGB", (8, 8)).save(photos / "cat" / name)
    assert len(open_source(photos / "cat")) == 5
    (photos / "cat" / "0.png").unlink()
    (photos / "cat" / "1.png").unlink()
    assert len(open_source(photos / "cat")) == 3
    assert list(open_source(photos).identifiers()) == ["dog/0.png", "dog/1.png"]
