"""The list of deployments: the one source of ``python -m flows``, of ``prefect.yaml`` and of the short names.

Cheap to import and without Prefect: the plugin of the short names reads it when a ``prefect`` command begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from models.names import HeadName
from pipeline.encode.presets import PRESETS

WORK_POOL = "splatspace"
"""The pool whose workers run what ``prefect deploy`` has deployed; ``python -m flows`` needs none."""

WATCHED_FOLDER = "data/incoming"
"""What ``encode-folder`` encodes where nobody says otherwise, relative to the folder in which flows run."""

GENERATED = ("mnist", "sprites", "cifar10")
"""Data sets whose splats generators learn."""

PATCH_HEADS: tuple[HeadName, ...] = get_args(HeadName)
"""Of the patch models, which learn the cats."""

CONCURRENCY = {"limit": 1, "collision_strategy": "ENQUEUE"}
"""A store has one run at a time: a second run of a deployment waits for the first."""

_HEADER = f"""\
# Deployments for Prefect workers. Written by `python -m flows --write-prefect-yaml` from flows/catalogue.py, which is
# the place for changes; docs/operations.md says how to run them.
#
#   prefect work-pool create {WORK_POOL} --type process
#   prefect deploy --all
#   prefect worker start --pool {WORK_POOL} --limit 1
#   prefect deployment run encode/encode-mnist --watch
#
# A server's deployments belong either to workers, as here, or to `python -m flows`, which needs neither this file nor
# a work pool. A worker runs the flows in the folder in which `prefect deploy` was typed, and paths in the parameters
# are relative to it. Every parameter is flat, so `-p limit=512` changes one and keeps the others.

"""


@dataclass(frozen=True)
class Schedule:
    """When a deployment runs by itself.

    Attributes:
        slug: name of the schedule within its deployment; Prefect tells schedules apart by it.
        cron: five fields, in ``timezone``; None where ``interval`` is given.
        interval: seconds between the starts of two runs; None where ``cron`` is given.
        timezone: of ``cron``.
        active: whether it runs from the start. What people resume or pause later is kept.
    """

    slug: str
    cron: str | None = None
    interval: int | None = None
    timezone: str = "UTC"
    active: bool = False

    def __str__(self) -> str:
        when = f"every {self.interval} s" if self.interval else f"{self.cron} {self.timezone}"
        return f"{self.slug}: {when}"


@dataclass(frozen=True)
class Deployment:
    """A flow with the parameters that it has where a user gives none.

    Attributes:
        name: ``FLOW-SET``; the word before the first dash is the flow.
        description: one sentence, shown on Prefect's page.
        parameters: of the flow, flat.
        schedules: when it runs by itself.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    schedules: tuple[Schedule, ...] = field(default=())

    @property
    def flow(self) -> str:
        """Name of the flow, which is the name of its module in ``flows`` and of its function too."""
        return self.name.partition("-")[0]

    @property
    def full_name(self) -> str:
        """``FLOW/NAME``, as Prefect wants it."""
        return f"{self.flow}/{self.name}"

    @property
    def tags(self) -> list[str]:
        """The flow and the set."""
        return [self.flow, self.name.partition("-")[2]]

    @property
    def entrypoint(self) -> str:
        """Dotted path of the flow: found wherever the package is installed, in a checkout or not."""
        return f"flows.{self.flow}.{self.flow}"


NIGHTLY = Schedule("nightly", cron="0 3 * * *")
WATCHING = Schedule("watching", interval=600)


def _encode(dataset: str, description: str, *schedules: Schedule, source: str | None = None) -> Deployment:
    # With `versions` a changed setting makes a store of its own, NAME.v2.zarr, where a run alone would be refused.
    parameters = {"dataset": source or dataset, "out": f"out/{dataset}.zarr", "versions": True}
    return Deployment(f"encode-{dataset}", description, parameters, schedules)


def _report(dataset: str, title: str) -> Deployment:
    description = f"Makes the PSNR report of {title} again, from the store alone."
    return Deployment(f"report-{dataset}", description, {"store": f"out/{dataset}.zarr"})


