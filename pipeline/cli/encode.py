"""``splatspace encode`` and ``splatspace presets``: images to a store and its report; the named data sets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from pipeline.cli.job_options import options_from
from pipeline.cli.progress_bar import download_progress, encode_progress
from pipeline.cli.terminal import MOST_NAMED, print_json, say, stdout, stop_on_signal, warn
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.presets import PRESETS
from pipeline.format import format_duration, list_counts, list_names

ENCODE_EXAMPLES = (
    "splatspace encode demo --out demo.zarr",
    "splatspace encode mnist --out mnist.h5 --split test --limit 1000",
    "splatspace encode sprites --data-dir data/sprites --out sprites.zarr",
    "splatspace encode photos/ --size 64 --gaussians 300 --out photos.zarr",
    "splatspace encode sprites --out sprites.zarr --compute dask --workers 8",
    "splatspace encode cifar10 --out cifar10.zarr --codec normalised --target-psnr 40 --dry-run",
)


@options_from(EncodeJob)
def encode(
    dataset: str,
    out: str,
    *,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write NAME-report/report.html beside the store.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with code 1 if any image failed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved job and what it would do as JSON; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    **options: Any,
) -> None:
    """Fits exactly K Gaussians to every image and writes a store and its PSNR report.

    Run again, it continues: images that are done are kept, new ones are added, failed ones are tried again.
    """
    job = resolve_job(dataset, out, **options)
    if dry_run:
        print_json(_describe_plan(job))
        return
    # Imports that take a second come after the options have been checked.
    from data_schemas.stores.open import open_store
    from pipeline.encode.run import encode as run

    with stop_on_signal() as should_stop, encode_progress() as progress, download_progress() as downloading:
        summary = run(job, progress=progress, should_stop=should_stop, downloading=downloading)
    built = None
    if report and job.gaussians != 0:
        from pipeline.documents import report_folder
        from pipeline.report.build import build_report

        with open_store(summary.store, "r") as store:
            built = build_report(store, report_folder(summary.store))
        summary = summary.model_copy(update={"report": built.html_path})
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        if built is not None:
            from pipeline.report.terminal import report_table

            stdout().print(report_table(built.report))
        counts = {
            "stored" if job.gaussians == 0 else "fitted": summary.fitted,
            "copied from identical images": summary.reused,
            "kept": summary.kept,
            "changed": summary.changed,
            "tried again": summary.retried,
            "repaired": summary.repaired,
            "failed": len(summary.failed),
            "no longer in the source (rows kept)": summary.removed,
            "repeats left out": summary.removed_duplicates,
            "other files left out": summary.left_out,
        }
        say(f"{summary.images:,} images in {format_duration(summary.wall_seconds)}: {list_counts(counts)}")
        say(f"store:  {summary.store}")
        if summary.attribution is not None:
            say(f"credit: {summary.attribution}")
        if built is not None:
            say(f"report: {built.html_path}")
        elif job.gaussians == 0:
            say("report: none, the store holds images only")
    if summary.failed:
        names = [f"{image.source_id} ({image.reason})" for image in summary.failed]
        named = list_names(names, most=MOST_NAMED, by=";")
        warn(f"Warning: {len(names):,} of {summary.images:,} images failed: {named}")
        if strict or not summary.rows_done:
            raise typer.Exit(1)


def _describe_plan(job: EncodeJob) -> dict[str, Any]:
    """The resolved job and its plan; nothing is fetched or written."""
    from pipeline.encode.plan import plan_encode

    looked = job.model_copy(update={"download": False})
    if job.refine != "none":
        # It brings much linear algebra, which a job without a second fit does not load.
        from pipeline.encode.refine import with_regression

        looked = with_regression(looked, learn=False)
    plan = plan_encode(looked, write=False)
    content = plan.model_dump(mode="json", exclude={"job": True, "blocks": True, "header": {"anchors", "runs"}})
    resolved = plan.job.model_copy(update={"download": job.download})
    return {"job": resolved.model_dump(mode="json"), "plan": {**content, "blocks": len(plan.blocks)}}


PRESETS_EXAMPLES = ("splatspace presets", "splatspace presets --json")


def presets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Lists the named data sets and what is assumed for each."""
    if as_json:
        print_json({name: dataclasses.asdict(preset) for name, preset in PRESETS.items()})
        return
    table = Table(box=box.SIMPLE, pad_edge=False, caption_justify="left")
    for column in ("dataset", "size", "K", "steps", "split"):
        table.add_column(column, justify="right" if column in ("K", "steps") else "left", no_wrap=True)
    table.add_column("what", overflow="fold")
    for preset in PRESETS.values():
        table.add_row(
            preset.name,
            f"{preset.height}x{preset.width}x{preset.channels}",
            str(preset.gaussians),
            str(preset.steps),
            preset.split,
            preset.title,
        )
    stdout().print(table)
    say("Codec, start, colours and type of each: splatspace presets --json")
