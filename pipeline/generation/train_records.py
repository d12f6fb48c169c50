"""What a training says while it runs and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.generation.train_state import CARD_FILE


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is.

    Attributes:
        step: steps taken.
        steps: of the whole training.
        loss: mean of the last entry.
        images_per_second: since this process began; None before the first step.
        seconds_left: at that rate.
    """

    step: int
    steps: int
    loss: float | None
    images_per_second: float | None
    seconds_left: float | None

    @property
    def words(self) -> str:
        """The same for people."""
        parts = [f"step {self.step:,} of {self.steps:,}"]
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.seconds_left is not None:
            parts.append(f"{timedelta(seconds=round(self.seconds_left))} left")
        return ", ".join(parts)


class TrainSummary(BaseModel):
    """What a training left.

    Attributes:
        run: its folder.
        checkpoint: the file to sample from.
        model: name of the network.
        preset: its size.
        parameters: trainable numbers.
        gflop: billions of operations of one evaluation.
        images: learnt from.
        unfinished: rows that were not done, and not used.
        unfinished_named: the first of them.
        held_out: images kept apart for evaluation.
        repeats: rows whose pixels an earlier row has, left out.
        repeats_named: the first of them.
        steps: of the whole training.
        steps_taken: by this process.
        loss: mean of the last entry; None where no step was taken.
        seconds: of this process.
        images_per_second: the same; None where no step was taken.
        device: computed on.
        precision: of the network.
        resident: whether all latents were in memory.
        rank: number of this process among those that trained together; the first one, 0, wrote the files.
    """

    model_config = ConfigDict(frozen=True)

    run: Path
    checkpoint: Path
    model: str
    preset: str
    parameters: int
    gflop: float
    images: int
    unfinished: int
    unfinished_named: tuple[str, ...]
    held_out: int = 0
    repeats: int = 0
    repeats_named: tuple[str, ...] = ()
    steps: int
    steps_taken: int
    loss: float | None
    seconds: float
    images_per_second: float | None
    device: str
    precision: str
    resident: bool
    rank: int = 0

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.run / CARD_FILE
