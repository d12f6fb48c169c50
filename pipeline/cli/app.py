"""The application: the table of commands and what is common to all of them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Annotated

import typer

from pipeline.cli.ablate import EXAMPLES as ABLATE_EXAMPLES
from pipeline.cli.ablate import ablate
from pipeline.cli.compare import EXAMPLES as COMPARE_EXAMPLES
from pipeline.cli.compare import compare
from pipeline.cli.convert import EXAMPLES as CONVERT_EXAMPLES
from pipeline.cli.convert import convert
from pipeline.cli.edit import EXAMPLES as EDIT_EXAMPLES
from pipeline.cli.edit import edit
from pipeline.cli.encode import EXAMPLES as ENCODE_EXAMPLES
from pipeline.cli.encode import encode
from pipeline.cli.evaluate import EXAMPLES as EVALUATE_EXAMPLES
from pipeline.cli.evaluate import evaluate
from pipeline.cli.export import EXAMPLES as EXPORT_EXAMPLES
from pipeline.cli.export import export
from pipeline.cli.info import EXAMPLES as INFO_EXAMPLES
from pipeline.cli.info import info
from pipeline.cli.models import EXAMPLES as MODELS_EXAMPLES
from pipeline.cli.models import models
from pipeline.cli.presets import EXAMPLES as PRESETS_EXAMPLES
from pipeline.cli.presets import presets
from pipeline.cli.render import EXAMPLES as RENDER_EXAMPLES
from pipeline.cli.render import render
from pipeline.cli.report import EXAMPLES as REPORT_EXAMPLES
from pipeline.cli.report import report
from pipeline.cli.sample import EXAMPLES as SAMPLE_EXAMPLES
from pipeline.cli.sample import sample
from pipeline.cli.terminal import Commands, as_epilog, reporting_errors, start_logging
from pipeline.cli.train import EXAMPLES as TRAIN_EXAMPLES
from pipeline.cli.train import train
from pipeline.cli.verify import EXAMPLES as VERIFY_EXAMPLES
from pipeline.cli.verify import verify

COMMANDS: tuple[tuple[Callable[..., None], tuple[str, ...]], ...] = (
    (encode, ENCODE_EXAMPLES),
    (report, REPORT_EXAMPLES),
    (info, INFO_EXAMPLES),
    (verify, VERIFY_EXAMPLES),
    (render, RENDER_EXAMPLES),
    (compare, COMPARE_EXAMPLES),
    (convert, CONVERT_EXAMPLES),
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
