"""A run as it is pushed: its model, its evaluation, and the card of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_schemas.errors import CheckpointError, ReportError
from data_schemas.files import wrap_os_errors
from data_schemas.hub import HubPlace
from models.checkpoint import load_checkpoint
from pipeline.evaluate.figures import Evaluation, Scores
from pipeline.evaluate.reading import JSON_FILE, PAGE_FILE, read_evaluation
from pipeline.hub.cards import CARD_FILE, TAGS, UNSTATED, card, figures_table, is_stated, licence_fields
from pipeline.hub.parcel import Parcel
from pipeline.train import state
from pipeline.train.card import UNMEASURED, USE_HEADING
from pipeline.train.run_record import without_places

EVALUATION_FOLDER = "evaluation"
SAMPLES_FILE = "samples.png"


def pack_run(run: Path, place: HubPlace) -> Parcel:
    """Collects what is pushed of a run: not the state that a training goes on from.

    Args:
        run: its folder; nobody else writes it.
        place: the repository, as the card names it.

    Raises:
        CheckpointError: no model, a damaged one, one that says where its files were, or no card.
    """
    model = run / state.MODEL_FILE
    config = load_checkpoint(model).config
    _require_publishable(config, model)
    files: dict[str, Path | bytes] = {state.MODEL_FILE: model}
    samples = sorted((run / state.SAMPLES_FOLDER).glob("*.png"))
    if samples:
        files[SAMPLES_FILE] = samples[-1]
    evaluation, notes = _evaluation_of(run, config)
    if evaluation is not None:
        places = [run / EVALUATION_FOLDER / name for name in (JSON_FILE, PAGE_FILE)]
        files |= {file.name: file for file in places if file.is_file()}
    source = config["store"]["source"]
    files[CARD_FILE] = _run_card(run, config, evaluation, place, samples=bool(samples))
    return Parcel(
        title=f"run {run.name}",
        kind="model",
        files=files,
        replaced=(state.MODEL_FILE, SAMPLES_FILE, JSON_FILE, PAGE_FILE),
        licence=str(source.get("licence") or ""),
        source=str(source["name"]),
        notes=tuple(notes),
    )


def _require_publishable(config: dict[str, Any], model: Path) -> None:
    try:
        known = [config["model"], config["data"]["classes"], config["store"]["source"]["name"], config["step"]]
        sound = None not in known[:1] and isinstance(config["store"]["source"], dict)
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise CheckpointError(
            f"{model} is not the model of a training",
            allowed="the model.safetensors of splatspace train",
            next_step="give the folder of a run",
        )
    if config != without_places(config):
        raise CheckpointError(
            f"{model} names folders of the machine that it was trained on, as older runs do",
            allowed="a model that names no folders",
            next_step="train on with a step more: splatspace train --resume writes it again without them",
        )


def _evaluation_of(run: Path, config: dict[str, Any]) -> tuple[Evaluation | None, list[str]]:
    """The evaluation in the run's folder where it is one of this model, and what is said where it is none."""
    folder = run / EVALUATION_FOLDER
    if not (folder / JSON_FILE).is_file():
        return None, [f"No evaluation is at {folder}: the card states no metric (splatspace evaluate measures them)"]
    try:
        found = read_evaluation(folder)
    except ReportError as error:
        return None, [f"The evaluation stays here: {error.got}"]
    measured = found.generator.facts.get("training steps")
    if measured != config["step"]:
        return None, [f"The evaluation at {folder} is of step {measured}, the model of step {config['step']}: it stays"]
    return found, []


def _run_card(
    run: Path, config: dict[str, Any], evaluation: Evaluation | None, place: HubPlace, *, samples: bool
) -> bytes:
    path = run / state.CARD_FILE
    with wrap_os_errors("read", path):
        written = path.read_text(encoding="utf-8") if path.is_file() else ""
    text, heading, _ = written.partition(f"\n{USE_HEADING}\n")
    if not heading:
        raise CheckpointError(
            f"{path} is missing, or is no card of a run",
            allowed="the card that splatspace train writes with each checkpoint",
            next_step="train on with a step more: splatspace train --resume writes it again",
        )
    licence = str(config["store"]["source"].get("licence") or "")
    title = text.strip().partition("\n")[0]
    fields: dict[str, Any] = {
        **licence_fields(licence),
        "library_name": "splatspace",
        "tags": [*TAGS, "safetensors", "image-generation"],
    }
    if not config["data"]["classes"]:
        fields["pipeline_tag"] = "unconditional-image-generation"
    if evaluation is not None:
        text = text.replace(UNMEASURED, "Its figures stand below.")
    lines = [title, ""]
    if samples:
        lines += [f"![Samples of the training]({SAMPLES_FILE})", ""]
    lines += [text.strip().removeprefix(title).strip(), ""]
    if not is_stated(licence):
        lines += [UNSTATED, ""]
    if evaluation is not None:
        lines += ["## Figures", "", *_figures(evaluation), ""]
    lines += [
        USE_HEADING, "",
        "```", 'pip install "splatspace[hub]"', f"splatspace sample {place.url} -n 64 --out samples", "```", "",
        "```python", "import splatspace", "",
        f'run = splatspace.load_run("{place.url}")',
        'result = splatspace.sample(run, splatspace.SampleJob("samples", number=64))', "```",
    ]  # fmt: skip
    return card(fields, lines)


def _figures(found: Evaluation) -> list[str]:
    cost = found.cost
    return [
        "As `splatspace evaluate` measured them; the floor is what other original images reach. Numbers compare only "
        "with those of the same features and the same n.",
        "",
        *figures_table(
            [
                ("features", found.features.label),
                ("images of each set (n)", f"{found.headline.n:,}"),
                ("FID", _beside(found, lambda scores: f"{scores.fid:.4g}")),
                ("KID", _beside(found, lambda scores: f"{scores.kid:.4g}")),
                ("precision", _beside(found, lambda scores: f"{scores.precision:.3f}")),
                ("recall", _beside(found, lambda scores: f"{scores.recall:.3f}")),
                ("sampler", f"{found.generator.sampler}, {cost.evaluations} evaluations"),
                ("GFLOP per evaluation", f"{cost.gflop_per_step:.3f}"),
            ]
        ),
    ]


def _beside(found: Evaluation, shown: Callable[[Scores], str]) -> str:
    return f"{shown(found.headline)} (floor {shown(found.real_floor)})"
