"""One deployment from beginning to end in this process, for cron and for CI: the exit code is the outcome."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import tags
from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterTypeError
from prefect.flows import Flow
from pydantic import ValidationError

from data_schemas.errors import JobError
from data_schemas.locations import Location
from flows.catalogue import BY_NAME, Deployment


def deployment_named(name: str) -> Deployment:
    """The deployment of the catalogue.

    Args:
        name: short, or full with its flow.

    Raises:
        JobError: there is none.
    """
    short = name.rpartition("/")[2]
    if short in BY_NAME and name in (short, BY_NAME[short].full_name):
        return BY_NAME[short]
    raise JobError(
        f"Deployment {name!r}", allowed=", ".join(BY_NAME), next_step="python -m flows --list tells what each does"
    )


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters from ``key=value``: a value is JSON, or else text.

    Raises:
        JobError: a text without a key or without ``=``, or a key given twice.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise JobError(f"-p {text!r}", allowed="-p key=value", next_step="for instance -p limit=512")
        if key in values:
            raise JobError(f"-p {key}=... twice", next_step="give it once")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def check_parameters(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the flow takes them.

    Raises:
        JobError: one that the flow does not know, or a value that it does not take.
    """
    known = list(flow.parameters.properties)
    for name in parameters:
        if name not in known:
            meant = difflib.get_close_matches(name, known, n=1)
            raise JobError(
                f"Parameter {name!r} of {flow.name}",
                allowed=", ".join(known),
                next_step=f"if that was meant: -p {meant[0]}=VALUE" if meant else "",
            )
    # A folder may be named 7 or true: where nothing but text is taken, what was typed is text.
    plain = {
        name: json.dumps(value)
        if isinstance(value, bool | int | float) and _kinds(flow.parameters.properties[name]) == {"string"}
        else value
        for name, value in parameters.items()
    }
    try:
        return flow.validate_parameters(plain)
    except (ParameterTypeError, ValidationError) as error:
        raise JobError(f"Parameters of {flow.name}: {error}") from None


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    """JSON types that a parameter takes, nothing at all aside."""
    return {choice.get("type", "") for choice in schema.get("anyOf", [schema])} - {"null"}


def report_of(result: object) -> Location | None:
    """The page of the report that a flow has made: it returns the page, or a summary that names it."""
    page = result if isinstance(result, Location) else getattr(result, "report", None)
    return page if isinstance(page, Location) else None


def run_once(deployment: Deployment, flow: Flow[..., Any], parameters: Mapping[str, Any]) -> State[Any]:
    """Runs the flow in this process and returns its last state.

    Args:
        deployment: gives the parameters that are not given, and the tags.
        flow: its flow.
        parameters: those that differ; see ``check_parameters``.
    """
    with tags(*deployment.tags):
        return flow(**{**check_parameters(flow, deployment.parameters), **parameters}, return_state=True)
