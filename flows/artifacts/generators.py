"""A training and an evaluation as Prefect artifacts: figures, losses, samples, scores with floors, places.

Views of the folders that are the record, made from those alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from data_schemas.printable import text_of_markdown
from flows.artifacts.report import artifact_key, escape, harmless, picture, places, small_sheet, table
from models.checkpoint import read_config
from pipeline.evaluate.figures import Evaluation, Scores
from pipeline.evaluate.reading import JSON_FILE
from pipeline.format import format_cell, format_loss, format_psnr, list_parts
from pipeline.train.cats_job import head_of
from pipeline.train.state import CARD_FILE, LOG_FILE, MODEL_FILE, SAMPLES_FOLDER
from pipeline.train.tracking.log import loss_png, read_lines

_HEADER = ("images", "n", "FID", "KID", "precision", "recall", "coverage", "W2", "IS")


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

    return [
        ("steps", f"{config['step']:,} of {job['steps']:,}"),
        ("loss, mean of the last entry", format_cell(config["loss"], ".4f")),
        ("norm of the gradient", format_cell(last.get("gradient_norm"), ".3f")),
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
        config = read_config(run / MODEL_FILE)
        words = training_described(config)
        create_markdown_artifact(training_markdown(run), key=training_key(config), description=words)


def training_described(config: dict[str, Any]) -> str:
    """A training in one line, for the page of its history.

    Args:
        config: of ``model.safetensors``.
    """
    step = f"step {config['step']:,} of {config['job']['steps']:,}"
    return list_parts(f"{config['model']} ({config['preset']})", step, format_loss(config["loss"]))


def score_rows(found: Evaluation) -> list[list[str]]:
    """One row for each pair of sets that was compared: generated images, and the floors."""
    named = [(f"{line.evaluations} evaluations", line) for line in found.generated]
    if found.fitted is not None:
        named.append((f"the same as {found.fitted.gaussians} splats", found.fitted.scores))
    named += [
        ("the same to renderings", found.against_renderings),
        ("floor: originals", found.real_floor),
        ("floor: renderings", found.reconstruction_floor),
    ]
    return [[name, *_cells(line)] for name, line in named]


def _cells(line: Scores) -> list[str]:
    return [
        f"{line.n:,}",
        f"{line.fid:.2f}",
        f"{line.kid:.3g} \u00b1 {line.kid_spread:.2g}",
        f"{line.precision:.2f}",
        f"{line.recall:.2f}",
        f"{line.coverage:.2f}",
        f"{line.sliced_wasserstein:.3f}",
        format_cell(line.inception_score, ".2f"),
    ]


def evaluation_markdown(found: Evaluation, *, run: Path, page: Path) -> str:
    """The evaluation as one page of markdown.

    Args:
        found: the figures.
        run: folder of the training.
        page: path of ``evaluation.html``.
    """
    generator, cost, near, reference = found.generator, found.cost, found.neighbours, found.reference
    facts = [
        ("features, hash", f"{found.features.name}, {found.features.sha}"),
        ("objective, sampler", f"{generator.objective}, {generator.sampler} with {cost.evaluations} evaluations"),
        ("parameters", f"{cost.parameters:,}"),
        ("GFLOP per evaluation", f"{cost.gflop_per_step:.3f}"),
        ("TFLOP per sample", f"{cost.tflop_per_sample:.5f}"),
        ("ms per image, rendering included", f"{1000 * cost.seconds_per_image:.1f}"),
        ("device, threads", f"{cost.device}, {cost.threads}"),
        ("nearest original, over that of other originals", format_cell(near.ratio, ".2f")),
        ("rows finished, of", f"{reference.finished:,} of {reference.rows:,}"),
        ("seed", str(generator.seed)),
    ]
    if found.fitted is not None:
        fitted = found.fitted
        quality = format_psnr(fitted.psnr)
        facts.append(("fit", f"K = {fitted.gaussians}, engine {fitted.engine}, {quality} to the generated pixels"))
        facts.append(("core-ms of the fit per image", f"{1000 * fitted.core_seconds_per_image:.1f}"))
    sections = [
        f"# Evaluation of {escape(generator.name)} on {escape(reference.source)}",
        "Lower is better for FID, KID and sliced Wasserstein (W2). Compare only in the same features, at equal n.",
        table(_HEADER, score_rows(found)),
        table(["figure", "value"], facts),
    ]
    samples = newest_samples(run)
    if samples is not None:
        sections += ["## Samples at the end of the training", *picture(small_sheet(samples.read_bytes()), "samples")]
    sections += places([("page", page), ("figures", page.with_name(JSON_FILE)), ("run", run)])
    return "\n\n".join(sections) + "\n"


def publish_evaluation(found: Evaluation, run: Path, page: Path) -> None:
    """Keeps an evaluation under the key ``evaluation-splats-<set>`` or the like. Never raises.

    Args:
        found: the figures.
        run: folder of the training.
        page: path of ``evaluation.html``.
    """
    with harmless("artifact of the evaluation"):
        key = training_key(read_config(run / MODEL_FILE), "evaluation")
        words = evaluation_described(found)
        create_markdown_artifact(evaluation_markdown(found, run=run, page=page), key=key, description=words)


def evaluation_described(found: Evaluation) -> str:
    """An evaluation in one line, for the page of its history."""
    scores = found.headline
    return (
        f"FID[{found.features.label}] {scores.fid:.2f}, precision {scores.precision:.2f}, recall {scores.recall:.2f}, "
        f"{scores.evaluations} evaluations, n = {scores.n:,}"
    )
