"""The programs of ``examples/`` as a reader would run them, with tiny settings."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import splatspace

MOST_LINES = 80

Program = Callable[..., str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images of the demo set."""
    path = tmp_path_factory.mktemp("examples") / "demo.zarr"
    splatspace.encode(splatspace.resolve_job("demo", path, limit=6, gaussians=9, steps=4, workers=1))
    return path


@pytest.fixture
def program(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Runs a program in an empty folder and returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(repository / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_there_are_four_short_programs_and_a_notebook(repository: Path) -> None:
    folder = repository / "examples"
    lengths = {path.name: len(path.read_text().splitlines()) for path in folder.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
    assert len(lengths) == 4
    assert [path.name for path in folder.glob("*.ipynb")] == ["show_store.ipynb"]
    page = (repository / "docs/python-api.md").read_text()
    for path in folder.iterdir():
        assert path.suffix not in (".py", ".ipynb") or f"examples/{path.name}" in page


def test_a_store_is_read_with_numpy_and_zarr_alone(repository: Path, store: Path, program: Program) -> None:
    source = (repository / "examples/read_with_numpy.py").read_text()
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported == {"__future__", "argparse", "typing", "numpy", "zarr"}
    printed = program("read_with_numpy.py", "--store", store)
    figures = re.findall(r"^ +(\d+) +([\d.]+) dB +([\d.]+) dB", printed, re.MULTILINE)
    assert [int(row) for row, _, _ in figures] == list(range(6))
    with splatspace.open_store(store) as opened:
        stored = opened.read(["psnr"])["psnr"]
    for row, told, own in figures:
        assert float(told) == pytest.approx(stored[int(row)], abs=1e-3)
        assert float(own) == pytest.approx(stored[int(row)], abs=0.02)


def test_every_codec_is_read_as_splatspace_decodes_it(repository: Path) -> None:
    from data_schemas.splats import LAYOUTS
    from tests.pipeline.dataset.stores import valid_splats

    decode = runpy.run_path(str(repository / "examples/read_with_numpy.py"))["decode"]
    for codec, name in (("additive/1", "grey"), ("normalised/1", "rgb"), ("over/1", "rgb_alpha")):
        layout = LAYOUTS[name]
        splats = valid_splats(1, 4, layout).astype(np.float32)
        wanted = splatspace.to_uint8(splatspace.decode(splats, layout=layout, codec=codec, height=7, width=9))[0]
        found = decode(splats[0], list(layout.names), codec, 7, 9)
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1, codec
    with pytest.raises(SystemExit, match="later/1"):
        decode(splats[0], list(layout.names), "later/1", 7, 9)


@pytest.mark.slow
def test_images_are_encoded_from_python(tmp_path: Path, program: Program) -> None:
    call = ("encode_from_python.py", "--store", "rings.zarr", "--limit", 3, "--gaussians", 40, "--steps", 30)
    assert "3 fitted now" in program(*call)
    assert "3 were there already" in program(*call)
    with Image.open(tmp_path / "rings.png") as picture:
        assert picture.size == (3 * 256, 2 * 256)
        above, below = np.split(np.asarray(picture).astype(float), 2)
        # The splats show the rings, if roughly after few steps.
        assert np.corrcoef(above.ravel(), below.ravel())[0, 1] > 0.5


@pytest.mark.slow
def test_a_set_transformer_is_trained(store: Path, program: Program) -> None:
    sizes = ("--steps", 3, "--batch", 4, "--width", 8, "--layers", 1, "--evaluations", 2, "--samples", 8)
    printed = program("train_set_transformer.py", "--store", store, *sizes)
    assert "step     3  loss" in printed
    with Image.open(store.with_suffix(".png")) as picture:
        assert picture.size == (8 * 128, 128)


@pytest.mark.slow
@pytest.mark.usefixtures("brief_previews")
def test_samples_are_rendered_at_eight_times_the_size(tmp_path: Path, store: Path, program: Program) -> None:
    sizes = ("--steps", 2, "--batch", 4, "--number", 2, "--evaluations", 2)
    printed = program("sample_and_render.py", "--store", store, "--run", "run", "--out", "samples", *sizes)
    assert "samples.zarr: 2 rows of 9 Gaussians" in printed
    for name, side in (("0001.png", 256), ("drawn.png", 512), ("ellipses.png", 512)):
        with Image.open(tmp_path / "samples" / name) as picture:
            assert picture.size == (side, side), name


def _cells(repository: Path) -> list[dict]:
    return json.loads((repository / "examples/show_store.ipynb").read_text())["cells"]


def test_the_notebook_is_one(repository: Path) -> None:
    """What the schema of nbformat 4.5 asks for; without outputs, which would tell of a machine."""
    content = json.loads((repository / "examples/show_store.ipynb").read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    assert set(content) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    identifiers = [cell["id"] for cell in content["cells"]]
    assert len(set(identifiers)) == len(identifiers)
    for cell in content["cells"]:
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell["id"])
        fields = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert set(cell) == fields | {"execution_count", "outputs"}
            assert (cell["execution_count"], cell["outputs"]) == (None, [])
        else:
            assert cell["cell_type"] == "markdown"
            assert set(cell) == fields


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_in_order(
    repository: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import matplotlib.pyplot as plt

    monkeypatch.setenv("SPLATSPACE_STORE", str(store))
    shown: list[int] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(len(plt.gcf().axes)))
    space: dict = {}
    for cell in _cells(repository):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), space)
    plt.close("all")
    assert shown == [1, 12, 1]
    printed = capsys.readouterr().out
    assert "6 of 6 rows are done" in printed
    assert "features  torch.float32 [6, 9, 8]" in printed


@pytest.mark.slow
def test_jupyter_executes_the_notebook(repository: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nbformat", "nbclient", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: the cells were run without Jupyter")
    import nbformat  # type: ignore[import-not-found]
    from nbclient import NotebookClient  # type: ignore[import-not-found]

    monkeypatch.setenv("SPLATSPACE_STORE", str(store))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    notebook = nbformat.read(repository / "examples/show_store.ipynb", as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(store.parent)}}).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3
