"""Images that became flat or vanished, and the background: told by the run, kept in the store, guarded on a resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from data_schemas.errors import JobError, StoreMismatchError
from data_schemas.stores.open import open_store
from pipeline.cli import app
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.records import EncodeSummary
from pipeline.encode.run import encode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images of 4 x 4: a 16-bit mask, a black icon on nothing, one half transparent, one plain."""
    place = tmp_path / "icons"
    place.mkdir()
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[1:3, 1:3, 3] = 255
    Image.fromarray(np.eye(4, dtype=np.uint16)).save(place / "0 mask.png")
    Image.fromarray(rgba).save(place / "1 icon.png")
    rgba[1:3, 1:3, 0] = 200
    Image.fromarray(rgba).save(place / "2 half.png")
    Image.fromarray(rgba[..., :3]).save(place / "3 plain.png")
    return place


def run(folder: Path, **options: object) -> EncodeSummary:
    return encode(resolve_job(str(folder), folder.parent / "store.h5", gaussians=0, workers=1, **options))


def test_a_run_tells_and_keeps_what_became_of_images(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = run(folder)
    found = [(image.row, image.source_id, image.kind) for image in summary.noted]
    assert found == [(0, "0 mask.png", "flattened"), (1, "1 icon.png", "vanished")]
    assert json.loads(summary.model_dump_json())["noted"][1]["source_id"] == "1 icon.png"
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert told[0].startswith("1 images of more than 8 bits are of one grey or nearly (0 mask.png)")
    assert told[1].startswith("1 images with transparency show nothing")
    assert "1 icon.png" in told[1]
    assert "--background" in told[1]
    with open_store(summary.store) as store:
        assert store.header.runs[-1].noted == {"flattened": 1, "vanished": 1}
        assert store.header.source.background == "#000000"


def test_images_that_are_kept_are_told_of_again(folder: Path) -> None:
    first, again = run(folder), run(folder)
    assert (again.kept, again.fitted) == (4, 0)
    assert again.noted == first.noted


@pytest.mark.slow
def test_another_background_makes_other_pixels(folder: Path) -> None:
    summary = run(folder, background="white")
    assert [image.kind for image in summary.noted] == ["flattened"]
    with open_store(summary.store) as store:
        assert store.header.source.background == "#ffffff"
        images = store.read(["image"])["image"]
    assert images[1, 0, 0].tolist() == [255, 255, 255]
    assert images[1, 1, 1].tolist() == [0, 0, 0]
    assert images[2, 1, 1].tolist() == [200, 0, 0]
    shown = CliRunner().invoke(app, ["info", str(summary.store)])
    assert "laid over #ffffff" in shown.stdout, shown.output


@pytest.mark.slow
def test_a_store_is_not_continued_over_another_background(folder: Path) -> None:
    run(folder, background="white")
    with pytest.raises(StoreMismatchError, match="background: '#ffffff' stored, '#000000' wanted"):
        run(folder)
    assert run(folder, background="#FFF").kept == 4
    beside = run(folder, versions=True)
    assert beside.store.name == "store.v2.h5"
    assert beside.fitted + beside.reused == 4


def test_a_job_spells_a_colour_in_one_way(tmp_path: Path) -> None:
    job = resolve_job("photos", tmp_path / "a.zarr", background="White")
    assert job.background == "#ffffff"
    assert resolve_job("photos", tmp_path / "a.zarr").background == "#000000"
    assert EncodeJob.model_validate_json(job.model_dump_json()) == job
    with pytest.raises(JobError, match="--background 'nothing'"):
        resolve_job("photos", tmp_path / "a.zarr", background="nothing")
