"""Trackers of experiments beside a run's own log: Weights & Biases and MLflow, each an extra of the package.

Where they send to is theirs to say (``WANDB_MODE``, ``MLFLOW_TRACKING_URI`` and so on). A tracker that fails while a
training runs is left out from there on, with a warning: the run's own log is the record.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from PIL import Image

from data_schemas.errors import JobError
from data_schemas.files import wrap_os_errors, write_file
from pipeline.documents import extra_module

logger = logging.getLogger("splatspace.train")

TrackerName = Literal["wandb", "mlflow"]
TRACKERS: tuple[TrackerName, ...] = get_args(TrackerName)

PROJECT = "splatspace"
"""Project, or experiment, that runs are kept under, unless the tracker's own settings say otherwise."""

IDENTIFIERS_FILE = "trackers.json"
"""In the run's folder: under which names the trackers know it, so that a training that goes on continues them."""

MLFLOW_DATABASE, MLFLOW_FOLDER = "mlflow.db", "mlflow"
"""In the run's folder: where MLflow keeps numbers and images when ``MLFLOW_TRACKING_URI`` is not set."""

_LONGEST_PARAMETER = 500


class Tracker(Protocol):
    """Takes what a training writes down."""

    @property
    def identifier(self) -> str:
        """Under which the tracker knows the run."""
        ...

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        ...

    def picture(self, step: int, picture: Image.Image) -> None:
        """A sample grid."""
        ...

    def close(self) -> None:
        """The end of the training, or of this part of it."""
        ...


def _module(name: TrackerName) -> Any:
    """The tracker's package.

    Raises:
        JobError: it is not installed.
    """
    return extra_module(
        name,
        extra=name,
        wanted_by=f"--track {name}",
        without="a training without it: log.jsonl and TensorBoard are always written",
    )


def require_trackers(names: Sequence[str]) -> tuple[TrackerName, ...]:
    """Refuses trackers that are unknown or not installed, before anything is written.

    Raises:
        JobError: the first of them.
    """
    found: list[TrackerName] = []
    for text in names:
        name: TrackerName | None = next((known for known in TRACKERS if known == text), None)
        if name is None:
            raise JobError(f"--track {text}", allowed=", ".join(TRACKERS))
        _module(name)
        if name not in found:
            found.append(name)
    return tuple(found)


class _Wandb:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps everything in the run's folder."""

    def __init__(self, run: Path, identifier: str | None, config: Mapping[str, Any]) -> None:
        self._wandb = _module("wandb")
        self._run: Any = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=identifier,
            resume="allow",
            dir=str(run),
            config=dict(config),
        )
        self.identifier = str(self._run.id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, picture: Image.Image) -> None:
        self._run.log({"samples": self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        self._run.finish()


def mlflow_address(run: Path) -> str:
    """Of the database in a run's folder, for ``mlflow ui --backend-store-uri``."""
    return f"sqlite:///{(run / MLFLOW_DATABASE).absolute()}"


class _MLflow:
    """MLflow; without ``MLFLOW_TRACKING_URI`` everything is kept in the run's folder."""

    def __init__(self, run: Path, identifier: str | None, config: Mapping[str, Any]) -> None:
        mlflow = _module("mlflow")
        given = os.environ.get("MLFLOW_TRACKING_URI")
        pictures = None if given else (run / MLFLOW_FOLDER).absolute().as_uri()
        self._client: Any = mlflow.MlflowClient(tracking_uri=given or mlflow_address(run))
        if identifier is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name, pictures) if known is None else known.experiment_id
            identifier = str(self._client.create_run(experiment, run_name=run.name).info.run_id)
            for key, value in config.items():
                self._client.log_param(identifier, key, str(value)[:_LONGEST_PARAMETER])
        else:
            self._client.update_run(identifier, status="RUNNING")
        self.identifier = identifier

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self.identifier, name, value, step=step)

    def picture(self, step: int, picture: Image.Image) -> None:
        self._client.log_image(self.identifier, picture, f"samples/{step:07d}.png")

    def close(self) -> None:
        self._client.set_terminated(self.identifier)


_KINDS: dict[TrackerName, Callable[[Path, str | None, Mapping[str, Any]], Tracker]] = {
    "wandb": _Wandb,
    "mlflow": _MLflow,
}


class Trackers:
    """All trackers of a training; none of them can fail it.

    Args:
        run: folder of the run.
        names: from ``require_trackers``.
        config: fields of the job.
        goes_on: whether the training is continued.
    """

    def __init__(
        self, run: Path, names: Sequence[TrackerName], config: Mapping[str, Any], *, goes_on: bool = False
    ) -> None:
        self._open: dict[TrackerName, Tracker] = {}
        known = _identifiers(run) if goes_on else {}
        for name in names:
            self._tried(name, "opened", lambda name=name: self._opened(run, name, known.get(name), config))
        if self._open:
            known |= {name: tracker.identifier for name, tracker in self._open.items()}
            with wrap_os_errors("write", run / IDENTIFIERS_FILE):
                write_file(run / IDENTIFIERS_FILE, (json.dumps(known, indent=2) + "\n").encode())

    def _opened(self, run: Path, name: TrackerName, identifier: str | None, config: Mapping[str, Any]) -> None:
        self._open[name] = _KINDS[name](run, identifier, config)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step."""
        for name, tracker in list(self._open.items()):
            self._tried(name, "written", lambda tracker=tracker: tracker.write(step, values))

    def picture(self, step: int, picture: Image.Image) -> None:
        """A sample grid."""
        for name, tracker in list(self._open.items()):
            self._tried(name, "written", lambda tracker=tracker: tracker.picture(step, picture))

    def close(self) -> None:
        """Ends all of them."""
        for name, tracker in list(self._open.items()):
            self._tried(name, "closed", tracker.close)

    def _tried(self, name: TrackerName, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever a tracker, its disk or its server may raise
            self._open.pop(name, None)
            logger.warning("Tracker %s is left out from here on, it could not be %s: %s", name, what, error)


def _identifiers(run: Path) -> dict[str, str]:
    try:
        found = json.loads((run / IDENTIFIERS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(identifier) for name, identifier in found.items()} if isinstance(found, dict) else {}
