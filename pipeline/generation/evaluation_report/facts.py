"""What an evaluation says of the training and of the store."""

from __future__ import annotations

from typing import Any

from data_schemas.store import SplatStore
from pipeline.generation.evaluation_report.figures import ReferenceFacts


def training_facts(config: dict[str, Any]) -> dict[str, Any]:
    """What the report says of the training."""
    job, store = config["job"], config["store"]
    return {
        "model": config["model"],
        "preset": config["preset"],
        "training steps": config.get("step"),
        "batch": job["batch"],
        "images learnt from": store["images"],
        "order of Gaussians": store["order"],
        "running mean of weights": job["ema"],
        "training seed": job["seed"],
    }


def reference_facts(store: SplatStore, finished: int) -> ReferenceFacts:
    """What the samples are compared with."""
    header = store.header
    return ReferenceFacts(
        store=store.path.name,
        source=header.source.name,
        split=header.source.split,
        digest=header.source.digest,
        codec=header.codec,
        gaussians=header.gaussians,
        height=header.height,
        width=header.width,
        channels=header.channels,
        rows=len(store),
        finished=finished,
        unfinished=len(store) - finished,
    )
