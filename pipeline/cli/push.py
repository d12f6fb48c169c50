"""``splatspace push``: a store or a run into a repository of the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from pipeline.cli.terminal import print_json, say, warn

PUSH_EXAMPLES = (
    "splatspace push demo.zarr hf://datasets/USER/demo --dry-run",
    "splatspace push demo.zarr hf://datasets/USER/demo --private",
    "splatspace push runs/sprites hf://USER/sprites-splats",
)


def push(
    what: Annotated[
        str, typer.Argument(metavar="STORE|RUN", help="A .zarr or .h5 store, or the folder of a training.")
    ],
    url: Annotated[str, typer.Argument(help="hf://datasets/USER/NAME for a store, hf://USER/NAME for a run.")],
    private: Annotated[bool, typer.Option("--private", help="Make a repository that only its owners see.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier push left there; other files stay.")
    ] = False,
    licence_ok: Annotated[
        bool,
        typer.Option("--licence-ok", help="Push although the source states no licence: you answer for it."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show files and card, and send nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Pushes a store or a run to the Hugging Face Hub.

    With a card, and in one commit. Needs the extra "hub"; the token is that of `hf auth login`, or HF_TOKEN.
    """
    from pipeline.hub.push import push as run

    found = run(what, url, private=private, overwrite=overwrite, licence_ok=licence_ok, dry_run=dry_run)
    for note in found.notes:
        warn(f"Note: {note}")
    if as_json:
        print_json(
            {
                "url": found.url,
                "kind": found.kind,
                "commit": found.commit,
                "bytes": found.bytes,
                "files": found.files,
                "removed": list(found.removed),
                "card": found.card,
            }
        )
        return
    if found.commit is None:
        for name, files, size in _by_folder(found.files):
            say(f"{size:>15,} bytes  {name}" + (f"/ ({files:,} files)" if files > 1 else ""))
        say("")
        for line in found.card.splitlines():
            say(line)
        say("")
        say(f"would push {len(found.files):,} files, {found.bytes:,} bytes: {found.url}")
        return
    say(f"{len(found.files):,} files, {found.bytes:,} bytes: {found.url}")
    if found.removed:
        say(f"removed {len(found.removed):,} files of an earlier push")
    say(f"commit: {found.commit}")


def _by_folder(sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """What stands at the top of the repository: name, files in it, bytes of them."""
    found: dict[str, tuple[int, int]] = {}
    for path, size in sizes.items():
        top = path.partition("/")[0]
        files, held = found.get(top, (0, 0))
        found[top] = files + 1, held + size
    return [(name, files, size) for name, (files, size) in sorted(found.items())]