def _train(dataset: str, title: str) -> Deployment:
    parameters = {"store": f"out/{dataset}.zarr", "out": f"out/runs/splats-{dataset}", "kind": "splats"}
    description = f"Trains a generator on the splats of {title}; run again it goes on."
    return Deployment(f"train-splats-{dataset}", description, parameters)


def _train_cats(head: str) -> Deployment:
    parameters = {"store": "out/cats.zarr", "out": f"out/runs/cats-{head}", "kind": "cats", "head": head}
    description = f"Trains the patch model with head {head} on the pixels of cat faces; run again it goes on."
    return Deployment(f"train-cats-{head}", description, parameters)


def _evaluate(run: str, dataset: str) -> Deployment:
    parameters = {"run": f"out/runs/{run}", "store": f"out/{dataset}.zarr"}
    description = f"Measures the generator of train-{run} against the originals of {PRESETS[dataset].title}."
    return Deployment(f"evaluate-{run}", description, parameters)


def _ablate(dataset: str, title: str) -> Deployment:
    parameters = {"store": f"out/{dataset}.zarr", "out": f"out/ablations/{dataset}"}
    description = f"Changes one choice at a time on {title}: trains and evaluates each, and draws the table."
    return Deployment(f"ablate-{dataset}", description, parameters)


def _describe(name: str, ending: str = "") -> str:
    preset = PRESETS[name]
    colour = "grey" if preset.channels == 1 else "RGB"
    text = f"{preset.title}: {preset.height} x {preset.width} {colour}, {preset.gaussians} Gaussians per image"
    return f"{text}{ending}."


DEPLOYMENTS: tuple[Deployment, ...] = (
    *(_encode(name, _describe(name), NIGHTLY) for name in ("mnist", "sprites", "cifar10", "cats")),
    _encode("demo", _describe("demo", "; needs no data")),
    _encode(
        "folder",
        f"Images of a watched folder, {WATCHED_FOLDER} unless the parameter `dataset` names another: only new or "
        "changed ones are fitted.",
        WATCHING,
        source=WATCHED_FOLDER,
    ),
    *(_report(name, PRESETS[name].title) for name in ("mnist", "sprites", "cifar10", "cats", "demo")),
    _report("folder", "the watched folder"),
    *(_train(name, PRESETS[name].title) for name in GENERATED),
    *(_train_cats(head) for head in PATCH_HEADS),
    *(_evaluate(f"splats-{name}", name) for name in GENERATED),
    *(_evaluate(f"cats-{head}", "cats") for head in PATCH_HEADS),
    *(_ablate(name, PRESETS[name].title) for name in GENERATED),
)

BY_NAME: dict[str, Deployment] = {deployment.name: deployment for deployment in DEPLOYMENTS}


def prefect_yaml() -> str:
    """The text of ``prefect.yaml``."""
    import yaml

    def schedule(planned: Schedule) -> dict[str, Any]:
        when = {"interval": planned.interval} if planned.interval else {"cron": planned.cron}
        return {"slug": planned.slug, **when, "timezone": planned.timezone, "active": planned.active}

    content = {
        "name": "splatspace",
        "prefect-version": "3.8.8",
        "build": [
            {
                "prefect.deployments.steps.run_shell_script": {
                    "id": "checkout",
                    "script": "pwd",
                    "stream_output": False,
                }
            }
        ],
        "push": None,
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ checkout.stdout }}"}}],
        "deployments": [
            {
                "name": deployment.name,
                "description": deployment.description,
                "tags": deployment.tags,
                "entrypoint": deployment.entrypoint,
                "parameters": dict(deployment.parameters),
                "work_pool": {"name": WORK_POOL},
                "concurrency_limit": dict(CONCURRENCY),
                "schedules": [schedule(planned) for planned in deployment.schedules],
            }
            for deployment in DEPLOYMENTS
        ],
    }
    return _HEADER + yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
