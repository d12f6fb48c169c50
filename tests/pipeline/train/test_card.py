"""The card of a model: what it quotes of a data set stays text."""

from __future__ import annotations

from pathlib import Path

from data_schemas.records import SourceRecord
from flows.artifacts.generators import card_sections
from pipeline.train.card import card_text
from pipeline.train.run_record import RunRecord, TrainedStore
from tests.data_schemas.stores.store_examples import example_header
from tests.pipeline.training_runs import job_of

RECORD = RunRecord(
    model="set",
    preset="tiny",
    changes={},
    data={"classes": 0},
    representation={},
    objective={"name": "flow", "target": "clean", "sampler": "euler", "evaluations": 4},
    codec="additive/1",
    layout="rotated",
    colours="linear",
    labels=[],
    label_names=[],
    store=TrainedStore("a.zarr", "x", {}, {}, 2, 0, [], 0, 0, [], "as stored"),
    job={},
    parameters=10,
    gflop=0.1,
    plans=[],
    loss=0.5,
    precision="float32",
    device="cpu",
    versions={},
    step=3,
)


def test_names_and_licences_stay_text(tmp_path: Path) -> None:
    source = SourceRecord(
        name="photos\x1b[2J [x](javascript:y)",
        licence="CC_BY_4\n\n# Heading <img src=x>",
        attribution="me\u202e *and* you\r\n| a | b |",
    )
    text = card_text(job_of(tmp_path / "a.zarr", tmp_path / "a run"), example_header(source=source), RECORD)
    assert text.splitlines()[0].endswith(r"on photos\\x1b\[2J \[x\](javascript:y)")
    assert r"Licence: CC\_BY\_4 \# Heading &lt;img src=x&gt;. me\\u202e \*and\* you \| a \| b \|" in text
    assert "splatspace sample 'a run' -n 64" in text
    assert [line for line in text.splitlines() if line.startswith("#")][1:] == ["## Data", "## Limits", "## Use"]
    assert not {"\x1b", "\u202e", "\r"} & set(text)
    # The page of a training quotes the card, and escapes what was meant, once.
    assert any(r"CC\_BY\_4 \# Heading &lt;img src=x&gt;" in section for section in card_sections(text))


def test_the_record_is_saved_under_the_names_and_in_the_order_of_the_file() -> None:
    names = "model preset changes data representation objective codec layout colours labels label_names store job"
    names += " parameters gflop plans loss precision device versions step"
    assert list(RECORD.config()) == names.split()
    stored = "path digest identity source images unfinished unfinished_named held_out repeats repeats_named order"
    assert list(RECORD.config()["store"]) == stored.split()
