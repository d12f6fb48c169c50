"""Flows ``train``, ``evaluate`` and ``ablate`` on a temporary server: runs, artifacts, going on, gates, roots."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown_it import MarkdownIt
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from data_schemas.errors import JobError, QualityError, SamplingError, SplatSpaceError, TrainingError
from flows.ablate import ablate as ablate_flow
from flows.artifacts.generators import evaluation_markdown
from flows.artifacts.report import LARGEST_SHEET_BYTES
from flows.evaluate import evaluate as evaluate_flow
from flows.server.once import report_of
from flows.train import train as train_flow
from models.checkpoint import load_checkpoint
from pipeline.evaluate.ablate import ablate as ablation_module
from pipeline.evaluate.figures import FittedFigures
from pipeline.evaluate.reading import read_evaluation
from pipeline.train.job import resolve_train_job
from pipeline.train.state import TrainSummary
from pipeline.train.train import train
from tests.pipeline.training_runs import make_store

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server", "brief_features", "brief_previews"),
]

FEW: dict[str, Any] = {
    "model": "splatdit",
    "preset": "tiny",
    "steps": 4,
    "batch": 4,
    "every": 2,
    "device": "cpu",
    "limit": 140,
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr", count=150)


def run_flow(store: Path, out: Path, **options: Any) -> TrainSummary:
    summary = train_flow(str(store), str(out), **{**FEW, **options})
    assert isinstance(summary, TrainSummary)
    return summary


@pytest.fixture(scope="module")
def trained(
    store: Path, tmp_path_factory: pytest.TempPathFactory, prefect_server: None, brief_previews: None
) -> TrainSummary:
    return run_flow(store, tmp_path_factory.mktemp("runs") / "whole")


def pages(key: str) -> list[str]:
    """What was published under a key, the newest last."""
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=chosen)
    return [str(artifact.data) for artifact in sorted(found, key=lambda artifact: str(artifact.created))]


def progress_of_all_runs() -> list[tuple[float, str]]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    return [(float(str(one.data)), str(one.description)) for one in found if one.type == "progress"]


def pictures_in(page: str) -> list[Image.Image]:
    found = []
    for encoded in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page):
        data = base64.b64decode(encoded)
        assert len(data) <= LARGEST_SHEET_BYTES
        found.append(Image.open(io.BytesIO(data)))
    return found


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "model.safetensors").model


def same_weights(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


class TestTraining:
    def test_it_leaves_the_run_of_a_plain_training_and_its_page(
        self, store: Path, trained: TrainSummary, tmp_path: Path
    ) -> None:
        train(resolve_train_job("splats", store, tmp_path / "plain", **FEW))
        assert same_weights(trained.run, tmp_path / "plain")
        assert report_of(trained) == trained.run / "card.md"
        page = pages("train-splats-arrays")[0]
        shown = MarkdownIt().enable("table").render(page)
        assert "<h1>Training of splatdit (tiny) on arrays</h1>" in shown
        for name, value in (("images learned from", "140"), ("steps", "4 of 4"), ("labels", "3")):
            assert f"<td>{name}</td>\n<td>{value}</td>" in shown
        assert f"<td>{(trained.run / 'model.safetensors').as_uri()}</td>" in shown
        curve, grid = pictures_in(page)
        assert curve.width > 400
        assert grid.size == Image.open(trained.run / "samples" / "0000004.png").size
        assert "Samples after step 4" in shown
        assert "<h3>Data</h3>" in shown, "of the card"
        assert "Licence: CC0." in shown
        assert (100.0, "step 4 of 4, loss") in [(share, words[:17]) for share, words in progress_of_all_runs()]

    def test_run_again_it_goes_on_and_more_steps_lengthen_it(self, store: Path, tmp_path: Path) -> None:
        first = run_flow(store, tmp_path / "run", steps=2)
        assert first.steps_taken == 2
        assert run_flow(store, tmp_path / "run", steps=2).steps_taken == 0
        longer = run_flow(store, tmp_path / "run", steps=5)
        assert (longer.steps_taken, longer.steps) == (3, 5)
        with pytest.raises(JobError, match="--batch 5 for a training that began with 4"):
            run_flow(store, tmp_path / "run", steps=5, batch=5)
        with pytest.raises(JobError, match="holds a training already"):
            run_flow(store, tmp_path / "run", resume=False)

    def test_a_training_that_fails_shows_how_far_it_came(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from pipeline.train.loop import TrainLoop

        original = TrainLoop._step

        def diverging(loop: TrainLoop, step: int) -> None:
            if step == 3:
                with torch.no_grad():
                    for parameter in loop.parts.network.parameters():
                        parameter.fill_(float("nan"))
            original(loop, step)

        monkeypatch.setattr(TrainLoop, "_step", diverging)
        before = len(pages("train-splats-arrays"))
        with pytest.raises(TrainingError, match="step 4 is not a number"):
            run_flow(store, tmp_path / "run")
        assert len(pages("train-splats-arrays")) == before + 1
        assert "2 of 4" in pages("train-splats-arrays")[-1]

    def test_splats_are_drawn_where_no_model_is_named(self, store: Path, tmp_path: Path) -> None:
        assert run_flow(store, tmp_path / "run", model=None, steps=1).model == "render-dit"
        assert r"render\-dit (tiny)" in pages("train-splats-arrays")[-1]

    def test_pixels_have_a_history_of_their_own(self, store: Path, tmp_path: Path) -> None:
        run_flow(store, tmp_path / "run", kind="pixels", model=None, steps=1)
        assert "pixel-unet" in MarkdownIt().render(pages("train-pixels-arrays")[-1])

    def test_so_have_the_heads_of_patch_models(self, store: Path, tmp_path: Path) -> None:
        summary = run_flow(store, tmp_path / "run", kind="cats", model=None, head="lut", steps=1)
        assert summary.model == "cats-lut"
        assert "cats-lut" in MarkdownIt().render(pages("train-arrays-lut")[-1])
        with pytest.raises(JobError, match="--head or --recipe with train pixels"):
            run_flow(store, tmp_path / "other", kind="pixels", model=None, head="lut")

    def test_it_stays_inside_the_roots(self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPLATSPACE_ROOTS", str(tmp_path))
        with pytest.raises(JobError, match=r"store '.*' lies outside"):
            run_flow(store, tmp_path / "run")
        monkeypatch.setenv("SPLATSPACE_ROOTS", str(store.parent))
        with pytest.raises(JobError, match=r"out '.*' lies outside"):
            run_flow(store, tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestEvaluation:
    few: dict[str, Any] = {"images": 66, "evaluations": 2, "sweep": "1,3", "device": "cpu"}  # noqa: RUF012

    def test_it_publishes_scores_with_floors_and_the_place_of_the_page(
        self, store: Path, trained: TrainSummary
    ) -> None:
        page = evaluate_flow(str(trained.run), str(store), **self.few)
        assert isinstance(page, Path)
        assert page == trained.run / "evaluation" / "evaluation.html"
        found = read_evaluation(trained.run / "evaluation")
        assert [scores.evaluations for scores in found.generated] == [1, 2, 3]
        shown = MarkdownIt().enable("table").render(pages("evaluation-splats-arrays")[-1])
        assert f"<td>2 evaluations</td>\n<td>66</td>\n<td>{found.headline.fid:.2f}</td>" in shown
        assert f"<td>floor: originals</td>\n<td>66</td>\n<td>{found.real_floor.fid:.2f}</td>" in shown
        assert f"<td>{page.as_uri()}</td>" in shown
        assert found.features.sha in shown
        assert len(pictures_in(pages("evaluation-splats-arrays")[-1])) == 1
        assert (100.0, "evaluation: 198 of 198 images sampled") in progress_of_all_runs()

    def test_pixels_as_splats_have_a_row_of_their_own(self, store: Path, trained: TrainSummary) -> None:
        with pytest.raises(SamplingError, match="generates splats already"):
            evaluate_flow(str(trained.run), str(store), splats=True, gaussians=9, **self.few)
        found = read_evaluation(trained.run / "evaluation")
        fitted = FittedFigures(
            scores=found.headline.model_copy(update={"fid": 1.25}), codec="additive/1", gaussians=9, steps=2,
            engine="cpu", psnr=30.5, seconds_per_image=0.01, core_seconds_per_image=0.02,
        )  # fmt: skip
        text = evaluation_markdown(found.model_copy(update={"fitted": fitted}), run=trained.run, page=Path("/page"))
        shown = MarkdownIt().enable("table").render(text)
        assert "<td>the same as 9 splats</td>\n<td>66</td>\n<td>1.25</td>" in shown
        assert "K = 9, engine cpu, 30.50 dB to the generated pixels" in shown
        assert "<td>core-ms of the fit per image</td>\n<td>20.0</td>" in shown

    def test_a_generator_that_misses_its_quality_fails_after_everything_is_written(
        self, store: Path, trained: TrainSummary, tmp_path: Path
    ) -> None:
        before = len(pages("evaluation-splats-arrays"))
        with pytest.raises(QualityError, match=r"above 0\.01 \(max_fid\)"):
            evaluate_flow(str(trained.run), str(store), out=str(tmp_path), max_fid=0.01, **self.few)
        assert (tmp_path / "evaluation.html").is_file()
        assert len(pages("evaluation-splats-arrays")) == before + 1

    def test_it_stays_inside_the_roots(
        self, store: Path, trained: TrainSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPLATSPACE_ROOTS", f"{store}:{trained.run}")
        with pytest.raises(JobError, match=r"features '.*a-features' lies outside"):
            evaluate_flow(str(trained.run), str(store), **self.few)
        monkeypatch.setenv("SPLATSPACE_ROOTS", f"{store.parent}:{trained.run}")
        with pytest.raises(JobError, match=r"out '.*' lies outside"):
            evaluate_flow(str(trained.run), str(store), out=str(tmp_path / "out"), **self.few)
        for name in ("weights", "against", "ablation"):
            outside: dict[str, Any] = {**self.few, name: str(tmp_path / "file")}
            with pytest.raises(JobError, match=rf"{name} '.*' lies outside"):
                evaluate_flow(str(trained.run), str(store), **outside)
        assert not list(tmp_path.iterdir())


class TestAblation:
    few: dict[str, Any] = {  # noqa: RUF012
        "axes": "ema=no; evaluations=3", "steps": 2, "batch": 4, "images": 66, "evaluations": 2, "device": "cpu",
    }  # fmt: skip

    def test_it_publishes_the_table_and_is_resumed(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "ablation"

        def faulty(planned: Any, **options: Any) -> Any:
            if not planned.ema:
                raise TrainingError("The loss of step 1 is not a number")
            return train(planned, **options)

        with monkeypatch.context() as broken:
            broken.setattr(ablation_module, "train", faulty)
            with pytest.raises(SplatSpaceError, match="1 choices have failed trainings: ema no: The loss"):
                ablate_flow(str(store), str(out), **self.few)
        assert "not a number" in pages("ablation-arrays")[-1]
        assert ablate_flow(str(store), str(out), **self.few) == out / "ablation.md"
        page = pages("ablation-arrays")[-1]
        shown = MarkdownIt().enable("table").render(page)
        for value in ("yes (base)", "no", "2 (base)", "3"):
            assert f"<td>{value}</td>" in shown
        assert "not a number" not in shown
        assert len(pictures_in(page)) == 1
        assert f"<td>{(out / 'ablation.json').as_uri()}</td>" in shown

    def test_a_wrong_axis_fails_before_anything_is_written(self, store: Path, tmp_path: Path) -> None:
        with pytest.raises(JobError, match="Axis 'depth'"):
            ablate_flow(str(store), str(tmp_path / "out"), axes="depth=3")
        assert not (tmp_path / "out").exists()
