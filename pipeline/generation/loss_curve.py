"""The loss of a training over its steps, as a picture."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_SIZE, _DOTS_PER_INCH = (7.0, 3.0), 100


def loss_png(lines: Sequence[dict[str, Any]]) -> bytes | None:
    """The loss on a logarithmic scale, and the learning rate behind it.

    Args:
        lines: of ``pipeline.generation.logs.read_lines``.

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
