"""Which device torch computes on."""

from __future__ import annotations

import torch

from data_schemas.errors import JobError


def choose_device(name: str) -> str:
    """The device that is meant: with ``auto`` the best one that is there.

    Args:
        name: ``auto``, ``cuda``, ``mps`` or ``cpu``.

    Returns:
        ``cuda``, ``mps`` or ``cpu``.

    Raises:
        JobError: an unknown device, or one that is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, found in there.items() if found)
    if not there.get(name, False):
        raise JobError(
            f"Device {name} is not there" if name in there else f"Device {name!r}",
            allowed="auto, " + ", ".join(device for device, found in there.items() if found),
            next_step="give --device auto",
        )
    return name
