"""The figures of an evaluation as typed records, with its training and store: what ``evaluation.json`` holds.

docs/evaluate.md explains them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from data_schemas.stores.contract import SplatStore

EVALUATION_VERSION = 2
"""Version of ``evaluation.json``; a reader refuses a greater one."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class FeatureFigures(_Record):
    """In what the metrics were measured. Numbers compare only under the same name and hash."""

    name: str
    sha: str
    dimension: int
    facts: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name and first eight digits of the hash."""
        return f"{self.name}-{self.sha[:8]}"


class Scores(_Record):
    """One set of images against another of the same size."""

    images: str = Field(description="what was measured")
    reference: str = Field(description="what it was compared with")
    n: int = Field(description="images in each of the two sets")
    evaluations: int | None = Field(default=None, description="of the network, for generated images")
    fid: float
    kid: float = Field(description="mean over random subsets")
    kid_spread: float = Field(description="standard deviation over the subsets")
    precision: float
    recall: float
    density: float
    coverage: float
    sliced_wasserstein: float
    inception_score: float | None = None
    inception_score_spread: float | None = None


class FittedFigures(_Record):
    """Generated pixels as splats: what they show, against originals, and what the fit costs."""

    scores: Scores = Field(description="of the decoded splats, at the number of evaluations that was asked for")
    codec: str
    gaussians: int
    steps: int = Field(description="of the optimiser, at most")
    engine: str
    psnr: float | None = Field(description="of the mean error against the generated pixels, dB; None: all lossless")
    seconds_per_image: float = Field(description="wall time inside the engine")
    core_seconds_per_image: float = Field(description="CPU time of the engine")


class SamplingCost(_Record):
    """What an image costs."""

    parameters: int
    gflop_per_step: float = Field(description="one evaluation of the network for one image")
    evaluations: int
    tflop_per_sample: float
    step_batch: int
    step_ms_p50: float
    step_ms_p95: float
    steps_timed: int
    seconds_per_image: float = Field(description="wall time of sampling and rendering, over all measured images")
    rendering_seconds_per_image: float = Field(description="share of rendering in it")
    device: str
    threads: int


class Neighbour(_Record):
    """A generated image and the nearest original."""

    sample: int
    row: int = Field(description="of the store")
    distance: float = Field(description="of the features")


class NeighbourFigures(_Record):
    """How near generated images come to originals, against how near other originals come."""

    references: int = Field(description="originals that were searched")
    generated_median: float
    real_median: float = Field(description="the same of originals that are not among those searched")
    ratio: float | None = Field(description="generated over real; far below 1, samples are copies")
    shown: tuple[Neighbour, ...] = ()


class SeamFigures(_Record):
    """Mean step across borders of patches over the mean step inside, of patch models; about 1 where none is seen."""

    patch: int = Field(description="pixels of a side")
    generated: float | None
    originals: float | None = Field(description="of real images on the same grid")
    enlarged: float | None = Field(description="of generated images drawn four times as large, where the head can")


class GeneratorFacts(_Record):
    """What was evaluated."""

    name: str
    kind: str = Field(description="what it makes: splats or pixels")
    objective: str
    sampler: str
    guidance: float
    conditional: bool
    seed: int
    facts: dict[str, Any] = Field(default_factory=dict)


class ReferenceFacts(_Record):
    """What it was compared with."""

    store: str
    source: str
    split: str
    digest: str
    codec: str
    gaussians: int
    height: int
    width: int
    channels: int
    rows: int
    finished: int
    unfinished: int = Field(description="rows without splats: in no set")


class Evaluation(_Record):
    """All figures of one evaluation."""

    evaluation_version: int = EVALUATION_VERSION
    created: datetime
    generator: GeneratorFacts
    reference: ReferenceFacts
    features: FeatureFigures
    generated: tuple[Scores, ...] = Field(description="against originals, by number of evaluations; greatest last")
    fitted: FittedFigures | None = Field(default=None, description="generated pixels as splats, where asked for")
    against_renderings: Scores = Field(description="the last of them against renderings of the store")
    real_floor: Scores = Field(description="originals against other originals")
    reconstruction_floor: Scores = Field(description="renderings of the store against their originals")
    score_reason: str = Field(default="", description="why there is no inception score")
    neighbours: NeighbourFigures
    seams: SeamFigures | None = Field(default=None, description="of patch models only")
    cost: SamplingCost

    @property
    def headline(self) -> Scores:
        """Generated images at the number of evaluations that was asked for, against originals."""
        wanted = self.cost.evaluations
        return next(scores for scores in self.generated if scores.evaluations == wanted)


def training_facts(config: dict[str, Any]) -> dict[str, Any]:
    """What the report says of the training."""
    job, store = config["job"], config["store"]
    return {
        "model": config["model"],
        "preset": config["preset"],
        "training steps": config.get("step"),
        "batch": job["batch"],
        "images learned from": store["images"],
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
