"""The study of stores: a quick run, its table, and going on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import encoder_study
from benchmarks.encoder_study import WAYS, table

app = typer.Typer()
app.command()(encoder_study.main)


@pytest.mark.soak
def test_a_quick_study_measures_every_store_and_is_not_repeated(tmp_path: Path) -> None:
    plot = tmp_path / "slots.png"
    arguments = ["--work", str(tmp_path), "--quick", "--ways", "adaptive;adaptive, reordered;regressed"]
    arguments += ["--plot", str(plot)]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert plot.read_bytes().startswith(b"\x89PNG")
    results = tmp_path / "results"
    generators = {path.stem: json.loads(path.read_text()) for path in results.glob("*-seed0.json")}
    assert set(generators) == {f"demo-{way}-seed0" for way in ("adaptive", "adaptive-reordered", "regressed")}
    assert len({one["features"] for one in generators.values()}) == 1, "features of their own cannot be compared"
    assert len({one["fid"] for one in generators.values()}) == 3
    stores = {name: json.loads((results / f"demo-{name}.json").read_text()) for name in ("adaptive", "regressed")}
    assert stores["regressed"]["r2"] > stores["adaptive"]["r2"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    again = CliRunner().invoke(app, [*arguments, "--table"])
    assert again.exit_code == 0, again.output
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before
    assert len(again.output.strip().splitlines()) == 2 + 3
    assert again.output.strip() in first.output


def test_the_table_compares_equal_seeds_only(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for way in ("adaptive", "transport"):
        facts = {"psnr": 40.0, "p1": 30.0, "r2": 0.25, "floor": 0.5}
        (results / f"demo-{way}.json").write_text(json.dumps(facts))
    for way, seed, fid in (("adaptive", 0, 40.0), ("transport", 0, 10.0), ("transport", 1, 30.0)):
        (results / f"demo-{way}-seed{seed}.json").write_text(json.dumps({"fid": fid, "recall": 0.5}))
    lines = {line.split(" | ")[1]: line for line in table(tmp_path, ["demo"]).splitlines()}
    assert "| 20 (10 to 30) | 0.25 | 0.50 (0.50 to 0.50) | 2 |" in lines["transport"]
    assert "| 40 | 1.00 | 0.50 | 1 |" in lines["adaptive"]
    # The reordered store is the same one; no generator of it was measured.
    assert "| 40.00 dB | 30.00 dB | 0.250 |  |  |  | 0 |" in lines["adaptive, reordered"]
    assert set(lines) <= {"store", "---", *WAYS}


def test_an_unknown_store_is_named(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["--work", str(tmp_path), "--ways", "random"])
    assert found.exit_code != 0
    assert "random" in str(found.exception or found.output)
