"""What a training writes down as it goes: ``log.jsonl``, TensorBoard's files, and its loss as a plot."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from data_schemas.files import wrap_os_errors, write_file
from pipeline.train.state import LOG_FILE, TENSORBOARD_FOLDER
from pipeline.train.tracking.trackers import TrackerName, Trackers

logger = logging.getLogger("splatspace.train")

MOST_NAMED = 5
"""Lines that a warning names."""

_SIZE, _DOTS_PER_INCH = (7.0, 3.0), 100


class TrainLog:
    """One line of JSON per entry, and the same as scalars for TensorBoard and for trackers of experiments.

    The lines follow from the job and the store alone: an interrupted training leaves the bytes of an uninterrupted one.
    What a clock says goes to TensorBoard and the trackers only.

    Args:
        run: folder of the run.
        after: step from which the training goes on; entries of later steps, left by a killed run, are dropped.
        trackers: names of ``pipeline.train.tracking.trackers``.
        config: fields of the job, for the trackers.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(
        self,
        run: Path,
        *,
        after: int = 0,
        trackers: Sequence[TrackerName] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        # tensorboardX takes a second to import; whoever only reads logs does not need it.
        from tensorboardX import SummaryWriter

        path = run / LOG_FILE
        kept = [line for line in read_lines(path) if line["step"] <= after] if after else []
        with wrap_os_errors("write", path):
            write_file(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
            self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=after + 1 if after else None)
        self._trackers = Trackers(run, trackers, config or {}, goes_on=after > 0)
        self._path = path

    def write(self, step: int, values: dict[str, Any], *, measured: Mapping[str, float] | None = None) -> None:
        """Adds an entry; what is no number is for the file alone.

        Args:
            step: steps that are behind.
            values: that follow from the job and the store.
            measured: what another run of the same job would measure otherwise; not for the file.

        Raises:
            StoreError: the disk is full.
        """
        with wrap_os_errors("write", self._path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        numbers |= measured or {}
        for name, value in numbers.items():
            self._board.add_scalar(name, value, step)
        self._trackers.write(step, numbers)

    def picture(self, step: int, picture: Image.Image) -> None:
        """Adds a sample grid."""
        import numpy as np

        pixels = np.asarray(picture.convert("RGB"))
        self._board.add_image("samples", pixels, step, dataformats="HWC")
        self._trackers.picture(step, picture)

    def close(self) -> None:
        """Closes all of them."""
        self._file.close()
        self._board.close()
        self._trackers.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Entries of a log; a last line that a kill cut short is left out, and any other that is none is warned of."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    strange: list[int] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and type(entry.get("step")) is int:
            found.append(entry)
        elif number < len(lines):
            strange.append(number)
    if strange:
        named = ", ".join(map(str, strange[:MOST_NAMED])) + (" and more" if len(strange) > MOST_NAMED else "")
        logger.warning("%s: %d lines are no entries of a log and are left out: %s", path, len(strange), named)
    return found


def loss_png(lines: Sequence[dict[str, Any]]) -> bytes | None:
    """The loss on a logarithmic scale, and the learning rate behind it.

    Args:
        lines: of ``pipeline.train.tracking.log.read_lines``.

    Returns:
        A PNG of some 30 kB; None where no loss was written down.
    """
    points = [
        (int(line["step"]), float(line["loss"]), float(line["learning_rate"]))
        for line in lines
        if all(isinstance(line.get(name), int | float) for name in ("loss", "learning_rate"))
        and math.isfinite(line["loss"])
        and line["loss"] > 0
    ]
    if not points:
        return None
    steps = [step for step, _, _ in points]
    figure = Figure(figsize=_SIZE, dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(
        steps, [loss for _, loss, _ in points], marker="o" if len(points) < 30 else "", markersize=4, color="#3566c8"
    )
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.grid(True, which="both", axis="y", color="#dde1e8", linewidth=0.6)
    rates = axes.twinx()
    rates.plot(steps, [rate for _, _, rate in points], color="#a94a00", linewidth=0.9, dashes=(4, 3))
    rates.set_ylabel("learning rate", color="#a94a00")
    rates.set_ylim(0)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
