"""What pydantic finds wrong with a job, in the words of the command line."""

from __future__ import annotations

from pydantic import ValidationError

from data_schemas.errors import JobError


def job_error(error: ValidationError, command: str) -> JobError:
    """The first thing that is wrong, as an option, what it may be, and where to read on.

    Args:
        error: of a job's model.
        command: of ``splatspace`` that makes such jobs.
    """
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else "job"
    return JobError(
        f"--{field.replace('_', '-')} {first.get('input')!r}",
        allowed=first["msg"].removeprefix("Input should be "),
        next_step=f"see splatspace {command} --help",
    )
