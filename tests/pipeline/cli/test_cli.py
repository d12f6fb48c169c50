"""The command line as a user meets it: results on stdout, everything else on stderr, the promised exit codes."""

from __future__ import annotations

import json
import runpy
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from data_schemas.stores.open import open_store
from pipeline.cli import app
from pipeline.cli.app import COMMANDS
from pipeline.report.figures import store_facts

FAST = ("--steps", "5", "--gaussians", "12", "--workers", "1", "--no-report")


def splatspace(*arguments: Any, **environment: str) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1", **environment})
    return runner.invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    """Everything on stderr in one line."""
    return " ".join(result.stderr.split())


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two stores of the same 20 images."""
    folder = tmp_path_factory.mktemp("stores")
    for name, steps in (("a.zarr", "5"), ("b.h5", "20")):
        result = splatspace("encode", "demo", "--out", folder / name, "--limit", 20, *FAST, "--steps", steps)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of ten images, one of them broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    data = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(data[: len(data) // 2])
    return folder


@pytest.mark.slow
def test_encode_says_where_everything_is(tmp_path: Path) -> None:
    out = tmp_path / "new" / "demo.zarr"
    arguments = [argument for argument in FAST if argument != "--no-report"]
    result = splatspace("encode", "demo", "--out", out, "--limit", 60, *arguments)
    assert result.exit_code == 0, result.output
    report = tmp_path / "new" / "demo-report" / "report.html"
    assert report.is_file()
    assert str(report) in result.stdout.splitlines()[-1]
    assert "60 images" in result.stdout
    assert "PSNR" in result.stdout
    again = splatspace("encode", "demo", "--out", out, "--limit", 60, *arguments)
    assert again.exit_code == 0
    assert "60 kept" in again.stdout


@pytest.mark.slow
def test_encode_json_is_one_object(tmp_path: Path) -> None:
    out = tmp_path / "demo.h5"
    result = splatspace("--verbose", "encode", "demo", "--out", out, "--limit", 8, *FAST, "--json")
    content = json.loads(result.stdout)
    assert (content["images"], content["fitted"], content["failed"]) == (8, 8, [])
    assert content["psnr"] > 5
    assert content["report"] is None
    assert result.stderr, "--verbose logs to stderr"


def test_the_reference_of_the_command_line_is_what_it_says_itself(repository: Path) -> None:
    finished = runpy.run_path(str(repository / "docs" / "make_cli_reference.py"))
    assert finished["PAGE"].read_text(encoding="utf-8") == finished["reference"](), (
        "run python docs/make_cli_reference.py"
    )


def test_colours_may_be_spelt_both_ways(tmp_path: Path) -> None:
    for option in ("--colours", "--colors"):
        result = splatspace(
            "encode", "demo", "--out", tmp_path / "a.zarr", "--limit", 30, "--dry-run", option, "signed"
        )
        assert json.loads(result.stdout)["job"]["colours"] == "signed"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "demo.zarr"
    result = splatspace("encode", "demo", "--out", out, "--limit", 30, "--dry-run")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["job"]["gaussians"] == 150
    assert content["plan"]["new"] == 30
    assert content["plan"]["header"]["codec"] == "additive/1"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_bad_image_is_a_warning_and_strict_makes_it_an_error(folder: Path, tmp_path: Path) -> None:
    result = splatspace("encode", folder, "--out", tmp_path / "a.zarr", *FAST)
    assert result.exit_code == 0, result.output
    assert "Warning: 1 of 10 images failed: 4.png" in said(result)
    with open_store(tmp_path / "a.zarr") as store:
        assert store.read(["state"])["state"].tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]
    strict = splatspace("encode", folder, "--out", tmp_path / "a.zarr", *FAST, "--strict")
    assert strict.exit_code == 1
    assert "4.png" in said(strict)


@pytest.mark.slow
def test_nothing_but_bad_images_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sources.base import SourceImage
    from pipeline.sources.demo import DemoSource

    def unreadable(source: DemoSource, indices: Sequence[int]) -> list[SourceImage]:
        names = source.identifiers()
        return [SourceImage(names[index], None, failure="no disk") for index in indices]

    monkeypatch.setattr(DemoSource, "read", unreadable)
    result = splatspace("encode", "demo", "--out", tmp_path / "a.zarr", "--limit", 12, *FAST)
    assert result.exit_code == 1
    assert "12 of 12 images failed" in said(result)
    assert "and 2 more" in said(result)


@pytest.mark.slow
def test_a_thousand_files_with_a_bad_one(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 4, 4, 1), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(folder / f"{number:04d}.png")
    (folder / "0123.png").write_bytes(b"")
    result = splatspace("encode", folder, "--out", tmp_path / "a.zarr", "--json", *FAST, "--gaussians", 4, "--steps", 2)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["rows_done"] == 999
    assert [image["source_id"] for image in content["failed"]] == ["0123.png"]
    assert "Warning: 1 of 1,000 images failed: 0123.png" in said(result)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["encode", "demo", "--out", "a.png"], 2, "Allowed: a path that ends in .zarr"),
        (["encode", "demo", "--out", "a.zarr", "--gaussians", "-1"], 2, "--gaussians"),
        (["encode", "demo", "--out", "a.zarr", "--gaussians", "1000000"], 2, "to 100000"),
        (["encode", "demo", "--out", "a.zarr", "--target-psnr", "-1"], 2, "--target-psnr -1"),
        (["encode", "demo", "--out", "a.zarr", "--start", "middle"], 2, "middle"),
        (["encode", "demo"], 2, "--out"),
        (["encode", "no-such-set", "--out", "a.zarr"], 1, "no-such-set"),
        (["info", "none.zarr"], 1, "does not exist"),
        (["render", "none.zarr", "--image", "0", "--out", "a.jpg"], 2, ".png"),
        (["convert", "none.zarr", "a.h5", "--data-dir", "."], 2, "--images"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_are_one_line_with_the_promised_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = splatspace(*arguments)
    assert result.exit_code == code, result.output
    assert words in said(result)
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.slow
def test_other_settings_are_refused_with_a_way_out(stores: Path) -> None:
    result = splatspace("encode", "demo", "--out", stores / "a.zarr", "--limit", 20, *FAST, "--gaussians", 13)
    assert result.exit_code == 1
    assert "gaussians: 12 stored, 13 wanted" in said(result)
    assert "--overwrite" in said(result)
    assert "--versions" in said(result)


@pytest.mark.slow
def test_other_settings_make_a_version_beside_the_store(tmp_path: Path) -> None:
    for gaussians, name in ((12, "a"), (13, "a.v2"), (12, "a")):
        result = splatspace(
            "encode", "demo", "--out", tmp_path / "a.zarr", "--limit", 8, *FAST, "--gaussians", gaussians, "--versions"
        )
        assert result.exit_code == 0, result.output
        assert f"{name}.zarr\n" in result.stdout
    assert sorted(path.name for path in tmp_path.glob("*.zarr")) == ["a.v2.zarr", "a.zarr"]
    both = splatspace("encode", "demo", "--out", tmp_path / "a.zarr", "--versions", "--overwrite")
    assert both.exit_code == 2
    assert "--versions together with --overwrite" in said(both)


@pytest.mark.slow
def test_unexpected_errors_show_a_traceback_only_when_asked(stores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_path: Path) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("pipeline.info.store_info", broken)
    quiet = splatspace("info", stores / "a.zarr")
    assert quiet.exit_code == 1
    assert "unexpected RuntimeError: a fault of ours" in said(quiet)
    assert "Traceback" not in quiet.output
    assert "Traceback" in splatspace("--verbose", "info", stores / "a.zarr").stderr


@pytest.mark.slow
def test_ctrl_c_stops_with_130_and_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    from pipeline.encode.session import EncodeSession

    read = EncodeSession.read

    def read_and_press(self: EncodeSession, block: int) -> Any:
        if block == 2:
            signal.raise_signal(signal.SIGINT)
        return read(self, block)

    monkeypatch.setattr(EncodeSession, "read", read_and_press)
    out = tmp_path / "a.zarr"
    arguments = ("encode", "demo", "--out", out, "--limit", 20, "--block-rows", 4, *FAST)
    before = signal.getsignal(signal.SIGINT)
    result = splatspace(*arguments)
    assert result.exit_code == 130, result.output
    assert "run the same command again to continue" in said(result)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    with open_store(out) as store:
        done = int((store.read(["state"])["state"] == 1).sum())
    assert 0 < done < 20
    final = splatspace(*arguments, "--json")
    assert json.loads(final.stdout)["kept"] == done


@pytest.mark.slow
def test_info(stores: Path) -> None:
    result = splatspace("info", stores / "a.zarr")
    assert result.exit_code == 0
    assert "20: 20 done, 0 failed" in result.stdout
    content = json.loads(splatspace("info", stores / "b.h5", "--json").stdout)
    assert (content["done"], content["header"]["gaussians"]) == (20, 12)


@pytest.mark.slow
def test_report(stores: Path, tmp_path: Path) -> None:
    result = splatspace("report", stores / "a.zarr", "--out", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "r" / "report.html").is_file()
    content = json.loads(splatspace("report", stores / "a.zarr", "--out", tmp_path / "r", "--json").stdout)
    assert content["images"]["done"] == 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "named"),
    [
        (("demo",), "demo --out"),
        (("cats", "--data-dir", "../{here}/my files"), "cats --data-dir '../{here}/my files' --out"),
        (("cats", "--data-dir", "{root}/cats"), "cats --data-dir cats --out"),
        (("./cats",), "./cats --out"),
        (("{root}/cats",), "./cats --out"),
    ],
)
def test_the_command_of_a_report_encodes_the_same_again(
    images: tuple[str, ...], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (Path("cats"), Path("my files")):
        place.mkdir()
        for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)):
            Image.fromarray(pixels).save(place / f"{number}.jpg")
    options = ("--size", 12, "--limit", 3, *FAST, "--seed", 7, "--colours", "signed", "--dtype", "float32")
    typed = [word.format(here=tmp_path.name, root=tmp_path) for word in images]
    splatspace("encode", *typed, "--out", "a.zarr", *options)
    with open_store("a.zarr") as store:
        command = store_facts(store.header, store.path, len(store)).command or ""
    assert command.startswith("splatspace encode " + named.format(here=tmp_path.name))
    assert str(tmp_path) not in command
    _, *words = shlex.split(command)
    result = splatspace(*words, "--dry-run", "--overwrite")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)["plan"]
    with open_store("a.zarr") as store:
        identity = json.loads(store.header.model_dump_json(include=set(store.header.identity())))
    assert {name: plan["header"][name] for name in identity} == identity
    assert plan["images"] == 3


@pytest.mark.slow
def test_results_are_never_written_into_a_store(stores: Path, tmp_path: Path) -> None:
    for store in (stores / "a.zarr", stores / "b.h5"):
        before = sorted(stores.rglob("*"))
        for arguments in (
            ("train", "splats", "--store", store, "--out", store, "--device", "cpu"),
            ("train", "splats", "--store", store, "--out", store / "run", "--device", "cpu"),
            ("report", store, "--out", store / "report"),
            ("evaluate", "none", "--store", store, "--out", store / "evaluation"),
            ("ablate", "--store", store, "--out", store),
            ("render", store, "--image", 0, "--out", store / "a.png"),
            ("edit", store, "--image", 0, "--recolour", 255, "--out", store / "a.png"),
            ("export", store, "--image", 0, "--out", store / "a.svg"),
            ("convert", store, store / "inside.h5"),
            ("convert", stores / "a.zarr", stores / "b.h5" / "folder"),
            ("encode", "demo", "--limit", 2, "--out", store / "inside.zarr", *FAST),
        ):
            result = splatspace(*arguments)
            assert result.exit_code == 2, (arguments, result.output)
            assert "Traceback" not in result.output
        assert sorted(stores.rglob("*")) == before


@pytest.mark.slow
def test_verify_names_rows(stores: Path, tmp_path: Path) -> None:
    result = splatspace("verify", stores / "b.h5", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["sound"] is True
    out = tmp_path / "a.zarr"
    splatspace("encode", "demo", "--out", out, "--limit", 6, *FAST)
    with open_store(out, "a") as store:
        rows = store.read_block(0)
        rows.psnr[3] += 1
        store.write_block(0, rows)
    bad = splatspace("verify", out)
    assert bad.exit_code == 1
    assert "row 3" in bad.stdout
    assert "rows 3 of" in said(bad)


@pytest.mark.slow
def test_render(stores: Path, tmp_path: Path) -> None:
    for extra in ([], ["--ellipses"]):
        target = tmp_path / f"picture{len(extra)}.png"
        result = splatspace("render", stores / "a.zarr", "--image", 3, "--size", 200, "--out", target, *extra)
        assert result.exit_code == 0, result.output
        assert Image.open(target).size == (200, 200)


@pytest.mark.slow
def test_compare(stores: Path) -> None:
    result = splatspace("compare", stores / "a.zarr", stores / "b.h5")
    assert result.exit_code == 0, result.output
    assert "20 images in both stores" in result.stdout
    content = json.loads(splatspace("compare", stores / "a.zarr", stores / "b.h5", "--json").stdout)
    assert content["matched"] == 20


@pytest.mark.slow
def test_convert(stores: Path, tmp_path: Path) -> None:
    result = splatspace("convert", stores / "a.zarr", tmp_path / "a.h5", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["done"] == 20
    with open_store(stores / "a.zarr") as first, open_store(tmp_path / "a.h5") as second:
        for name in first.arrays:
            np.testing.assert_array_equal(first.read([name])[name], second.read([name])[name])
    refused = splatspace("convert", stores / "a.zarr", tmp_path / "a.h5")
    assert refused.exit_code == 1


@pytest.mark.slow
def test_presets() -> None:
    assert "sprites64" in splatspace("presets").stdout
    assert json.loads(splatspace("presets", "--json").stdout)["mnist"]["gaussians"] == 70


def test_workers_may_come_from_the_environment(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    content = json.loads(splatspace("encode", "demo", "--out", out, "--dry-run", SPLATSPACE_WORKERS="3").stdout)
    assert content["job"]["workers"] == 3


@pytest.mark.slow
def test_help_and_version() -> None:
    assert splatspace("--version").stdout.startswith("splatspace ")
    for command, examples in COMMANDS:
        result = splatspace(command.__name__, "--help")
        assert result.exit_code == 0
        for example in examples:
            assert example in result.stdout
