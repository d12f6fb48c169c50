"""Packages that come with an extra of this one."""

from __future__ import annotations

import importlib
from typing import Any

from data_schemas.errors import JobError


def extra_module(name: str, *, extra: str, wanted_by: str, without: str) -> Any:
    """Imports a module of an optional package.

    Args:
        name: of the module.
        extra: of splatspace that installs it.
        wanted_by: what needs it, as the user said it.
        without: what can be done without it.

    Raises:
        JobError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise JobError(
            f"{wanted_by} needs the package {name.partition('.')[0]}, which cannot be imported ({error})",
            allowed=without,
            next_step=f"pip install 'splatspace[{extra}]'",
        ) from error
