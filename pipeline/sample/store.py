"""Generated splats as a store, which every command reads that reads encoded ones; and one image of a store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from data_schemas.errors import CheckpointError, StoreError
from data_schemas.files import wrap_os_errors
from data_schemas.locations import resolve_path
from data_schemas.records import RowBlock, RowState, SourceRecord, StoreHeader, content_hash
from data_schemas.splats import Layout
from data_schemas.stores.open import create_store, open_store, require_new
from encoders.decode import decode, decode_with_dead, to_uint8
from pipeline.convert.places import whole_or_absent
from pipeline.finite_splats import require_finite
from pipeline.images import pictures_at_once
from pipeline.render import find_row

if TYPE_CHECKING:
    from pipeline.sample.job import SampleJob
    from pipeline.sample.run import Run

BLOCK_ROWS = 1024


def write_samples(
    run: Run, job: SampleJob, evaluations: int, splats: NDArray[np.float32], labels: NDArray[np.int64], path: Path
) -> None:
    """Writes samples as a store of float32: it holds exactly the numbers that the images show.

    The source record and the settings say that the rows are generated, and by what. There are no source images and
    therefore no PSNR.

    Args:
        run: the generator.
        job: of the sampling.
        evaluations: that were spent on each image.
        splats: float32 [image, gaussian, parameter].
        labels: int64 [image], -1 for none.
        path: of the new store.

    Raises:
        StoreError: it cannot be written.
    """
    header = samples_header(run, job, evaluations)
    write_rows(header, splats, labels, sample_names(len(splats)), path)


def samples_header(run: Run, job: SampleJob, evaluations: int) -> StoreHeader:
    """The header of the store of samples.

    Args:
        run: a generator of splats.
        job: of the sampling.
        evaluations: that are spent on each image.

    Raises:
        CheckpointError: the run says of its data what no store can be.
    """
    try:
        return _header(run, job, evaluations)
    except (ValidationError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{run.path} describes no store that samples could be written to: {reason}",
            allowed="the model.safetensors of splatspace train",
        ) from error


def _header(run: Run, job: SampleJob, evaluations: int) -> StoreHeader:
    config, spec = run.config, run.spec
    assert run.codec is not None
    return StoreHeader(
        codec=run.codec,
        layout=run.splats.layout.name,
        gaussians=spec.gaussians,
        height=spec.height,
        width=spec.width,
        channels=spec.channels,
        dtype="float32",
        images=False,
        colours=config["colours"],
        start=config["store"]["identity"]["start"],
        anchors=spec.anchors,
        engine="generated",
        settings={"generated": generation_record(run, job, evaluations)},
        seed=job.seed,
        source=describe_source(run),
        block_rows=min(BLOCK_ROWS, job.number, pictures_at_once(spec.height, spec.width, spec.channels)),
    )


def sample_names(count: int) -> list[str]:
    """What samples are called in their store."""
    return [f"generated/{index:06d}" for index in range(count)]


def generation_record(run: Run, job: SampleJob, evaluations: int) -> dict[str, Any]:
    """By what the samples were made, for the settings of their store.

    Args:
        run: the generator.
        job: of the sampling.
        evaluations: that were spent on each image.
    """
    config = run.config
    known = None if job.known is None else {"image": job.known.image, "box": job.known.box}
    sketch = None if job.sketch is None else {"file": job.sketch.name, "signal": job.signal}
    return {
        "run": resolve_path(run.path).name,
        "model": config["model"],
        "preset": config["preset"],
        "objective": run.objective.settings.name,
        "step": config.get("step"),
        "sampler": job.sampler or run.objective.settings.sampler,
        "evaluations": evaluations,
        "guidance": job.guidance,
        "label": job.label,
        "seed": job.seed,
        "known": known,
        "sketch": sketch,
    }


def describe_source(run: Run) -> SourceRecord:
    """Where samples come from: what was learned from, with its licence."""
    source = run.config["store"]["source"]
    return SourceRecord(
        name=f"generated after {source['name']}",
        split="generated",
        licence=source.get("licence", ""),
        attribution=source.get("attribution", ""),
        label_names=run.label_names,
    )


def write_rows(
    header: StoreHeader, splats: NDArray[Any], labels: NDArray[np.integer], names: list[str], path: Path
) -> None:
    """Writes finished rows without source images as a new store, which is whole or not there.

    Args:
        header: with ``images`` off.
        splats: [image, gaussian, parameter].
        labels: [image], -1 for none.
        names: of the images.
        path: of the new store.

    Raises:
        StoreError: it is there already or cannot be written, or splats that are not finite.
    """
    layout: Layout = header.splat_layout
    require_new(path)
    with (
        wrap_os_errors("write", path),
        whole_or_absent(path, lock=True) as partial,
        create_store(partial, header) as store,
    ):
        store.append(names)
        for block in range(-(-len(splats) // header.block_rows)):
            span = slice(block * header.block_rows, min((block + 1) * header.block_rows, len(splats)))
            rows = RowBlock.empty(span.stop - span.start, header)
            rows.splats = splats[span].astype(header.dtype)
            decoded, dead = decode_with_dead(
                rows.splats, layout=layout, codec=header.codec, height=header.height, width=header.width
            )
            rows.dead = dead
            rows.label = labels[span].astype(np.int32)
            rows.content_hash = np.stack([content_hash(image) for image in to_uint8(decoded)])
            rows.source_id = np.array(names[span], dtype=object)
            rows.state = np.full(len(rows), RowState.DONE, np.uint8)
            store.write_block(block, rows)
        store.commit()


@dataclass(frozen=True)
class StoredImage:
    """A finished row.

    Attributes:
        splats: float32 [gaussian, parameter].
        header: of its store.
        name: of the image in its source.
        label: -1 for none.
    """

    splats: NDArray[np.float32]
    header: StoreHeader
    name: str
    label: int

    def rendered(self, *, height: int | None = None, width: int | None = None) -> NDArray[np.uint8]:
        """uint8 [row, column, channel], at the size of the store where none is given."""
        header = self.header
        decoded = decode(
            self.splats[None],
            layout=header.splat_layout,
            codec=header.codec,
            height=height or header.height,
            width=width or header.width,
        )
        return to_uint8(decoded)[0]


def read_image(store: str | os.PathLike[str], image: str) -> StoredImage:
    """Reads one image.

    Args:
        store: path or URL.
        image: row or name.

    Raises:
        StoreError: no such image, or it has no splats, or some that are not finite.
    """
    with open_store(store, "r") as opened:
        row = find_row(opened, image)
        content = opened.read(["splats", "label", "state", "source_id"], [row])
        header = opened.header
        if content["state"][0] != RowState.DONE:
            raise StoreError(f"Row {row} of {store} has no splats", allowed="a row that is done")
        require_finite(content["splats"], [row], opened)
    splats = content["splats"][0].astype(np.float32)
    return StoredImage(splats, header, str(content["source_id"][0]), int(content["label"][0]))


def write_image(image: StoredImage, path: Path, *, what: str) -> None:
    """Writes one image as a store of its own, in float32 and without source image.

    Args:
        image: to write.
        path: a new ``.zarr`` or ``.h5``.
        what: was done to it; recorded in the settings.

    Raises:
        StoreError: it is there already or cannot be written.
    """
    header = image.header.model_copy(
        update={
            "dtype": "float32",
            "images": False,
            "gaussians": len(image.splats),
            "settings": {**image.header.settings, "changed": what},
            "block_rows": 1,
            "runs": (),
        }
    )
    write_rows(header, image.splats[None], np.array([image.label]), [image.name], path)
