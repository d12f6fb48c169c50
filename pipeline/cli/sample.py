"""``splatspace sample``: images, a grid and a store from a trained generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from data_schemas.errors import JobError
from pipeline.cli.job_options import After, options_from
from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import numbers_of, print_json, say, warn
from pipeline.format import format_psnr
from pipeline.options import DeviceOption
from pipeline.sample.job import KnownPart, SampleJob, StoreSuffix

SAMPLE_EXAMPLES = (
    "splatspace sample runs/sprites -n 64 --out samples",
    "splatspace sample runs/mnist -n 100 --out sevens --label 7 --guidance 2 --size 512",
    "splatspace sample runs/sprites -n 2 --out between --interpolate 0,1 --gif",
    "splatspace sample runs/sprites -n 1 --out ways --gif --beside runs/pixels",
    "splatspace sample runs/sprites -n 16 --out filled --inpaint sprites.zarr:12 --box 0,0,16,32",
    "splatspace sample runs/sprites -n 16 --out painted --recolour sprites.zarr:12",
    "splatspace sample runs/pixels -n 64 --out composed --splats",
    "splatspace sample runs/pixels -n 2 --out larger --splats --gaussians 300 --size 512 --interpolate 0,1",
    "splatspace sample runs/cats -n 16 --out cats --anatomy --size 512",
    "splatspace sample runs/cats -n 8 --out drawn --sketch sketch.png --signal 0.25",
)


@options_from(SampleJob, DeviceOption)
def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a training, its model.safetensors, or hf://USER/NAME.")],
    out: Path,
    *,
    number: int = 64,
    interpolate: str | None = None,
    inpaint: Annotated[
        str | None,
        typer.Option(metavar="STORE:IMAGE", help="Image to keep outside of --box, by row or name (inpainting)."),
        After("interpolate"),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Box that is drawn again: left, top, right, bottom in pixels."),
        After("inpaint"),
    ] = None,
    recolour: Annotated[
        str | None,
        typer.Option(metavar="STORE:IMAGE", help="Image whose geometry is kept and whose colours are drawn again."),
        After("box"),
    ] = None,
    beside: Annotated[
        Path | None,
        typer.Option(help="With --gif: a run of train pixels, shown beside the splats."),
        After("gif"),
    ] = None,
    hdf5: Annotated[
        bool, typer.Option("--hdf5", help="Write samples.h5 instead of samples.zarr."), After("beside")
    ] = False,
    device: str = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    **options: Any,
) -> None:
    """Generates images: a PNG each, all of them in a grid, and their splats as a store."""
    if inpaint is not None and recolour is not None:
        raise JobError("--inpaint with --recolour", allowed="one of them")
    if (inpaint is None) != (box is None):
        raise JobError("--inpaint and --box only work together", allowed="both or neither")
    known = None
    if inpaint is not None and box is not None:
        left, top, right, bottom = numbers_of("--box", box, 4)
        known = KnownPart(*_place("--inpaint", inpaint), box=(left, top, right, bottom))
    elif recolour is not None:
        known = KnownPart(*_place("--recolour", recolour))
    ends = None
    if interpolate is not None:
        first, second = numbers_of("--interpolate", interpolate, 2)
        if first % 1 or second % 1:
            raise JobError(f"--interpolate {interpolate}", allowed="two whole numbers, as in 0,1")
        ends = int(first), int(second)
    suffix: StoreSuffix = ".h5" if hdf5 else ".zarr"
    job = SampleJob(out, number=number, known=known, interpolate=ends, suffix=suffix, **options)
    # Imports that take a second come after the options have been checked.
    from pipeline.sample.run import load_run
    from pipeline.sample.sample import sample as run_sample

    loaded = load_run(run, device=device)
    other = None if beside is None else load_run(beside, device=device)
    with count_progress("sample") as progress:
        done = 0

        def count(images: int) -> None:
            nonlocal done
            done += images
            progress(done, number)

        result = run_sample(loaded, job, progress=count, beside=other)
    for note in result.notes:
        warn(f"Note: {note}")
    if as_json:
        print_json(dataclasses.asdict(result))
        return
    say(f"{number:,} images in {result.seconds:.2f} s: {out}")
    say(f"grid:  {result.grid}")
    if result.store is not None:
        say(f"store: {result.store}")
    fit = result.fit
    if fit is not None:
        quality = format_psnr(fit.psnr) + ("" if fit.psnr is None else " of the mean error")
        say(f"fit:   {fit.gaussians} Gaussians by engine {fit.engine}, {quality} against the sampled pixels,")
        say(f"       {fit.seconds:.2f} s while sampling went on")
    for path in (result.pixels, result.strip, *result.gifs, *result.anatomy):
        if path is not None:
            say(f"also:  {path}")


def _place(option: str, text: str) -> tuple[str, str]:
    """Store and image; a URL holds colons of its own, so the last one counts."""
    store, colon, image = text.rpartition(":")
    if not colon or not store or not image:
        raise JobError(f"{option} {text}", allowed="STORE:IMAGE, as in sprites.zarr:12")
    return store, image
