"""The command line ``splatspace``: one file for each command, one line each in the table of ``pipeline.cli.app``."""

from pipeline.cli.app import app, main

__all__ = ["app", "main"]
