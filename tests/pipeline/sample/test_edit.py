"""Moving, recolouring and deleting Gaussians of a stored image."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_schemas.errors import JobError
from data_schemas.stores.open import open_store
from pipeline.cli import app
from pipeline.sample.edit import Edit, edit_image
from pipeline.sample.store import StoredImage, read_image
from tests.pipeline.tiny_runs import small_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("edit") / "small.zarr", images=3)


@pytest.fixture
def image(store: Path) -> StoredImage:
    return read_image(store, "1")


def test_a_whole_pixel_moves_the_picture(image: StoredImage) -> None:
    moved, count = edit_image(image, Edit(move=(2, 1)))
    assert count == len(image.splats)
    # What left the image or came from outside cannot be compared; float32 rounds at the last place.
    before, after = image.rendered(), moved.rendered()
    np.testing.assert_allclose(after[1:, 2:].astype(int), before[:-1, :-2], atol=1)
    assert np.abs(after.astype(int) - before).max() > 10


def test_only_the_chosen_ones_are_recoloured(image: StoredImage) -> None:
    changed, count = edit_image(image, Edit(gaussians=(1, 4), recolour=(255, 0, 51)))
    assert count == 2
    layout = image.header.splat_layout
    np.testing.assert_allclose(changed.splats[[1, 4], layout.colour_slice], [[1, 0, 0.2]] * 2)
    rest = [0, 2, 3, 5]
    np.testing.assert_array_equal(changed.splats[rest], image.splats[rest])
    grey, _ = edit_image(image, Edit(gaussians=(0,), recolour=(102,)))
    np.testing.assert_allclose(grey.splats[0, layout.colour_slice], [0.4] * 3)


def test_deleting_takes_their_light_away(image: StoredImage) -> None:
    left, count = edit_image(image, Edit(box=(0, 0, 4, 8), delete=True))
    black, same = edit_image(image, Edit(box=(0, 0, 4, 8), recolour=(0,)))
    assert count == same
    assert 0 < count < len(image.splats)
    assert len(left.splats) == left.header.gaussians == len(image.splats) - count
    np.testing.assert_array_equal(left.rendered(), black.rendered())
    assert left.header.anchors is None


def test_what_cannot_be_done_is_refused(image: StoredImage) -> None:
    contradictions: list[dict[str, Any]] = [
        {},
        {"delete": True},
        {"delete": True, "gaussians": (0,), "move": (1, 1)},
        {"gaussians": (0,), "box": (0, 0, 1, 1), "move": (1, 1)},
    ]
    for contradiction in contradictions:
        with pytest.raises(JobError):
            Edit(**contradiction)
    for edit, message in (
        (Edit(gaussians=(0, 6), move=(1, 1)), "0 to 5"),
        (Edit(box=(50, 50, 60, 60), move=(1, 1)), "No Gaussian"),
        (Edit(recolour=(1, 2)), "1 or 3 numbers"),
        (Edit(recolour=(-1,)), "from 0 to 255"),
        (Edit(gaussians=tuple(range(6)), delete=True), "at least one"),
        (Edit(move=(1e40, 0)), "leads out of the numbers"),
    ):
        with pytest.raises(JobError, match=message):
            edit_image(image, edit)


@pytest.mark.slow
def test_the_command(store: Path, tmp_path: Path) -> None:
    def splatspace(*arguments: object):
        return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])

    before = (store / "zarr.json").read_bytes()
    common = ("edit", store, "--image", "image-0001")
    result = splatspace(*common, "--gaussians", "0,2", "--delete", "--out", tmp_path / "rest.zarr", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {"out": str(tmp_path / "rest.zarr"), "changed": 2, "gaussians": 4}
    with open_store(tmp_path / "rest.zarr") as written:
        assert written.header.settings["changed"] == "Gaussians 0,2: deleted"
        assert written.read(["source_id"])["source_id"].tolist() == ["image-0001"]
        assert written.read(["label"])["label"].tolist() == [1]
    moved = splatspace(*common, "--move", "1,0", "--recolour", "9,8,7", "--size", 20, "--out", tmp_path / "moved.png")
    assert moved.exit_code == 0, moved.output
    assert Image.open(tmp_path / "moved.png").size == (20, 20)
    assert splatspace(*common, "--move", "1", "--out", tmp_path / "x.png").exit_code == 2
    assert splatspace(*common, "--move", "1,1", "--size", 20, "--out", tmp_path / "x.zarr").exit_code == 2
    assert splatspace("edit", store, "--image", 99, "--move", "1,1", "--out", tmp_path / "x.png").exit_code == 1
    assert not list(tmp_path.glob("x.*"))
    assert (store / "zarr.json").read_bytes() == before


@pytest.mark.slow
def test_a_store_that_cannot_be_made_whole_is_not_there(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def splatspace(*arguments: object):
        return CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])

    words = ("edit", store, "--image", 0, "--move", "1,1", "--out")
    for name in ("a.zarr", "a.h5"):
        with monkeypatch.context() as broken:

            def full(*_: object, **__: object) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            broken.setattr("pipeline.sample.store.decode_with_dead", full)
            failed = splatspace(*words, tmp_path / name)
        assert failed.exit_code == 1
        assert "No space left" in failed.output
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(name)] == [f"{name}.lock"]
        assert splatspace(*words, tmp_path / name).exit_code == 0
        with open_store(tmp_path / name) as written:
            assert len(written) == 1
        again = splatspace(*words, tmp_path / name)
        assert again.exit_code == 1
        assert "exists already" in again.output
        assert "delete what is there" in again.output
        assert "overwrite=" not in again.output
    assert "suffix '.tif'" in splatspace(*words, tmp_path / "a.tif").output
    assert not list(tmp_path.glob("a.tif*"))
