"""The library of the Hugging Face Hub, which is optional, and its errors in the words of this program."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from data_schemas.errors import HubError, SplatSpaceError
from data_schemas.hub import HubPlace
from data_schemas.locations import hide_secrets
from pipeline.documents import extra_module

LOG_IN = "run `hf auth login`, or set HF_TOKEN"


def hub_library(wanted_by: str) -> Any:
    """The package ``huggingface_hub``.

    Args:
        wanted_by: what needs it, as the user said it.

    Raises:
        JobError: it is not installed.
    """
    return extra_module("huggingface_hub", extra="hub", wanted_by=wanted_by, without="stores and runs on this machine")


def hub_errors() -> Any:
    """Its module of errors; the library is there."""
    return importlib.import_module("huggingface_hub.errors")


@contextlib.contextmanager
def wrap_hub_errors(action: str, place: HubPlace) -> Iterator[None]:
    """Turns whatever the hub's library raises into HubError.

    Args:
        action: what was being done, as in "read".
        place: where.

    Raises:
        HubError: instead of any other error but those of this program.
    """
    try:
        yield
    except (SplatSpaceError, MemoryError):
        raise
    except Exception as error:
        # The library has no common class of errors, and passes on those of what it speaks HTTP with.
        reason = next((line.strip() for line in hide_secrets(str(error)).splitlines() if line.strip()), "")
        got = f"Could not {action} {place.url}: {type(error).__name__}: {reason}".rstrip(": ")
        allowed, next_step = _advice(error, place)
        raise HubError(got, allowed=allowed, next_step=next_step) from error


def _advice(error: Exception, place: HubPlace) -> tuple[str, str]:
    """What is allowed and what to do, by the kind of an error."""
    errors = hub_errors()
    readable = "a public repository, or a private one that your token may read"
    # From the special to the general: a gated repository counts as one that is not found, a missing file as offline.
    if isinstance(error, errors.GatedRepoError):
        return "a repository that lets you in", f"ask for access on its page, then {LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return readable, f"check the names in the URL; for a private one {LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "a branch, a tag or a commit of the repository", "check what stands behind @, or leave it out"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            "what was downloaded before, while the hub cannot be reached",
            "check the network, and that HF_HUB_OFFLINE is not set, then run the same command again",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return "a repository that `splatspace push` made", "check the URL"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "a token", LOG_IN
    if isinstance(error, errors.HFValidationError):
        return "hf://datasets/USER/NAME for data, hf://USER/NAME for a model", "check the URL"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"a token that may write to {place.repository}", f"{LOG_IN}, with a token that has the right to write"
    if status in (409, 412):
        return "one who changes a repository at a time", "run the same command again"
    return "", "check the network, then run the same command again"
