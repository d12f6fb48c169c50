"""The benchmark of eight bits: both graphs are measured, and the table has a line for each run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.edge import compared, table
from benchmarks.edge_ways import lines, ways
from data_schemas.errors import JobError
from models.base import DataSpec
from models.objectives import build_objective
from models.pixel_representation import PixelRepresentation
from models.registry import build_model
from pipeline.generation.run import Run
from tests.models.networks import awakened

SIDE = 8


class Means:
    """Mean colours of quarters."""

    name, dimension, sha, facts = "means", 12, "0", {}

    def forward(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images.float() / 255, SIDE // 2).flatten(1)

    def logits(self, images: Tensor) -> Tensor | None:
        return None


@pytest.fixture
def run() -> Run:
    torch.manual_seed(0)
    spec = DataSpec("pixels", groups=1, height=SIDE, width=SIDE)
    model = awakened(build_model("cats-outer-published", "tiny", spec))
    representation = PixelRepresentation(height=SIDE, width=SIDE, channels=3)
    objective = build_objective("flow-clean")
    return Run(Path("run"), model, objective, representation, spec, None, (), {"model": "cats-outer-published"})


@pytest.mark.soak
def test_every_way_to_eight_bits_has_a_line(run: Run) -> None:
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines(run, timed=3)]
    assert [cells[1] for cells in found] == [way.name for way in ways()]
    full, seven = found[0], found[1]
    assert float(full[2]) > float(seven[2])
    assert float(full[4]) > 80 > float(seven[4]) > 15


@pytest.mark.soak
def test_both_precisions_are_measured(run: Run) -> None:
    real = torch.randint(0, 256, (32, 3, SIDE, SIDE), dtype=torch.uint8)
    found = compared(run, real, Means(), evaluations=2, timed=3)
    assert found.int8.bytes < 0.75 * found.full.bytes
    assert found.full.psnr > 80 > found.int8.psnr > 15
    assert found.full.kid != found.int8.kid
    assert found.full.kid == pytest.approx(found.int8.kid, abs=0.5 * abs(found.full.kid))
    assert min(found.full.milliseconds, found.int8.milliseconds) > 0
    assert table([found, found]).count("`cats-outer-published`") == 2
    other = dataclasses.replace(run, objective=build_objective("flow-velocity"))
    with pytest.raises(JobError, match="predicts velocity"):
        compared(other, real, Means())
