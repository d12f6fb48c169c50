"""The application: the table of commands and what is common to all of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Annotated

import typer

from pipeline.cli.ablate import ABLATE_EXAMPLES, ablate
from pipeline.cli.convert import CONVERT_EXAMPLES, convert
from pipeline.cli.encode import ENCODE_EXAMPLES, PRESETS_EXAMPLES, encode, presets
from pipeline.cli.evaluate import EVALUATE_EXAMPLES, evaluate
from pipeline.cli.images import EDIT_EXAMPLES, EXPORT_EXAMPLES, RENDER_EXAMPLES, edit, export, render
from pipeline.cli.push import PUSH_EXAMPLES, push
from pipeline.cli.sample import SAMPLE_EXAMPLES, sample
from pipeline.cli.stores import (
    COMPARE_EXAMPLES,
    INFO_EXAMPLES,
    REPORT_EXAMPLES,
    VERIFY_EXAMPLES,
    compare,
    info,
    report,
    verify,
)
from pipeline.cli.terminal import Commands, as_epilog, reporting_errors, start_logging
from pipeline.cli.train import MODELS_EXAMPLES, TRAIN_EXAMPLES, models, train

COMMANDS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (encode, ENCODE_EXAMPLES),
    (report, REPORT_EXAMPLES),
    (info, INFO_EXAMPLES),
    (verify, VERIFY_EXAMPLES),
    (render, RENDER_EXAMPLES),
    (compare, COMPARE_EXAMPLES),
    (convert, CONVERT_EXAMPLES),
    (push, PUSH_EXAMPLES),
    (sample, SAMPLE_EXAMPLES),
    (export, EXPORT_EXAMPLES),
    (edit, EDIT_EXAMPLES),
    (presets, PRESETS_EXAMPLES),
    (evaluate, EVALUATE_EXAMPLES),
    (train, TRAIN_EXAMPLES),
    (ablate, ABLATE_EXAMPLES),
    (models, MODELS_EXAMPLES),
)
"""Every command with its examples; the name on the command line is the function's."""

app = typer.Typer(
    name="splatspace",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=as_epilog(("splatspace encode demo --out demo.zarr", "splatspace encode --help")),
)
for _command, _examples in COMMANDS:
    app.command(epilog=as_epilog(_examples))(reporting_errors(_command))


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            version = importlib.metadata.version("splatspace")
        except importlib.metadata.PackageNotFoundError:
            version = "of a checkout that is not installed"
        typer.echo(f"splatspace {version}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step, and show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Turns image data sets into stores of 2D Gaussians, and says how good they are."""
    start_logging(verbose)


def main() -> None:
    """Entry point of the console script."""
    app()
