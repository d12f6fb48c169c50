"""A store of codec over/1 from images to report, by the engine that every machine has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_schemas.errors import JobError, StoreError, StoreMismatchError
from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.splats import GREY_ALPHA, OVER, RGB_ALPHA
from data_schemas.stores.open import open_store
from encoders.decode import decode_with_dead, to_uint8
from encoders.quality import psnr
from encoders.render import render
from pipeline.convert.convert import convert
from pipeline.encode.block_decision import quantise
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.run import encode
from pipeline.render import render_image
from pipeline.report import build_report
from pipeline.verify import verify


def job(out: Path, **options: object) -> EncodeJob:
    settings = {"codec": "over", "engine": "reference", "gaussians": 10, "steps": 8, "limit": 6, "workers": 1}
    return resolve_job("demo", out, **{**settings, **options})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("over") / "demo.zarr"
    summary = encode(job(path))
    assert (summary.fitted, summary.failed) == (6, ())
    return path


@pytest.mark.slow
def test_rows_decode_to_what_is_recorded(path: Path) -> None:
    with open_store(path) as store:
        header, rows = store.header, store.read(["splats", "image", "psnr", "dead"])
    assert (header.codec, header.layout, header.engine) == (OVER, "rgb_alpha", "reference")
    assert header.settings["recipe"]["first_alpha"] == 0.9
    frame = {"layout": RGB_ALPHA, "codec": OVER, "height": header.height, "width": header.width}
    decoded, dead = decode_with_dead(rows["splats"], **frame)
    np.testing.assert_array_equal(psnr(to_uint8(decoded), rows["image"]), rows["psnr"])
    np.testing.assert_array_equal(dead, rows["dead"])
    plain = render(torch.from_numpy(rows["splats"]).double(), RGB_ALPHA, OVER, header.height, header.width)
    np.testing.assert_allclose(decoded, plain.numpy(), atol=1e-5)
    assert rows["psnr"].min() > 12


@pytest.mark.slow
def test_a_second_run_goes_on_and_another_codec_is_refused(path: Path) -> None:
    again = encode(job(path, limit=8))
    assert (again.kept, again.fitted + again.reused) == (6, 2)
    assert verify(path).sound
    with pytest.raises(StoreMismatchError, match="codec: 'over/1' stored, 'additive/1' wanted"):
        encode(job(path, codec="additive"))


@pytest.mark.slow
def test_every_reader_of_stores_takes_it(path: Path, tmp_path: Path) -> None:
    picture, _ = render_image(path, "0", size=64)
    assert picture.size == (64, 64)
    assert render_image(path, "0", size=64, ellipses=True)[0].size == (64, 64)
    with open_store(path) as store:
        report = build_report(store, tmp_path / "report").report
    assert report.store.codec == OVER
    assert "alpha" in report.store.parameters
    convert(path, tmp_path / "demo.h5")
    assert verify(tmp_path / "demo.h5").sound
    with pytest.raises(StoreError, match="no published layout"):
        convert(path, tmp_path / "folder")


def test_an_engine_that_does_not_fit_it_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for engine in ("cpu", "gsplat") if not torch.cuda.is_available() else ("cpu",):
        with pytest.raises(JobError, match=rf"(?i)engine '{engine}'"):
            encode(job(tmp_path / "none.zarr", engine=engine))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_opacity_is_stored_between_0_and_1_and_checked(tmp_path: Path, path: Path) -> None:
    header = StoreHeader(
        codec=OVER, layout="grey_alpha", gaussians=3, height=4, width=4, channels=1, dtype="float16",
        source=SourceRecord(name="test"),
    )  # fmt: skip
    splats = np.full((1, 3, GREY_ALPHA.width), 0.25, np.float32)
    alpha = GREY_ALPHA.index("alpha")
    splats[0, :, alpha] = [-1e-6, 0.5, 1.25]
    stored, problems = quantise(splats, header)
    assert problems == [""]
    assert stored[0, :, alpha].tolist() == [0, 0.5, 1]
    # In other codecs opacity scales a colour, and may have any value.
    assert quantise(splats, header.model_copy(update={"codec": "additive/1"}))[0][0, 2, alpha] > 1

    broken = tmp_path / "broken.zarr"
    convert(path, broken)
    with open_store(broken, "a") as store:
        rows = store.read_block(0)
        rows.splats[2, 4, RGB_ALPHA.index("alpha")] = 1.5
        store.write_block(0, rows)
    assert [(fault.row, fault.reason) for fault in verify(broken).faults] == [
        (2, "an alpha that is not between 0 and 1")
    ]
