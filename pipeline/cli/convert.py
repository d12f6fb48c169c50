"""``splatspace convert``: between stores and published layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import MOST_NAMED, print_json, say, warn
from pipeline.format import list_names

CONVERT_EXAMPLES = (
    "splatspace convert sprites.zarr sprites.h5",
    "splatspace convert gaussian_representations/ mnist.zarr",
    "splatspace convert sprites.zarr published.h5 --to hdf5-rotated",
    "splatspace convert published.h5 sprites.zarr --size 32 --images sprites --data-dir data/sprites",
)

LayoutName = Literal["zarr", "hdf5", "torch-folder", "hdf5-rotated", "hdf5-stamp", "hdf5-columnar"]


def convert(
    src: Annotated[str, typer.Argument(help="A store or its URL, or a file or folder of a published layout.")],
    dst: Annotated[str, typer.Argument(help="What to make: .zarr, .h5, a folder, or the URL of a .zarr.")],
    source_layout: Annotated[
        LayoutName | None, typer.Option("--from", help="Layout of SRC. Default: by content.")
    ] = None,
    target_layout: Annotated[LayoutName | None, typer.Option("--to", help="Layout of DST. Default: by suffix.")] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="Image size in pixels a side, where SRC does not say it.")
    ] = None,
    gaussians: Annotated[
        int | None, typer.Option(min=1, help="K that every image must have. Default: as most images have.")
    ] = None,
    kernel_size: Annotated[int | None, typer.Option(min=2, help="Stamp size in pixels of stamp layouts.")] = None,
    alpha: Annotated[
        Literal["ignored", "folded"], typer.Option(help="Opacity of stamp layouts: ignored, or folded into the colour.")
    ] = "ignored",
    stamp: Annotated[
        Literal["fitted", "centres"], typer.Option(help="Read stamps as they are drawn, or as they are written.")
    ] = "fitted",
    pixel_centre: Annotated[
        Literal["integer", "half"], typer.Option(help="Where the rotated layout has the centre of pixel j.")
    ] = "integer",
    angle: Annotated[
        Literal["up", "down"], typer.Option(help="In which sense a rotation of the rotated layout turns.")
    ] = "up",
    saturation: Annotated[
        Literal["clamp", "soft"] | None, typer.Option(help="How sums of a columnar file become pixels.")
    ] = None,
    key_prefix: Annotated[
        Literal["sprite", "img"], typer.Option(help="Name of the groups of the rotated layout.")
    ] = "img",
    images: Annotated[
        str | None, typer.Option(help="The data set that SRC was fitted to, in its order: gives pixels and PSNR.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the files of --images.")] = None,
    split: Annotated[Literal["train", "test", "all"] | None, typer.Option(help="Split of --images.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing DST.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Converts between zarr, HDF5 and the published layouts; axes, signs and conventions are converted too.

    Images that cannot be converted (wrong K, not finite) stay as failed rows and are named.
    """
    from data_schemas.errors import JobError
    from data_schemas.published_layouts import ConversionOptions
    from pipeline.convert.convert import convert as run
    from pipeline.encode.presets import preset_for
    from pipeline.sources import open_source

    if images is None and (data_dir is not None or split is not None):
        raise JobError("--data-dir or --split without --images", allowed="both together with --images DATASET")
    source = None
    if images is not None:
        source = open_source(images, data_dir=data_dir, split=split or preset_for(images).split, size=None)
    options = ConversionOptions(
        image_size=None if size is None else (size, size),
        gaussians=gaussians,
        kernel_size=kernel_size,
        alpha=alpha,
        stamp=stamp,
        pixel_centre=pixel_centre,
        angle=angle,
        saturation=saturation,
        key_prefix=key_prefix,
    )
    with count_progress("convert") as progress:
        summary = run(
            src,
            dst,
            source_layout=source_layout,
            target_layout=target_layout,
            options=options,
            images=source,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(summary.as_dict())
    else:
        height, width = summary.image_size
        say(
            f"{summary.source_layout} -> {summary.target_layout}: {summary.done:,} of {summary.rows:,} images, "
            f"{summary.gaussians or 'no'} Gaussians each, {height} x {width} pixels: {dst}"
        )
        for note in summary.notes:
            say(note)
    if summary.empty:
        warn(f"Warning: {summary.empty:,} rows of {src} were never encoded")
    if summary.unread_labels:
        told = [f"{name} ({label})" for name, label in summary.unread_labels]
        named = list_names(told, most=MOST_NAMED, by=";")
        warn(f"Warning: {len(told):,} labels are no class numbers and are left out (-1): {named}")
    if summary.failed:
        names = [f"{name} ({reason})" for name, reason in summary.failed]
        named = list_names(names, most=MOST_NAMED, by=";")
        warn(f"Warning: {len(names):,} of {summary.rows:,} images could not be converted: {named}")
