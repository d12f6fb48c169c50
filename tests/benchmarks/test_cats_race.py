"""The race of the recipes, in seconds: both recipes run, what is done is kept, and the table names the better one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.cats_race import finished, main
from benchmarks.cats_race_table import HEADINGS, Finished, better_in, table
from models.patch_presets import RECIPES

pytestmark = pytest.mark.usefixtures("brief_features")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a quick race of two heads leaves."""
    out = tmp_path_factory.mktemp("race")
    main(["--quick", "--out", str(out), "--heads", "splats,lut", "--sheet", str(out / "sheet.png")])
    return out


@pytest.mark.soak
def test_both_recipes_learn_from_the_same_images_and_are_compared(folder: Path) -> None:
    runs = finished(folder)
    assert [(run.head, run.recipe) for run in runs] == [(head, one) for head in ("lut", "splats") for one in RECIPES]
    same = {(run.steps, run.evaluation.generator.facts["images learnt from"]) for run in runs}
    assert len(same) == 1, "equal steps and equal images"
    assert len({run.evaluation.features.sha for run in runs}) == 1
    assert len({run.evaluation.real_floor.fid for run in runs}) == 1, "the same originals"
    lines = (folder / "race.md").read_text().splitlines()
    assert lines[0].count("|") == len(HEADINGS) + 1
    for run in runs:
        line = next(line for line in lines if line.startswith(f"| {run.head} | {run.recipe} |"))
        assert float(line.split(" | ")[6]) == pytest.approx(run.fid, abs=0.01)
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.height > 2 * 3 * 16 * 2, "two heads of three rows of samples"


@pytest.mark.soak
def test_what_is_done_is_kept_and_other_steps_are_refused(folder: Path) -> None:
    files = sorted(folder.glob("*/model.safetensors")) + sorted(folder.glob("*/evaluation/evaluation.json"))
    before = [path.stat().st_mtime_ns for path in files]
    main(["--quick", "--out", str(folder), "--heads", "splats,lut"])
    assert len(before) == 8
    assert [path.stat().st_mtime_ns for path in files] == before
    with pytest.raises(SystemExit, match="other than 3 steps"):
        main(["--quick", "--out", str(folder), "--heads", "lut", "--steps", "3"])
    with pytest.raises(SystemExit, match="holds 400 images and not 300"):
        main(["--quick", "--out", str(folder), "--heads", "lut", "--images", "300"])


@pytest.mark.soak
def test_the_better_recipe_of_each_figure_is_named(folder: Path) -> None:
    published, modern = (run for run in finished(folder) if run.head == "lut")
    better, worse = _with(published, kid=1.0, ratio=1.05), _with(modern, kid=2.0, ratio=0.5)
    assert "KID" in better_in([better], [worse])
    assert "nearest" in better_in([better], [worse]), "samples that are copies are no better"
    assert "KID" not in better_in([worse], [better])
    line = next(line for line in table([better, worse]).splitlines() if line.startswith("| lut | published |"))
    assert "KID" in line
    assert "no other to compare with" in table([better])


def _with(run: Finished, *, kid: float, ratio: float) -> Finished:
    evaluation = run.evaluation
    scores = tuple(one.model_copy(update={"kid": kid}) for one in evaluation.generated)
    neighbours = evaluation.neighbours.model_copy(update={"ratio": ratio})
    return replace(run, evaluation=evaluation.model_copy(update={"generated": scores, "neighbours": neighbours}))


@pytest.mark.soak
@pytest.mark.parametrize("equal", ["compute", "steps"])
def test_minutes_become_steps(tmp_path: Path, equal: str) -> None:
    (tmp_path / "lut-steps.json").write_text('{"minutes": 0.02, "steps": {"published": 3, "modern": 2}}\n')
    main(["--quick", "--out", str(tmp_path), "--heads", "lut", "--minutes", "0.02", "--equal", equal])
    assert [run.steps for run in finished(tmp_path)] == ([3, 2] if equal == "compute" else [2, 2])


@pytest.mark.soak
def test_the_speed_of_each_recipe_is_measured_and_heads_may_run_at_once(tmp_path: Path) -> None:
    main(["--quick", "--out", str(tmp_path), "--heads", "lut,splats", "--minutes", "0.01", "--processes", "2"])
    assert len(finished(tmp_path)) == 4
    for head in ("lut", "splats"):
        kept = json.loads((tmp_path / f"{head}-steps.json").read_text())
        assert kept["minutes"] == 0.01
        assert kept["steps"] == {run.recipe: run.steps for run in finished(tmp_path) if run.head == head}


def test_an_unknown_head_and_an_empty_folder_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="--heads tails: there are kpn, lut, outer, splats"):
        main(["--out", str(tmp_path), "--heads", "tails"])
    main(["--out", str(tmp_path), "--table-only"])
    assert "Nothing has been trained" in capsys.readouterr().out
