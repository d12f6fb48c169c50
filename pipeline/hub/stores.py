"""A store as it is pushed: its files, its report, and the card of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_schemas.errors import ReportError, StoreCorruptError, StoreError
from data_schemas.files import wrap_os_errors
from data_schemas.hub import HubPlace
from data_schemas.printable import markdown_text
from data_schemas.stores.contract import SplatStore
from pipeline.documents import report_folder
from pipeline.encode.plan import attribution_path
from pipeline.hub.cards import CARD_FILE, TAGS, card, figures_table, licence_fields, origin_lines, size_category
from pipeline.hub.parcel import Parcel
from pipeline.info import StoreInfo, info_of
from pipeline.report.figures import Report
from pipeline.report.files import JSON_FILE, read_report

MOST_FILES = 20_000
"""More files in one commit may be more than the hub takes at once."""

PANEL_FILE = "panel.png"
_REPORT_FILES = (JSON_FILE, "report.html", PANEL_FILE)


def pack_store(store: SplatStore, place: HubPlace) -> Parcel:
    """Collects what is pushed of a store.

    Args:
        store: on this machine, open and locked: nobody else writes it.
        place: the repository, as the card names it.

    Raises:
        StoreError: it has no finished rows, or cannot be read.
        StoreCorruptError: rows are damaged; every byte is checked.
    """
    path = store.path
    assert isinstance(path, Path)
    if not len(store):
        raise StoreError(f"{path} holds no images", allowed="a store with rows", next_step="encode it first")
    damaged = store.verify_checksums()
    if damaged:
        raise StoreCorruptError(
            f"{path}: {len(damaged):,} rows are damaged, row {damaged[0]} among them",
            rows=damaged,
            allowed="a store whose checksums hold",
            next_step="encode again, which repairs them",
        )
    info = info_of(store, path)
    if not info.done and info.header.gaussians:
        raise StoreError(f"{path} holds no finished image", allowed="a store with splats", next_step="encode it first")
    files, notes = _store_files(path)
    attribution, folder = attribution_path(path), report_folder(path)
    assert isinstance(folder, Path)
    if isinstance(attribution, Path) and attribution.is_file():
        files[attribution.name] = attribution
    report = _report_of(info, folder)
    if report is None:
        notes.append(f"No report of this state of the store is at {folder}: splatspace report {path} makes it")
    else:
        files |= {f"{folder.name}/{name}": folder / name for name in _REPORT_FILES if (folder / name).is_file()}
    if info.failed or info.empty:
        notes.append(f"{info.failed:,} images failed and {info.empty:,} are not encoded yet; the card counts them")
    if len(files) > MOST_FILES:
        notes.append(f"{len(files):,} files in one commit; a store with more --block-rows has fewer")
    files[CARD_FILE] = _store_card(info, report, place, panel=f"{folder.name}/{PANEL_FILE}" in files)
    source = info.header.source
    return Parcel(
        title=f"store {path.name}",
        kind="dataset",
        files=files,
        replaced=(path.name, folder.name, attribution.name),
        licence=source.licence,
        source=source.name,
        notes=tuple(notes),
    )


def _store_files(path: Path) -> tuple[dict[str, Path | bytes], list[str]]:
    """The files of a store by their place beside the card, and what is left out."""
    with wrap_os_errors("read", path):
        if path.is_file():
            return {path.name: path}, []
        found = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
    # A store holds documents and, below c/ of each array, shards; a file browser may have left something of its own.
    own = {place: file for place, file in found.items() if place.name == "zarr.json" or place.parts[1:2] == ("c",)}
    others = [str(place) for place in found if place not in own]
    notes = (
        [f"{len(others):,} files in {path.name} are no part of a store and stay here: {others[0]}"] if others else []
    )
    return {f"{path.name}/{place.as_posix()}": file for place, file in own.items()}, notes


def _report_of(info: StoreInfo, folder: Path) -> Report | None:
    """The report beside a store, where it is one of what the store holds now."""
    try:
        report = read_report(folder)
    except ReportError:
        return None
    same = (report.store.name, report.store.updated, report.images.total) == (
        info.path.name,
        info.header.updated,
        info.rows,
    )
    return report if same else None


def _store_card(info: StoreInfo, report: Report | None, place: HubPlace, *, panel: bool) -> bytes:
    header, path = info.header, info.path
    source = header.source
    title = f"{' '.join(source.name.split())} {'as 2D Gaussians' if header.gaussians else 'in a SplatSpace store'}"
    zarr = path.suffix.lower() == ".zarr"
    fields: dict[str, Any] = {
        **licence_fields(source.licence),
        "pretty_name": title,
        "tags": [*TAGS, "zarr" if zarr else "hdf5"],
        "size_categories": [size_category(info.rows)],
        # Its viewer reads tables, and would fail on the arrays of a store.
        "viewer": False,
    }
    what = (
        f"{header.gaussians} Gaussians for each of {info.done:,} images"
        if header.gaussians
        else f"The pixels of {info.rows:,} images"
    )
    lines = [
        f"# {markdown_text(title)}",
        "",
        f"{what} of {header.width} x {header.height} pixels, as a store of SplatSpace.",
        "",
        *([f"![Images and their splats]({report_folder(path).name}/{PANEL_FILE})", ""] if panel else []),
        *figures_table([*_facts(info), *_quality(info, report)]),
        "",
        "## Where the images come from",
        "",
        *origin_lines(source.model_dump()),
        "",
        "## Use",
        "",
        *_use(info, place, zarr=zarr),
    ]
    return card(fields, lines)


def _facts(info: StoreInfo) -> list[tuple[str, str]]:
    header = info.header
    rows = [("store", info.path.name), ("images", f"{info.rows:,}: {info.done:,} done, {info.failed:,} failed, "
             f"{info.empty:,} not encoded")]  # fmt: skip
    if header.gaussians:
        rows += [
            ("Gaussians an image (K)", str(header.gaussians)),
            ("codec", header.codec),
            ("layout", f"{header.layout}: {' '.join(header.splat_layout.names)}"),
            ("numbers", f"{info.numbers_per_image:,} {header.dtype} an image"),
            ("colours, start, seed", f"{header.colours}, {header.start or '-'}, {header.seed}"),
            ("engine", header.engine or "-"),
        ]
    return [
        *rows,
        ("image size", f"{header.height} x {header.width} x {header.channels} (height, width, channels)"),
        ("source pixels", "in the store" if header.images else "not in the store"),
        ("bytes of the arrays", f"{info.bytes_stored:,}"),
    ]


def _quality(info: StoreInfo, report: Report | None) -> list[tuple[str, str]]:
    if not info.header.gaussians:
        return []
    rows = []
    if info.psnr is not None:
        rows.append(("PSNR of the mean error", f"{info.psnr:.2f} dB"))
    rows.append(("lossless images", f"{info.lossless:,}"))
    if report is None:
        return rows
    quality = report.quality
    named = (("PSNR, mean", quality.mean), ("PSNR, median", quality.median), ("PSNR, 1st percentile", quality.p1))
    rows += [(name, f"{value:.2f} dB") for name, value in named if value is not None]
    if quality.ssim_mean is not None:
        rows.append(("SSIM, mean", f"{quality.ssim_mean:.4f}"))
    return rows


def _use(info: StoreInfo, place: HubPlace, *, zarr: bool) -> list[str]:
    name = info.path.name
    if not zarr:
        return [
            "```", 'pip install "splatspace[hub]"',
            f'hf download {place.repository} "{_quoted(name)}" --repo-type dataset --local-dir .', "```", "",
            "```python", "import splatspace", "",
            f'with splatspace.open_store("{_quoted(name)}") as store:',
            "    rows = store.read(store.arrays, slice(0, 8))", "```", "",
            "Without SplatSpace: "
            f'`xarray.open_dataset("{_quoted(name)}", engine="h5netcdf")`.',
        ]  # fmt: skip
    url = f"{place.url}/{_quoted(name)}"
    return [
        "```", 'pip install "splatspace[hub]"', "```", "",
        "```python", "import splatspace", "",
        f'with splatspace.open_store("{url}") as store:',
        "    rows = store.read(store.arrays, slice(0, 8))", "```", "",
        "Without SplatSpace, with `pip install huggingface_hub xarray zarr`:", "",
        "```python", "import xarray", "",
        f'data = xarray.open_zarr("{url}", consolidated=False)', "```",
    ]  # fmt: skip


def _quoted(name: str) -> str:
    """A name between double quotes in code."""
    return "".join(letter for letter in name if letter.isprintable() and letter not in '"`\\$')
