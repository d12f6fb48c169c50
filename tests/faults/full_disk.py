"""Encodes on a small disk until it is full, then on one with more room: a script for a mount namespace of its own.

    unshare --mount python -m tests.faults.full_disk FOLDER h5

In the namespace a small tmpfs is mounted at FOLDER/disk, which nobody else sees and which ends with the process. What
the finished store holds is copied to FOLDER/filled.SUFFIX.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_schemas.errors import StoreError
from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, pictures, run

IMAGES, SIDE = 120, 24
SIZES = {"zarr": ("24k", "480k", "640k", "800k"), "h5": ("24k", "160k", "320k", "480k")}
"""Of the disk, one after the other; every one is too small."""


def mount(folder: Path, *options: str) -> None:
    """Mounts a tmpfs or changes it."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], check=True)


def source() -> ArrayImages:
    """Images that no compression makes smaller."""
    return ArrayImages(pictures(IMAGES, side=SIDE))


def main(folder: Path, suffix: str) -> dict[str, Any]:
    """Tells of each try: the error, and how many rows are done."""
    disk = folder / "disk"
    disk.mkdir()
    mount(disk, f"size={SIZES[suffix][0]}")
    path = disk / f"a.{suffix}"
    told: list[dict[str, Any]] = []
    for size in (*SIZES[suffix], "64m"):
        mount(disk, "remount", f"size={size}")
        encoder = SamplingEncoder()
        error = ""
        try:
            run(path, source(), encoder)
        except StoreError as caught:
            error = str(caught)
        rows = 0
        if path.exists():
            with open_store(path) as store:
                rows = int((store.read(["state"])["state"] == RowState.DONE).sum())
                if store.verify_checksums():
                    raise SystemExit("bad bytes after a full disk")
        told.append({"size": size, "error": error, "done": rows, "fitted": encoder.fitted})
    copy = folder / f"filled.{suffix}"
    shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    return {"tries": told, "left": sorted(entry.name for entry in disk.iterdir())}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2])) + "\n")
