"""Splats that are not finite are refused by row and name, whoever reads them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_schemas.errors import StoreCorruptError
from data_schemas.records import RowBlock
from data_schemas.stores.open import open_store
from encoders.decode import decode
from pipeline.cli import app
from pipeline.finite_splats import require_finite
from pipeline.report.panels import make_panels
from pipeline.report.statistics import read_rows
from pipeline.store_images import renderings
from pipeline.train.rows import TrainingRows
from pipeline.verify import verify
from tests.pipeline.changed_rows import change_rows
from tests.pipeline.tiny_runs import small_store
from tests.pipeline.training_runs import job_of

BAD = 5


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images, of which the sixth holds one NaN."""

    def spoil(first: int, rows: RowBlock) -> None:
        if first <= BAD < first + len(rows):
            rows.splats[BAD - first, 2, 1] = np.nan

    return change_rows(small_store(tmp_path_factory.mktemp("finite") / "small.zarr"), spoil)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "out"),
    [
        ("render STORE --image 5 --out OUT", "a.png"),
        ("render STORE --image 5 --ellipses --out OUT", "a.png"),
        ("edit STORE --image 5 --move 1,0 --out OUT", "a.png"),
        ("edit STORE --image 5 --move 1,0 --out OUT", "a.zarr"),
        ("export STORE --image 5 --out OUT", "a.svg"),
        ("export STORE --image 5 --out OUT", "a.ply"),
        ("convert STORE OUT", "a.h5"),
        ("convert STORE OUT", "a"),
    ],
)
def test_commands_name_the_row_and_write_nothing(store: Path, tmp_path: Path, command: str, out: str) -> None:
    words = [{"STORE": str(store), "OUT": str(tmp_path / out)}.get(word, word) for word in command.split()]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1, result.output
    assert "row 5 (image-0005) are not finite" in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.slow
def test_other_rows_are_drawn(store: Path, tmp_path: Path) -> None:
    assert (
        CliRunner().invoke(app, ["render", str(store), "--image", "4", "--out", str(tmp_path / "a.png")]).exit_code == 0
    )
    with open_store(store) as opened:
        assert len(renderings(opened, np.array([0, 4, 6]))) == 3


@pytest.mark.slow
def test_training_evaluation_and_panels_name_the_image(store: Path, tmp_path: Path) -> None:
    named = re.escape("row 5 (image-0005)")
    with open_store(store) as opened:
        with pytest.raises(StoreCorruptError, match=named) as caught:
            TrainingRows(opened, job_of(store, tmp_path / "run")).fitted_representation()
        assert caught.value.rows == (BAD,)
        with pytest.raises(StoreCorruptError, match=named):
            renderings(opened, np.arange(8))
        panels, reason = make_panels(opened, read_rows(opened), (), each=3, decoder=decode)
        assert panels == []
        assert "row 5 (image-0005)" in reason


def test_verify_lists_the_row(store: Path) -> None:
    assert [(fault.row, fault.source_id) for fault in verify(store).faults] == [(BAD, "image-0005")]


def test_many_rows_are_counted_and_the_first_named(store: Path) -> None:
    with open_store(store) as opened:
        splats = np.full((7, 6, 8), np.inf, np.float32)
        splats[3] = 0
        with pytest.raises(StoreCorruptError, match=r"row 1 \(image-0001\), row 2 .* and 1 more are") as caught:
            require_finite(splats, np.arange(1, 8), opened)
        assert caught.value.rows == (1, 2, 3, 5, 6, 7)
        require_finite(splats[3:4], [4], opened)
