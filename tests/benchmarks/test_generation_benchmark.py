"""The benchmark of generators, on a set of seconds: every contender runs once, and what is done is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from benchmarks.generation import CONTENDERS, RunRecord, main
from benchmarks.generation_tables import FIT, cost
from pipeline.generation.evaluation_report.reading import read_evaluation

RUNS = ("splatdit-0", "published-0", "pixel-unet-0", "pixel-dit-0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the quick benchmark leaves."""
    out = tmp_path_factory.mktemp("benchmark")
    main(out, seeds="0", quick=True, sheets=out / "sheets")
    return out


@pytest.mark.soak
def test_every_contender_is_trained_evaluated_timed_and_shown(folder: Path) -> None:
    text = (folder / "generation.md").read_text()
    for name in RUNS:
        record = RunRecord.model_validate_json((folder / "demo" / name / "benchmark.json").read_bytes())
        assert record.core_seconds > 0
        assert record.steps >= 1
        line = next(line for line in text.splitlines() if line.startswith(f"| {name.removesuffix('-0')} | 0 |"))
        assert line.count("|") == text.splitlines()[text.splitlines().index(line) - 1].count("|")
        assert float(line.split(" | ")[5]) > 0
    fitted = next(line for line in text.splitlines() if line.startswith(f"| {FIT} | 0 |")).split(" | ")
    pixels = next(line for line in text.splitlines() if line.startswith("| pixel-dit | 0 |")).split(" | ")
    assert fitted[2:5] == pixels[2:5], "steps, training time and evaluations are those of the pixels"
    held = [read_evaluation(folder / "demo" / name / "evaluation") for name in ("pixel-dit-0", "pixel-dit+fit-0")]
    assert held[0].headline == held[1].headline, "the pixels are the same"
    assert held[1].fitted is not None
    assert fitted[5] == f"{held[1].fitted.scores.fid:.2f}"
    assert "Fit of pixel-dit + fit: K = 12, up to 8 steps of engine cpu" in text
    missing = [line for line in text.splitlines() if "not measured" in line and "precision" not in line]
    assert missing == [], "after three steps nothing may be precise"
    assert "demo: FID of render-dit over pixel-dit | <= 1.2 |" in text
    with Image.open(folder / "sheets" / "generated-demo.png") as sheet:
        assert sheet.width > 4 * sheet.height / 2


@pytest.mark.soak
def test_what_is_done_is_not_repeated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(folder.glob("demo/*/evaluation/evaluation.json")) + sorted(folder.glob("demo/*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in files]
    main(folder, seeds="0", quick=True)
    assert [path.stat().st_mtime_ns for path in files] == before
    assert capsys.readouterr().out.strip() == (folder / "generation.md").read_text().strip()


@pytest.mark.soak
def test_one_contender_with_another_seed_alone_and_a_table_of_what_there_is(folder: Path) -> None:
    main(folder, seeds="1", quick=True, contender=["splatdit"])
    assert not (folder / "demo" / "published-1").exists()
    assert "demo: FID over published" not in (folder / "generation.md").read_text()
    main(folder, seeds="0,1", quick=True, tables_only=True)
    text = (folder / "generation.md").read_text()
    assert "demo: FID over published" in text
    assert "| splatdit | 0, 1 |" in text


@pytest.mark.slow
def test_a_contender_that_gets_the_time_of_another_asks_for_that_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="splatdit-0, which has not been run"):
        main(tmp_path, seeds="0", quick=True, contender=["pixel-unet"])


@pytest.mark.slow
def test_a_fit_of_samples_that_are_not_there_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="fits the samples of pixel-dit-0, which has not been run"):
        main(tmp_path, seeds="0", quick=True, contender=[FIT])


@pytest.mark.slow
def test_costs_at_the_published_size_meet_the_targets() -> None:
    assert 51.4 < cost("published", "full").parameters / 1e6 < 51.6
    assert cost("published", "full").gflop == pytest.approx(15.79, abs=0.01)
    assert cost("splatdit", "full").gflop * 20 / 1000 <= 0.08
    assert cost("splatdit", "small").gflop <= 0.65


def test_only_the_contender_with_labels_sees_them() -> None:
    named = {
        name for name, recipe in CONTENDERS.items() if recipe.options.get("classes", name not in ("published", FIT))
    }
    assert named == {"splatdit-labels"}
