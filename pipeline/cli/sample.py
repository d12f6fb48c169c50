"""``splatspace sample``: pictures, a grid and a store from a trained generator."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from data_schemas.errors import JobError
from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import print_json, say, warn

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


def sample(
    run: Annotated[Path, typer.Argument(help="Folder of a training, or its model.safetensors.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the PNGs, grid.png and samples.zarr.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Number of images.")] = 64,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="Number of function evaluations (NFE) per image. Default: the objective's."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Sampler: dpmpp-2m, heun, euler, ddim or ancestral. Default: the objective's.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Size of the longer side in pixels. Default: as trained.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Class by name or number, all (each equally often, the default) or none.")
    ] = None,
    guidance: Annotated[float, typer.Option(min=0, help="Strength of classifier-free guidance; 1 for none.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed; image i follows from it and from i.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Number of images at once.")] = 64,
    interpolate: Annotated[
        str | None, typer.Option(metavar="I,J", help="Number of images between two samples, in interpolation.png.")
    ] = None,
    inpaint: Annotated[
        str | None,
        typer.Option(metavar="STORE:IMAGE", help="Image to keep outside of --box, by row or name (inpainting)."),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="Box that is drawn again: left, top, right, bottom in pixels."),
    ] = None,
    recolour: Annotated[
        str | None,
        typer.Option(metavar="STORE:IMAGE", help="Image whose geometry is kept and whose colours are drawn again."),
    ] = None,
    sketch: Annotated[
        Path | None, typer.Option(help="Init image to begin with instead of pure noise; generators of pixels only.")
    ] = None,
    signal: Annotated[float, typer.Option(help="Fraction of the init image in what sampling begins with.")] = 0.25,
    anatomy: Annotated[
        bool,
        typer.Option(
            "--anatomy", help="Write visualisations of how a patch model makes images: roll-out, seams, parts."
        ),
    ] = False,
    splats: Annotated[
        bool, typer.Option("--splats", help="Fit Gaussians to what a generator of pixels draws and write samples.zarr.")
    ] = False,
    gaussians: Annotated[
        int | None,
        typer.Option(
            "--gaussians",
            "-k",
            help="With --splats: Gaussians per image. Default: as in the store that was learned from.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="With --splats: optimiser steps of the fit. Default: as in that store.")
    ] = None,
    gif: Annotated[bool, typer.Option("--gif", help="Write forward.gif and sampling.gif of the first image.")] = False,
    beside: Annotated[
        Path | None, typer.Option(help="With --gif: a run of train pixels, shown beside the splats.")
    ] = None,
    hdf5: Annotated[bool, typer.Option("--hdf5", help="Write samples.h5 instead of samples.zarr.")] = False,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Generates images: a PNG each, all of them in a grid, and their splats as a store."""
    from pipeline.cli.terminal import numbers_of
    from pipeline.sample.job import KnownPart, SampleJob

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
    job = SampleJob(
        out=out,
        number=number,
        evaluations=evaluations,
        sampler=sampler,
        size=size,
        label=label,
        guidance=guidance,
        seed=seed,
        batch=batch,
        known=known,
        sketch=sketch,
        signal=signal,
        anatomy=anatomy,
        interpolate=ends,
        gif=gif,
        suffix=".h5" if hdf5 else ".zarr",
        splats=splats,
        gaussians=gaussians,
        steps=steps,
    )
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
        quality = "lossless" if fit.psnr is None else f"{fit.psnr:.2f} dB of the mean error"
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
