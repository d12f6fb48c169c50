"""SplatSpace in one import: ``splatspace.open_store``, ``encode``, ``decode``, ``SplatDataset``, ``load_run`` and more.

Every name is imported when it is asked for, so ``import splatspace`` costs nothing (docs/python-api.md). The console
script begins here too: before anything of the five packages is imported, it looks whether they are SplatSpace's.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_schemas.errors import SplatSpaceError as SplatSpaceError
    from data_schemas.splats import layout_named as layout_named
    from data_schemas.stores.open import open_store as open_store
    from encoders.decode import decode as decode
    from encoders.decode import to_uint8 as to_uint8
    from pipeline.convert.convert import convert as convert
    from pipeline.dataset.shard_shuffle import ShardShuffleSampler as ShardShuffleSampler
    from pipeline.dataset.splat_dataset import SplatDataset as SplatDataset
    from pipeline.encode.job import resolve_job as resolve_job
    from pipeline.encode.run import encode as encode
    from pipeline.hub.push import push as push
    from pipeline.render import render_image as render_image
    from pipeline.report.build import build_report as build_report
    from pipeline.sample.job import SampleJob as SampleJob
    from pipeline.sample.run import load_run as load_run
    from pipeline.sample.sample import sample as sample
    from pipeline.train.job import resolve_train_job as resolve_train_job
    from pipeline.train.train import train as train
    from pipeline.verify import verify as verify

__all__ = [
    "SampleJob",
    "ShardShuffleSampler",
    "SplatDataset",
    "SplatSpaceError",
    "build_report",
    "convert",
    "decode",
    "encode",
    "layout_named",
    "load_run",
    "open_store",
    "push",
    "render_image",
    "resolve_job",
    "resolve_train_job",
    "sample",
    "to_uint8",
    "train",
    "verify",
]

_MODULES = {
    "SampleJob": "pipeline.sample.job",
    "ShardShuffleSampler": "pipeline.dataset.shard_shuffle",
    "SplatDataset": "pipeline.dataset.splat_dataset",
    "SplatSpaceError": "data_schemas.errors",
    "build_report": "pipeline.report.build",
    "convert": "pipeline.convert.convert",
    "decode": "encoders.decode",
    "encode": "pipeline.encode.run",
    "layout_named": "data_schemas.splats",
    "load_run": "pipeline.sample.run",
    "open_store": "data_schemas.stores.open",
    "push": "pipeline.hub.push",
    "render_image": "pipeline.render",
    "resolve_job": "pipeline.encode.job",
    "resolve_train_job": "pipeline.train.job",
    "sample": "pipeline.sample.sample",
    "to_uint8": "encoders.decode",
    "train": "pipeline.train.train",
    "verify": "pipeline.verify",
}
"""Where each public name comes from."""

PACKAGES = ("data_schemas", "encoders", "flows", "models", "pipeline")
"""The import packages of SplatSpace, which stand beside this file."""

WRONG_CALL = 2
"""Exit code of a command that cannot run as it was called."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is asked for.

    Raises:
        AttributeError: there is no such name.
        ImportError: another package of the same name is found first.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    said = shadow_message()
    if said:
        raise ImportError(said)
    found = getattr(import_module(_MODULES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})


def shadows() -> dict[str, str]:
    """Packages that Python finds elsewhere than beside this file: name to the place of the other one."""
    own = Path(__file__).resolve().parent
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            spec = find_spec(name)
        except ValueError:  # a module that was put there by hand, without a specification
            spec = None
        if spec is None:
            found[name] = ""
            continue
        folders = [*(spec.submodule_search_locations or ())]
        place = Path(folders[0] if folders else spec.origin or "")
        if place.resolve() != own / name:
            found[name] = str(place)
    return found


def shadow_message() -> str:
    """What to tell a user whose files have the names of SplatSpace's packages; empty where all are SplatSpace's."""
    found = shadows()
    if not found:
        return ""
    name, place = next(iter(found.items()))
    if not place:
        return f"The package {name} of SplatSpace is not installed. Next: install SplatSpace again."
    others = ", ".join(f"{other} ({there or 'missing'})" for other, there in list(found.items())[1:])
    folder = Path(place).resolve().parent
    given = os.environ.get("PYTHONPATH", "")
    from_environment = bool(given) and folder in [Path(part).resolve() for part in given.split(os.pathsep)]
    if from_environment:
        step = f"take {folder} out of PYTHONPATH, or type env -u PYTHONPATH before the command"
    elif folder == Path.cwd().resolve():
        step = "type PYTHONSAFEPATH=1 before the command, so that Python passes this folder over, or leave the folder"
    else:
        step = f"rename {place}, or use an environment that has SplatSpace alone"
    return (
        f"Python finds {place} where SplatSpace needs its own package {name}"
        + (f"; and also {others}" if others else "")
        + f". Allowed: {Path(__file__).resolve().parent / name}. Next: {step}."
    )


def require_own_packages() -> None:
    """Ends the process with one line where another package of the same name is found first, for entry points."""
    said = shadow_message()
    if said:
        sys.stderr.write(f"Error: {said}\n")
        raise SystemExit(WRONG_CALL)


def main() -> None:
    """Entry point of the console script."""
    require_own_packages()
    from pipeline.cli import main as command_line

    command_line()
