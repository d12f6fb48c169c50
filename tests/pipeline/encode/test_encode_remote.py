"""Runs that write to object storage: the same rows and files as on a disk, whatever happens on the way."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result
from upath import UPath

from data_schemas.errors import JobError, StoreError, StoreLockedError
from data_schemas.locations import location
from data_schemas.objects import object_sizes, read_object, read_objects
from data_schemas.stores.open import open_store
from pipeline.cli import app
from pipeline.convert.convert import convert
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.plan import plan_encode
from pipeline.encode.records import EncodePlan
from pipeline.encode.run import encode
from pipeline.info import store_info
from pipeline.render import render_image
from pipeline.report import build_report, read_report
from pipeline.report.compare import compare_stores
from pipeline.verify import verify
from tests.pipeline.encode.fakes import GAUSSIANS, ArrayImages, SamplingEncoder, pictures

_NUMBERS = itertools.count()


@pytest.fixture
def url() -> str:
    return f"memory://runs-{next(_NUMBERS)}/store.zarr"


def place(url: str) -> UPath:
    found = location(url)
    assert isinstance(found, UPath)
    return found


def shards_of(path: str | Path) -> dict[str, bytes]:
    """What a store holds but its metadata, which tells times and a random name."""
    found = location(path)
    if isinstance(found, Path):
        return {
            file.relative_to(found).as_posix(): file.read_bytes()
            for file in found.rglob("*")
            if file.is_file() and file.name != "zarr.json"
        }
    return read_objects(found, [key for key in object_sizes(found) if not key.endswith("zarr.json")])


def run(out: str | Path, source: ArrayImages, **options: object) -> tuple[int, int]:
    job = resolve_job("arrays", out, **{"gaussians": GAUSSIANS, "block_rows": 4, "workers": 1, **options})
    summary = encode(job, source=source, encoder=SamplingEncoder())
    return summary.fitted, summary.kept


@pytest.mark.slow
def test_a_run_makes_the_objects_of_a_local_run_and_continues(url: str, tmp_path: Path) -> None:
    images = pictures(10)
    assert run(url, ArrayImages(images[:7], attribution="by somebody")) == (7, 0)
    assert b"by somebody" in (read_object(place(url).with_name("store.attribution.txt")) or b"")
    assert run(url, ArrayImages(images)) == (3, 7)
    assert run(url, ArrayImages(images)) == (0, 10)
    run(tmp_path / "store.zarr", ArrayImages(images))
    assert shards_of(url) == shards_of(tmp_path / "store.zarr")
    assert verify(url, workers=1).compared == 10
    images[3] += 1
    assert run(url, ArrayImages(images)) == (1, 9)
    run(tmp_path / "changed.zarr", ArrayImages(images))
    assert shards_of(url) == shards_of(tmp_path / "changed.zarr")
    assert verify(url, workers=1).sound


@pytest.mark.slow
def test_everything_that_reads_a_store_reads_it_by_url(url: str, tmp_path: Path) -> None:
    run(url, ArrayImages(pictures(60)), block_rows=64)
    info = store_info(url)
    assert (str(info.path), info.done) == (url, 60)
    assert json.loads(info.model_dump_json())["path"] == url
    assert json.loads(verify(url, workers=1).model_dump_json())["store"] == url
    picture, row = render_image(url, "image-0003", size=32)
    assert (picture.size, row) == ((32, 32), 3)
    with open_store(url) as store:
        built = build_report(store, place(url).with_name("store-report"))
        compared = compare_stores(store, store)
    assert str(built.html_path) == url.replace("store.zarr", "store-report/report.html")
    assert read_report(built.json_path).images.done == 60
    page = read_object(place(url).with_name("store-report") / "report.html")
    assert page is not None
    assert page.lstrip().lower().startswith(b"<!doctype html")
    assert compared.matched == 60
    convert(url, tmp_path / "back.h5")
    convert(tmp_path / "back.h5", url.replace("store", "again"))
    assert shards_of(url.replace("store", "again")) == shards_of(url)
    with pytest.raises(StoreError, match="exists already"):
        convert(tmp_path / "back.h5", url)
    with pytest.raises(JobError, match="source and destination"):
        convert(url, url, overwrite=True)
    for wrong in (url.replace(".zarr", ".h5"), url.removesuffix(".zarr")):
        with pytest.raises(StoreError, match=r"ends in \.zarr"):
            convert(tmp_path / "back.h5", wrong)


def test_jobs_and_plans_name_the_url(url: str) -> None:
    job = resolve_job("demo", url, limit=2, gaussians=4, steps=0)
    assert EncodeJob.model_validate_json(job.model_dump_json()) == job
    assert json.loads(job.model_dump_json())["out"] == url
    plan = plan_encode(job, write=False)
    assert str(EncodePlan.model_validate_json(plan.model_dump_json()).store) == url
    assert not object_sizes(place(url).parent), "a look writes nothing"
    with pytest.raises(JobError, match=r"store\.h5 on object storage.*store\.zarr"):
        resolve_job("demo", url.replace(".zarr", ".h5"))
    with pytest.raises(StoreError, match="carries a password"):
        resolve_job("demo", "s3://me:sesame@bucket/x.zarr")


@pytest.mark.slow
def test_another_setting_makes_another_version(url: str) -> None:
    source = ArrayImages(pictures(5))
    for dtype in ("float16", "float32", "float16"):
        run(url, source, dtype=dtype, versions=True)
    with open_store(url) as first, open_store(url.replace(".zarr", ".v2.zarr")) as second:
        assert (first.header.dtype, second.header.dtype) == ("float16", "float32")


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow
def test_the_command_line_on_s3(s3_bucket: str, tmp_path: Path) -> None:
    url = f"{s3_bucket}/cli/demo.zarr"
    done = invoke(
        "encode", "demo", "--out", url, "--limit", "24", "-k", "6", "--steps", "2", "--workers", "1", "--json"
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["store"] == url
    assert found["report"] == url.replace("demo.zarr", "demo-report/report.html")
    page = place(found["report"])
    assert page.fs.info(page.path)["ContentType"] == "text/html"
    for command in (
        ("info", url),
        ("verify", url, "--workers", "1"),
        ("report", url, "--out", str(tmp_path / "report")),
        ("render", url, "--image", "3", "--out", str(tmp_path / "three.png")),
        ("compare", url, url),
        ("convert", url, str(tmp_path / "demo.h5")),
        ("convert", str(tmp_path / "demo.h5"), f"{s3_bucket}/cli/again.zarr"),
    ):
        done = invoke(*command)
        assert done.exit_code == 0, (command, done.output)
    assert (tmp_path / "three.png").is_file()
    assert (tmp_path / "report" / "report.html").is_file()
    assert shards_of(f"{s3_bucket}/cli/again.zarr") == shards_of(url)
    refused = invoke("info", "s3://me:sesame@bucket/x.zarr")
    assert refused.exit_code == 1
    assert "sesame" not in refused.output


@pytest.mark.slow
def test_dask_workers_write_their_own_objects(s3_bucket: str, tmp_path: Path) -> None:
    options = {"limit": 96, "steps": 3, "gaussians": 6, "block_rows": 16}
    url = f"{s3_bucket}/dask.zarr"
    summary = encode(resolve_job("demo", url, compute="dask", workers=2, **options))
    assert (summary.fitted, str(summary.store)) == (96, url)
    encode(resolve_job("demo", tmp_path / "local.zarr", workers=1, **options))
    assert shards_of(url) == shards_of(tmp_path / "local.zarr")
    assert read_object(place(url + ".lock")) is None


@pytest.mark.slow
def test_a_killed_run_on_s3_is_finished_by_the_next(
    s3_bucket: str, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_schemas.stores.locks.SETTLE_SECONDS", 0.0)
    url = f"{s3_bucket}/killed-run.zarr"
    options = {"limit": 64, "steps": 3, "gaussians": 6, "block_rows": 8, "workers": 1}
    code = f"""
from pipeline.encode.run import encode
from pipeline.encode.job import resolve_job
encode(resolve_job("demo", {url!r}, **{options!r}))
"""
    child = subprocess.Popen([sys.executable, "-c", code], cwd=repository)
    until = time.monotonic() + 120
    while time.monotonic() < until and child.poll() is None:
        if "state/c/2" in read_objects(place(url), ["state/c/2"]):
            with open_store(url) as store:
                if (store.read(["state"])["state"] == 1).any():
                    break
        time.sleep(0.05)
    assert child.poll() is None, "it ended before it was killed"
    with pytest.raises(StoreLockedError, match=f"process {child.pid} on "):
        encode(resolve_job("demo", url, **options))
    child.send_signal(signal.SIGKILL)
    child.wait()
    with open_store(url) as store:
        left = int((store.read(["state"])["state"] == 0).sum())
    summary = encode(resolve_job("demo", url, **options))
    assert (summary.fitted, summary.kept) == (left, 64 - left)
    encode(resolve_job("demo", tmp_path / "local.zarr", **options))
    assert shards_of(url) == shards_of(tmp_path / "local.zarr")
    with open_store(url) as store:
        assert np.isfinite(store.read(["psnr"])["psnr"]).all()
