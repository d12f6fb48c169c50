"""An option is written once: as a field of a job, with its type, range, default and help sentence.

The signature of the command (``pipeline.cli.job_options``) and that of the flow (``flows.parameters``), with their help
and ranges, are made from what :func:`declared` reads here. A field looks like this::

    rounds: Annotated[int, Field(ge=1, le=10, description="Number of rounds."), Option(open=True)] = 1

Light: it is imported by ``splatspace --help``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo

from data_schemas.errors import JobError

LARGEST_SEED = 2**63 - 1
"""Of every command: what the header of a store and the generators of torch can hold."""

MOST_DIGITS = 18
"""Any number of so many digits fits into 64 bits. Python itself refuses to read more than 4,300."""

MISSING: Any = dataclasses.MISSING
"""The default of an option that must be given."""


def _as_text(given: object) -> object:
    return os.fspath(given) if isinstance(given, os.PathLike) else given


PathText = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
"""A path or a URL as text: a ``Path`` would lose a slash of ``s3://``."""


DeviceName = Literal["auto", "cpu", "cuda", "mps"]
"""Where flows may compute; the command line takes what torch knows besides."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """What the command line and the flows know of a field beyond its type, range, default and description.

    Attributes:
        flags: spellings on the command line; none: ``--`` and the name, with ``--no-`` where it is on by default.
        metavar: what stands for the value in the help.
        envvar: environment variable that gives the value on the command line.
        argument: whether it is an argument without a flag.
        open: whether it is open (None) until presets, recipes or other options fill it in.
        default: what holds where nothing is given, in words; an open field without them shows its default.
        given: type of what a user gives, where the job holds another one.
        parameter: type of the flow's parameter, where it is another one still.
        after: name of the option behind which it stands; otherwise the order is that of the fields.
        no_option: why the command line has no such option.
        no_parameter: why flows have no such parameter.
    """

    flags: tuple[str, ...] = ()
    metavar: str | None = None
    envvar: str | None = None
    argument: bool = False
    open: bool = False
    default: str = ""
    given: Any = None
    parameter: Any = None
    after: str = ""
    no_option: str = ""
    no_parameter: str = ""


@dataclass(frozen=True)
class Internal:
    """Marks a field that nobody gives.

    Attributes:
        reason: who fills it in instead.
    """

    reason: str


class DeviceOption(BaseModel):
    """Of commands and flows whose job leaves open where it is done."""

    device: Annotated[str, Field(description="Device: auto, cpu, cuda or mps."), Option(parameter=DeviceName)] = "auto"


@dataclass(frozen=True)
class Given:
    """Type of a value that a user gives.

    Attributes:
        kind: without its range and without None.
        range: bounds and other rules, as pydantic keeps them.
        optional: whether nothing may be given.
    """

    kind: Any
    range: tuple[Any, ...]
    optional: bool

    @property
    def annotation(self) -> Any:
        """For a signature that pydantic reads."""
        ranged: Any = Annotated[self.kind, *self.range] if self.range else self.kind
        return ranged | None if self.optional else ranged


@dataclass(frozen=True)
class DeclaredOption:
    """An option as its field declares it.

    Attributes:
        name: of the field.
        given: type on the command line.
        parameter: type in a flow.
        default: where nothing is given; ``MISSING`` where it must be.
        help: a sentence, with the default in words.
        option: the rest.
        on_by_default: whether the job has it on where nothing is given.
    """

    name: str
    given: Given
    parameter: Given
    default: Any
    help: str
    option: Option
    on_by_default: bool


def declared(*models: type) -> dict[str, DeclaredOption]:
    """The options that job models declare, by name and in their order.

    Args:
        models: pydantic models or dataclasses whose fields are ``Annotated``; the later ones add to the first.

    Raises:
        TypeError: a field is neither an option nor internal, or has no description.
    """
    found: dict[str, DeclaredOption] = {}
    for model in models:
        for name, (annotation, default) in fields_of(model).items():
            mark, description = marks_of(annotation)
            if mark is None or not (isinstance(mark, Internal) or description):
                raise TypeError(f"{model.__name__}.{name} needs a description and Option(), or Internal(reason)")
            if isinstance(mark, Option):
                found[name] = _declared(name, annotation, description, default, mark)
    return _ordered(found)


def order_names(function: Callable[..., Any], fields: Collection[str]) -> list[str]:
    """The parameters of a command or flow in their order: its own first ones, those of its jobs, its keyword-only ones.

    Args:
        function: as written.
        fields: names that its jobs declare, in their order.
    """
    own = inspect.signature(function).parameters.values()
    first = [one.name for one in own if one.kind is one.POSITIONAL_OR_KEYWORD]
    return [
        *first,
        *(name for name in fields if name not in first),
        *(one.name for one in own if one.kind is one.KEYWORD_ONLY and one.name not in fields),
    ]


def fields_of(model: type) -> dict[str, tuple[Any, Any]]:
    """Type with its metadata, and default, of every field of a pydantic model or a dataclass."""
    hints = get_type_hints(model, include_extras=True)
    if issubclass(model, BaseModel):
        defaults = {
            name: MISSING if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
            for name, info in model.model_fields.items()
        }
    else:
        defaults = {field.name: field.default for field in dataclasses.fields(model)}
    return {name: (hints[name], default) for name, default in defaults.items()}


def marks_of(annotation: Any) -> tuple[Option | Internal | None, str]:
    """What a field says of itself as an option, and its description."""
    info = FieldInfo.from_annotation(annotation)
    mark = next((mark for mark in info.metadata if isinstance(mark, Option | Internal)), None)
    return mark, info.description or ""


def _declared(name: str, annotation: Any, description: str, default: Any, option: Option) -> DeclaredOption:
    words = option.default
    if option.open and not words and default not in (None, False, ()):
        words = "yes" if default is True else str(default)
    optional = option.open or default is None
    given = _read_annotation(annotation if option.given is None else option.given, optional)
    parameter = given
    if option.parameter is not None or given.kind is Path:
        parameter = _read_annotation(option.parameter or PathText, optional)
    said = f"{description} Default: {words}." if words else description
    return DeclaredOption(name, given, parameter, None if optional else default, said, option, default is True)


def _read_annotation(annotation: Any, optional: bool) -> Given:
    info = FieldInfo.from_annotation(annotation)
    kind = info.annotation
    if type(None) in get_args(kind):
        left = [part for part in get_args(kind) if part is not type(None)]
        kind = left[0] if len(left) == 1 else Union[tuple(left)]  # noqa: UP007
    return Given(kind, tuple(mark for mark in info.metadata if not isinstance(mark, Option)), optional)


def _ordered(found: Mapping[str, DeclaredOption]) -> dict[str, DeclaredOption]:
    names = [name for name, one in found.items() if not one.option.after]
    for name, one in found.items():
        if one.option.after:
            names.insert(names.index(one.option.after) + 1, name)
    return {name: found[name] for name in names}


def job_error(error: ValidationError, command: str) -> JobError:
    """The first thing that is wrong, as an option, what it may be, and where to read on.

    Args:
        error: of a job's model.
        command: of ``splatspace`` that makes such jobs.
    """
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else "job"
    got = first.get("input")
    # Python itself refuses to write some thousands of digits.
    long = isinstance(got, int) and abs(got) >= 10**40
    return JobError(
        f"--{field.replace('_', '-')} {'of more than 40 digits' if long else repr(got)}",
        allowed=first["msg"].removeprefix("Input should be "),
        next_step=f"see splatspace {command} --help",
    )


def require_declared(job: Any, command: str) -> None:
    """Checks every field of a job that is a dataclass against its declared type and range.

    Args:
        job: an instance.
        command: of ``splatspace`` that makes such jobs.

    Raises:
        JobError: a value outside of them.
    """
    try:
        _make_adapter(type(job)).validate_python(
            {field.name: getattr(job, field.name) for field in dataclasses.fields(job)}
        )
    except ValidationError as error:
        raise job_error(error, command) from None


@functools.cache
def _make_adapter(job: type) -> TypeAdapter[Any]:
    fields: dict[str, Any] = {name: (annotation, ...) for name, (annotation, _) in fields_of(job).items()}
    return TypeAdapter(create_model(job.__name__, __config__=ConfigDict(arbitrary_types_allowed=True), **fields))


def whole_number(text: str) -> int | None:
    """The number that a text is, with or without a minus; None for other text and for numbers of more digits."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) <= MOST_DIGITS else None
