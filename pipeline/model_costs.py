"""What every generator costs, by model and preset.

For the usual data the answer stands in ``model_costs.json``, so that a list of generators needs no torch; for other
data it is counted. A test counts it again for the usual data. After a change of a network or a preset:

    python -m pipeline.model_costs
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.resources import files

from data_schemas.splats import layout_for

COSTS_FILE = "model_costs.json"

Costs = dict[str, dict[str, dict[str, float]]]
"""``parameters`` and ``gflop`` (``models.registry.ModelCost``) by model and preset."""


@dataclass(frozen=True)
class CostedData:
    """The data that generators are built for.

    Attributes:
        gaussians: K.
        size: of an image in pixels a side.
        channels: colours of an image.
        classes: number of labels; 0 for none.
    """

    gaussians: int = 150
    size: int = 32
    channels: int = 3
    classes: int = 0


USUAL = CostedData()


def model_costs(data: CostedData) -> Costs:
    """Parameters and GFLOP of one evaluation of one image, of every generator.

    Args:
        data: what they are built for.

    Raises:
        JobError: data that no network can be built for.
    """
    if data != USUAL:
        return count_costs(data)
    stored: Costs = json.loads(files("pipeline").joinpath(COSTS_FILE).read_text(encoding="utf-8"))
    return stored


def count_costs(data: CostedData) -> Costs:
    """The same, counted on networks that are built for it (see ``models.registry.measure_model``).

    Args:
        data: what they are built for.

    Raises:
        JobError: data that no network can be built for.
    """
    # torch takes seconds to import.
    import torch

    from encoders.start.begin import anchors
    from models.base import DataSpec
    from models.registry import MODELS, measure_model

    points = tuple((float(x), float(y)) for x, y in anchors(data.gaussians, data.size, data.size))
    found: Costs = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no product is computed: others would only wait, which costs twice as much
    try:
        for name, entry in MODELS.items():
            splats = entry.sees == "splats"
            spec = DataSpec(
                kind=entry.sees,
                gaussians=data.gaussians,
                features=5 + data.channels if splats else 0,
                groups=2 if splats else 1,
                height=data.size,
                width=data.size,
                channels=data.channels,
                classes=data.classes if entry.takes_labels else 0,
                anchors=points if entry.needs_slots or entry.draws else None,
                layout=layout_for(data.channels).name if entry.draws else "",
            )
            found[name] = {preset: dataclasses.asdict(measure_model(name, preset, spec)) for preset in entry.presets}
    finally:
        torch.set_num_threads(threads)
    return found


if __name__ == "__main__":
    from pathlib import Path

    from data_schemas.files import write_file

    write_file(Path(__file__).with_name(COSTS_FILE), (json.dumps(count_costs(USUAL), indent=1) + "\n").encode())
