"""Memory of client, scheduler and workers is bounded over many images; benchmarks/scale/memory.py shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import CountedNames
from benchmarks.scale.memory import measure

IMAGES = 200_000

MOST_GROWTH = 20
"""MiB between the second and the last quarter of the run, 100,000 images: 200 bytes for each would be as much. What a
worker remembers of the contents that it has seen is about 150 bytes each, up to a bound (pipeline/encode/rows.py)."""


@pytest.mark.soak
def test_memory_does_not_follow_the_number_of_images(tmp_path: Path) -> None:
    result = measure(IMAGES, 2, tmp_path, 0.1)
    assert result["shards"] > 100
    assert result["done"][-1][1] == IMAGES
    seconds = np.array(result["seconds"])
    begin, end = result["planned"], result["encoded"]
    quarters = [begin + part / 4 * (end - begin) for part in range(5)]
    for name, samples in result["mebibytes"].items():
        values = np.array(samples)
        second, last = (values[(seconds >= quarters[part]) & (seconds < quarters[part + 1])].max() for part in (1, 3))
        assert last - second < MOST_GROWTH, f"{name} grew from {second:.0f} to {last:.0f} MiB"
        # The client is the process of the tests, with whatever it held before.
        assert last - (values[0] if name == "client" else 0) < 600, f"{name} holds {last:.0f} MiB"


def test_names_made_on_demand_are_those_of_a_list() -> None:
    names = CountedNames(range(1000))
    assert list(names[10:13]) == ["000000010", "000000011", "000000012"]
    assert names[999] == names[10:][-1] == "000000999"
    assert len(names[100:]) == 900
