"""The options of a command, made from the fields of its job (``pipeline.options``)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from pipeline.options import MISSING, DeclaredOption, declared, order_names

Command = TypeVar("Command", bound=Callable[..., None])


def options_from(*models: type) -> Callable[[Command], Command]:
    """Gives a command the options that job models declare; what was given arrives in its ``**options``.

    Parameters of the command that bear the name of a field come first and are described by the field. Its keyword-only
    ones are options of its own, annotated as typer wants it: they come last, or behind the one that ``After`` names.

    Args:
        models: see ``pipeline.options.declared``.
    """

    def build(command: Command) -> Command:
        fields = {name: one for name, one in declared(*models).items() if not one.option.no_option}
        hints = get_type_hints(command, include_extras=True)
        own = inspect.signature(command).parameters.values()
        names = order_names(command, fields)
        for one in own:
            for mark in getattr(hints.get(one.name), "__metadata__", ()):
                if isinstance(mark, After):
                    names.remove(one.name)
                    names.insert(names.index(mark.name) + 1, one.name)
        parameters = {one.name: one for one in own}
        built = [
            _parameter(fields[name], parameters.get(name))
            if name in fields
            else parameters[name].replace(annotation=hints[name])
            for name in names
        ]
        as_keywords = [one.replace(kind=one.KEYWORD_ONLY) for one in built]
        command.__signature__ = inspect.Signature(as_keywords)
        command.__annotations__ = {one.name: one.annotation for one in built} | {"return": None}
        return command

    return build


@dataclass(frozen=True)
class After:
    """Marks an option of a command's own: it stands behind the one of this name."""

    name: str


def _parameter(one: DeclaredOption, own: inspect.Parameter | None) -> inspect.Parameter:
    default = one.default if own is None or own.default is own.empty else own.default
    kind = one.given.kind
    facts: dict[str, Any] = {"help": one.help, "metavar": one.option.metavar, "envvar": one.option.envvar}
    if one.option.argument:
        shown = typer.Argument(**facts)
    else:
        flags = one.option.flags
        if kind is bool and not flags:
            flag = one.name.replace("_", "-")
            flags = (f"--{flag}/--no-{flag}" if one.on_by_default else f"--{flag}",)
        # The parser knows no bound that is left out itself; the job checks every rule.
        left_out = any(hasattr(rule, "gt") or (hasattr(rule, "lt") and kind is float) for rule in one.given.range)
        bounds = {
            limit: getattr(rule, bound)
            for rule in one.given.range
            for limit, bound in (("min", "ge"), ("max", "le"))
            if hasattr(rule, bound) and not left_out
        }
        shown = typer.Option(*flags, **facts, **bounds)
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[kind | None if default is None else kind, shown],
    )
