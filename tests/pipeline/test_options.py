"""What a field of a job must say of itself to be an option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from data_schemas.errors import JobError
from pipeline.options import MISSING, Internal, Option, declared, order_names, require_declared


class Job(BaseModel):
    out: Annotated[str, Field(description="The store."), Option(flags=("--out", "-o"))]
    steps: Annotated[int, Field(ge=0, le=9, description="Steps."), Option(open=True)] = 4
    size: Annotated[int | None, Field(ge=1, description="Size."), Option(default="as it is")] = None
    ema: Annotated[bool, Field(description="Mean."), Option(open=True)] = True
    codec: Annotated[str, Field(description="Codec."), Option(given=Literal["a", "b"], after="out")] = "a"
    found: Annotated[int, Internal("the run")] = 0


def test_a_field_says_its_type_default_and_help_once() -> None:
    found = declared(Job)
    assert list(found) == ["out", "codec", "steps", "size", "ema"]
    assert found["out"].default is MISSING
    assert [found[name].default for name in ("steps", "size", "ema", "codec")] == [None, None, None, "a"]
    assert found["steps"].help == "Steps. Default: 4."
    assert found["size"].help == "Size. Default: as it is."
    assert found["ema"].help == "Mean. Default: yes."
    assert found["steps"].given.kind is int
    assert found["steps"].given.optional
    assert found["codec"].given.annotation == Literal["a", "b"]


def test_parameters_of_a_function_stand_before_those_of_its_jobs_and_its_keywords_after() -> None:
    def run(dataset: str, steps: int = 4, *, seed: int = 0, as_json: bool = False, **options: object) -> None: ...

    assert order_names(run, ["out", "steps", "seed"]) == ["dataset", "steps", "out", "seed", "as_json"]


def test_a_field_without_help_or_mark_is_refused() -> None:
    class Silent(BaseModel):
        steps: Annotated[int, Option()] = 4

    class Bare(BaseModel):
        steps: int = 4

    for model in (Silent, Bare):
        with pytest.raises(TypeError, match=r"\.steps needs a description"):
            declared(model)


@dataclass(frozen=True)
class Sampling:
    number: Annotated[int, Field(ge=1, description="Images."), Option()] = 1
    signal: Annotated[float, Field(ge=0, lt=1, description="Signal."), Option()] = 0.25

    def __post_init__(self) -> None:
        require_declared(self, "sample")


def test_a_dataclass_is_checked_against_what_its_fields_declare() -> None:
    assert Sampling(3).number == 3
    with pytest.raises(JobError, match=r"--number 0.*greater than or equal to 1.*splatspace sample --help"):
        Sampling(0)
    with pytest.raises(JobError, match="--signal nan"):
        Sampling(signal=float("nan"))
