"""The engine of a run with ``--engine auto``: what is recorded, and what an earlier run decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_schemas.errors import JobError
from data_schemas.stores.open import open_store
from encoders import engines as engine_choice
from encoders.base import FitSettings
from encoders.engines import EngineChoice, Work
from pipeline.encode import inputs as engine_for_store
from pipeline.encode.inputs import engine_for
from pipeline.encode.plan import plan_encode
from pipeline.encode.run import encode
from pipeline.report.figures import store_facts
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, job_for, pictures

SHAPE = (8, 8, 3)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Work | None]:
    """A machine that would take engine cuda for whatever it is asked; remembers the questions."""
    found: list[Work | None] = []

    def choose(_settings: FitSettings, work: Work | None = None) -> EngineChoice:
        found.append(work)
        return EngineChoice("cuda", "it is there")

    monkeypatch.setattr(engine_for_store, "choose_engine", choose)
    return found


def test_a_named_engine_is_taken_without_a_question(asked: list[Work | None], tmp_path: Path) -> None:
    job = job_for(tmp_path / "a.zarr", engine="cuda")
    assert engine_for(job, job.fit_settings(8, 8), 10, SHAPE) == EngineChoice("cuda", "")
    assert asked == []


def test_a_new_store_gets_what_suits_machine_and_work(asked: list[Work | None], tmp_path: Path) -> None:
    job = job_for(tmp_path / "a.zarr", workers=3)
    assert engine_for(job, job.fit_settings(8, 8), 10, SHAPE).engine == "cuda"
    assert asked == [Work(10, 8, 8, 3, 3)]


@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_a_store_that_is_there_keeps_its_engine(asked: list[Work | None], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"a{suffix}"
    encoder = SamplingEncoder()
    encoder.name = "cpu"
    encode(job_for(out), source=ArrayImages(pictures(4)), encoder=encoder)
    job = job_for(out)
    choice = engine_for(job, job.fit_settings(8, 8), 4, SHAPE)
    assert (choice.engine, choice.reason) == ("cpu", f"it made the rows that {out.name} holds")
    assert asked == []
    other_codec = job_for(out, codec="over")
    assert engine_for(other_codec, other_codec.fit_settings(8, 8), 4, SHAPE).engine == "cuda"
    new = job_for(out, overwrite=True)
    assert engine_for(new, new.fit_settings(8, 8), 4, SHAPE).engine == "cuda"


@pytest.mark.slow
def test_the_choice_is_recorded_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"gaussians": 4, "steps": 2, "limit": 4, "block_rows": None, "workers": 1}
    job = job_for(tmp_path / "a.zarr", **options).model_copy(update={"dataset": "demo"})
    with caplog.at_level("INFO", "splatspace.engine"):
        plan = plan_encode(job)
        summary = encode(job)
    assert plan.job.engine == "cpu", "every process of the run takes the same engine"
    assert caplog.text.count("engine cpu: ") == 2, "one line a plan"
    assert plan.engine_choice
    with open_store(job.out) as store:
        (run,) = store.header.runs
        facts = store_facts(store.header, job.out)
    assert summary.engine_choice == run.engine_choice == f"it made the rows that {job.out.name} holds"
    assert facts.engine_choices == (run.engine_choice,)


def test_cuda_by_name_never_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr(engine_choice, "choose_engine", lambda *_: pytest.fail("nothing was left open"))
    job = job_for(tmp_path / "a.zarr", engine="cuda").model_copy(update={"dataset": "demo"})
    with pytest.raises(JobError, match="Engine 'cuda' needs a torch built for CUDA"):
        plan_encode(job)
    assert not (tmp_path / "a.zarr").exists()
