"""``splatspace compare``: two stores of the same images side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terminal import print_json, stdout

EXAMPLES = ("splatspace compare grid.zarr transport.zarr", "splatspace compare a.zarr b.h5 --json")


def compare(
    a: Annotated[str, typer.Argument(help="The store to compare with.")],
    b: Annotated[str, typer.Argument(help="The store in question: differences are B minus A.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Compares PSNR, SSIM, cost and size of two stores on the images that both hold."""
    from data_schemas.stores import open_store
    from pipeline.compare import compare_stores
    from pipeline.comparison_table import comparison_table

    with open_store(a, "r") as first, open_store(b, "r") as second:
        found = compare_stores(first, second)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        stdout().print(comparison_table(found))
