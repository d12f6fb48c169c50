"""A run that is on the hub, on this machine: its model and its card in the cache."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from data_schemas.errors import HubError
from data_schemas.files import cache_folder
from data_schemas.hub import is_hub_url, parse_hub_url
from pipeline.hub.cards import CARD_FILE
from pipeline.hub.client import hub_errors, hub_library, wrap_hub_errors
from pipeline.train.state import MODEL_FILE


def local_run(path: str | os.PathLike[str]) -> Path:
    """Where a run is on this machine; one of the hub is downloaded, where the cache does not hold its newest state.

    Nothing of it is executed: a run is read from its ``model.safetensors``, whose bytes are checked.

    Args:
        path: folder of a run, its ``model.safetensors``, or ``hf://USER/NAME`` (also with ``@REVISION``).

    Returns:
        The path as it was given, or a folder in the cache.

    Raises:
        HubError: a URL that names no repository of a model, one that cannot be reached, or one without a run.
        JobError: the library of the hub is not installed.
    """
    if not is_hub_url(path):
        return Path(path)
    place = parse_hub_url(path)
    if place.kind != "model" or place.path not in ("", MODEL_FILE):
        raise HubError(
            f"{place.url}{'/' * bool(place.path)}{place.path} is no run",
            allowed="hf://USER/NAME of a run that `splatspace push RUN` put there",
            next_step="a store is read by `splatspace info`" if place.kind == "dataset" else "check the URL",
        )
    hub = hub_library(place.url)
    revision = f"@{quote(place.revision, safe='')}" if place.revision else ""
    folder = cache_folder() / "hub" / f"{place.repository}{revision}"
    options = {"revision": place.revision or None, "local_dir": folder}
    with wrap_hub_errors("download the run of", place):
        hub.hf_hub_download(place.repository, MODEL_FILE, **options)
        try:
            hub.hf_hub_download(place.repository, CARD_FILE, **options)
        except hub_errors().EntryNotFoundError:
            pass  # somebody else's repository: the model says by itself all that sampling needs
    return folder
