"""A training as a Prefect artifact: figures, the loss over the steps, samples, the card.

A view of the run's folder, which is the record; it is made from that folder alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from data_schemas.printable import text_of_markdown
from flows.artifacts import artifact_key, escape, harmless, picture, places, small_sheet, table
from models.checkpoint import read_config
from pipeline.generation.cats_job import head_of
from pipeline.generation.logs import read_lines
from pipeline.generation.loss_curve import loss_png
from pipeline.generation.train_state import CARD_FILE, LOG_FILE, MODEL_FILE, SAMPLES_FOLDER


def newest_samples(run: Path) -> Path | None:
    """The grid of samples of the latest step."""
    return max((run / SAMPLES_FOLDER).glob("*.png"), default=None, key=lambda path: path.name)


def training_key(config: dict[str, Any], prefix: str = "train") -> str:
    """``train-splats-<set>``, or ``train-<set>-kpn`` of a patch model: one history for each set and kind of generator.

    Args:
        config: of ``model.safetensors``.
        prefix: what is shown of it.
    """
    name = config["store"]["source"]["name"]
    patch_model = head_of(config["model"])
    if patch_model is None:
        return artifact_key(name, f"{prefix}-{config['job']['kind']}")
    return f"{artifact_key(name, prefix)}-{patch_model[0]}"


def training_rows(config: dict[str, Any], lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What people ask first; the card has the rest.

    Args:
        config: of ``model.safetensors``.
        lines: of the log.
    """
    job = config["job"]
    last = lines[-1] if lines else {}

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        ("steps", f"{config['step']:,} of {job['steps']:,}"),
        ("loss, mean of the last entry", shown(config["loss"], ".4f")),
        ("norm of the gradient", shown(last.get("gradient_norm"), ".3f")),
        ("device", str(config["device"])),
    ]


def training_markdown(run: Path) -> str:
    """The whole training as one page of markdown.

    Raises:
        CheckpointError: the run has no readable ``model.safetensors``.
    """
    config = read_config(run / MODEL_FILE)
    lines = read_lines(run / LOG_FILE)
    samples = newest_samples(run)
    sections = [
        f"# Training of {escape(config['model'])} ({escape(config['preset'])}) on "
        f"{escape(config['store']['source']['name'])}",
        table(["figure", "value"], training_rows(config, lines)),
        "## Loss",
        *(picture(loss_png(lines), "loss and learning rate over the steps") or ["No loss was written down."]),
    ]
    if samples is not None:
        sections += [
            f"## Samples after step {int(samples.stem):,}",
            *picture(small_sheet(samples.read_bytes()), "samples"),
        ]
    card = run / CARD_FILE
    if card.exists():
        sections += ["## Card", *card_sections(card.read_text(encoding="utf-8"))]
    sections += places([("run", run), ("model", run / MODEL_FILE), ("card", card), ("log", run / LOG_FILE)])
    return "\n\n".join(sections) + "\n"


def card_sections(text: str) -> list[str]:
    """A card as sections of this page: its own tables and headings, and everything else as text.

    What it quotes of a data set (name, licence, attribution) stays text, whatever it holds.
    """
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if lines[0].startswith("# "):
            continue  # the title: the page has one
        if lines[0].startswith("## "):
            found.append(f"### {escape(lines[0].removeprefix('## '))}")
        elif lines[0].startswith("```"):
            found.append(escape(" ".join(lines[1:-1])))
        elif all(line.startswith("| ") for line in lines if not line.startswith("|---")):
            rows = [line.removeprefix("| ").removesuffix(" |").partition(" | ") for line in lines[2:]]
            found.append(table(["fact", "value"], [[name, value] for name, _, value in rows]))
        else:
            found.append(escape(text_of_markdown(" ".join(lines))))
    return found


def publish_training(run: Path) -> None:
    """Keeps a training under the key ``train-<kind>-<set>``. Never raises.

    Args:
        run: its folder; without a checkpoint there is nothing to publish.
    """
    with harmless("artifact of the training"):
        key = training_key(read_config(run / MODEL_FILE))
        create_markdown_artifact(training_markdown(run), key=key, description="training")
