"""The stores of an ablation: what of the base store decides them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_schemas.errors import JobError
from data_schemas.records import StoreHeader
from data_schemas.stores.open import open_store
from pipeline.encode.job import EncodeJob
from pipeline.evaluate.ablate import ablate as ablation
from pipeline.evaluate.ablate import stores as ablation_stores
from pipeline.evaluate.ablate.job import AblateJob, Point, resolve_ablate_job
from pipeline.evaluate.ablate.points import default_axes
from pipeline.evaluate.ablate.stores import encode_variant, variant_job
from tests.pipeline.training_runs import make_store

SETTINGS: dict[str, Any] = {"steps": 40, "target_psnr": 33.5, "rounds": 3}
REFINED = {"refine": {"method": "regressed", "share": 0.5, "digest": "of some network"}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr", count=4)


def header_of(store: Path, *, refined: bool = False, **changes: Any) -> StoreHeader:
    with open_store(store) as opened:
        header = opened.header
    settings = {**SETTINGS, **({"recipe": REFINED} if refined else {})}
    return header.model_copy(update={"engine": "cpu", "seed": 5, "settings": settings, **changes})


def test_a_variant_is_fitted_as_its_base_was(store: Path, tmp_path: Path) -> None:
    header = header_of(store, refined=True, colours="signed", dtype="float32")
    job = variant_job(header, tmp_path / "b.zarr", gaussians=9, start="grid", workers=2)
    assert (job.gaussians, job.start, job.workers) == (9, "grid", 2)
    assert (job.engine, job.refine, job.rounds, job.steps, job.target_psnr) == ("cpu", "regressed", 3, 40, 33.5)
    assert (job.codec, job.colours, job.dtype, job.seed) == (header.codec, "signed", "float32", 5)
    other = variant_job(header_of(store, engine="reference"), tmp_path / "b.zarr", gaussians=9, start="grid")
    assert (other.engine, other.refine) == ("reference", "none")
    foreign = variant_job(
        header_of(store, engine="another program", settings={}), tmp_path / "b.zarr", gaussians=9, start=None
    )
    assert (foreign.engine, foreign.rounds) == ("auto", 1)


def test_that_is_what_is_encoded(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[EncodeJob] = []
    monkeypatch.setattr(ablation_stores, "encode", lambda job, **_: found.append(job))
    with open_store(store, "a") as opened:
        opened.set_header(header_of(store, refined=True))
        encode_variant(opened, tmp_path / "new" / "b.zarr", gaussians=9, start="grid", workers=1)
        assert found == [variant_job(opened.header, tmp_path / "new" / "b.zarr", gaussians=9, start="grid", workers=1)]


def job_of(store: Path, out: Path) -> AblateJob:
    return resolve_ablate_job(store, out, steps=2, device="cpu", workers=1)


def test_a_refined_base_has_no_adaptive_variants(store: Path, tmp_path: Path) -> None:
    job = job_of(store, tmp_path / "out")
    assert default_axes(job, header_of(store, refined=True))["start"] == ("transport", "grid")
    assert "adaptive" in default_axes(job, header_of(store))["start"]
    with open_store(store, "a") as opened:
        opened.set_header(header_of(store, refined=True))
        with pytest.raises(JobError, match="--refine regressed with --start adaptive"):
            ablation._check(job, [Point("start", "adaptive", 0, start="adaptive")], opened)


def test_an_engine_that_cannot_run_here_is_refused_before_anything_is_trained(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with open_store(store, "a") as opened:
        opened.set_header(header_of(store, engine="cuda"))
        with pytest.raises(JobError, match="cuda"):
            ablation._check(job_of(store, tmp_path / "out"), [Point("gaussians", 9, 0, gaussians=9)], opened)
