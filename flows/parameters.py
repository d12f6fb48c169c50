"""The parameters of a flow, made from the fields of its job (``pipeline.options``).

Prefect reads the signature and the section ``Args`` of the docstring; both are written here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_type_hints

from pydantic.fields import FieldInfo

from pipeline.options import MISSING, DeclaredOption, declared, order_names

Flow = TypeVar("Flow", bound=Callable[..., Any])


def parameters_from(*models: type) -> Callable[[Flow], Flow]:
    """Gives a flow the parameters that job models declare; what was given arrives in its ``**options``.

    Parameters of the function that bear the name of a field come first and are described by the field; its
    keyword-only ones are its own, come last, and have ``Field(description=...)``. The docstring, without a section
    ``Args``, ends with ``Returns`` and ``Raises``. Stands under ``@flow``.

    Args:
        models: see ``pipeline.options.declared``.
    """

    def build(function: Flow) -> Flow:
        fields = {name: one for name, one in declared(*models).items() if not one.option.no_parameter}
        hints = get_type_hints(function, include_extras=True)
        own = inspect.signature(function).parameters
        names = order_names(function, fields)
        parameters = [
            _parameter(fields[name], own.get(name)) if name in fields else own[name].replace(annotation=hints[name])
            for name in names
        ]
        function.__signature__ = inspect.Signature(parameters, return_annotation=hints["return"])
        function.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": hints["return"]}
        described = {name: fields[name].help if name in fields else _description(hints[name]) for name in names}
        lines = "".join(f"    {name}: {_without_dashes(words)}\n" for name, words in described.items())
        head, found, tail = (inspect.getdoc(function) or "").partition("\nReturns:\n")
        function.__doc__ = f"{head}\nArgs:\n{lines}{found}{tail}"
        return function

    return build


def _parameter(one: DeclaredOption, own: inspect.Parameter | None) -> inspect.Parameter:
    default = one.default if own is None or own.default is inspect.Parameter.empty else own.default
    return inspect.Parameter(
        one.name,
        inspect.Parameter.KEYWORD_ONLY if own is None else own.kind,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=one.parameter.annotation,
    )


def _description(annotation: Any) -> str:
    return FieldInfo.from_annotation(annotation).description or ""


def _without_dashes(text: str) -> str:
    """Names of options as names of parameters: ``--target-psnr`` is ``target_psnr``."""
    return re.sub(r"--([a-z][a-z-]*)", lambda match: match[1].replace("-", "_"), text)
