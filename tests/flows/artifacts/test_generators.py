"""What the page of a history shows of trainings, evaluations and ablations without opening them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from flows.ablate import ablation_described
from flows.artifacts.generators import evaluation_described, training_described
from pipeline.evaluate.ablate.report import Ablation, AblationRow
from pipeline.evaluate.figures import Evaluation


def test_a_training_is_described_by_its_step_and_loss() -> None:
    config: dict[str, Any] = {"model": "render-dit", "preset": "tiny", "step": 1500, "job": {"steps": 20_000}}
    line = "render-dit (tiny), step 1,500 of 20,000"
    assert training_described({**config, "loss": None}) == line
    assert training_described({**config, "loss": 0.01234}) == f"{line}, loss 0.0123"


def test_an_evaluation_is_described_by_its_scores() -> None:
    scores = SimpleNamespace(fid=12.345, precision=0.5, recall=0.25, evaluations=50, n=1000)
    found = SimpleNamespace(features=SimpleNamespace(label="own"), headline=scores)
    line = evaluation_described(cast(Evaluation, found))
    assert line == "FID[own] 12.35, precision 0.50, recall 0.25, 50 evaluations, n = 1,000"


def test_an_ablation_is_described_by_its_lowest_fid() -> None:
    rows = (
        AblationRow(axis="pack", value="1", base=True, seeds=1, fid=20.0),
        AblationRow(axis="pack", value="2", base=False, seeds=1, fid=18.5),
        AblationRow(axis="ema", value="no", base=False, seeds=0, failure="no memory"),
    )
    assert ablation_described(Ablation.model_construct(rows=rows)) == "3 choices, lowest FID 18.50 (pack 2), 1 failed"
    assert ablation_described(Ablation.model_construct(rows=rows[2:])) == "1 choice, 1 failed"
