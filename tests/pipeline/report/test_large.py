from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FEW, ALL, MILLION = 6_000, 81_648, 1_000_000
"""Images of a large set, of the whole Sprites set, and of a very large one."""

PROGRAM = """
import json, resource, sys, time
from datetime import UTC, datetime
from pathlib import Path
import numpy as np
from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.stores.contract import ARRAYS, SplatStore

def peak_bytes():
    # Linux counts the parent's pages into ru_maxrss of a process that it starts; VmHWM begins again.
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


IMAGES = int(sys.argv[1])


class SyntheticStore:
    '''Makes rows when they are read, and counts how many rows of splats and pixels are asked for at once.'''

    path = Path("synthetic.zarr")
    arrays = ARRAYS
    nbytes_stored = {"splats": 100_000_000, "image": 90_000_000}
    header = StoreHeader(
        codec="additive/1", layout="rgb", gaussians=150, height=32, width=32, channels=3, dtype="float16",
        start="grid", engine="cpu", source=SourceRecord(name="synthetic", label_names=tuple("abcdefgh")),
        created=datetime(2025, 1, 1, tzinfo=UTC), updated=datetime(2025, 1, 1, tzinfo=UTC),
    )
    most_rows = 0
    finished_rows = SplatStore.finished_rows

    def __len__(self):
        return IMAGES

    def read(self, names, rows=slice(None)):
        numbers = np.arange(IMAGES)[rows] if isinstance(rows, slice) else np.asarray(rows)
        if {"splats", "image"} & set(names):
            self.most_rows = max(self.most_rows, len(numbers))
        return {name: getattr(self, "_" + name)(numbers) for name in names}

    def _psnr(self, n): return (45 + 5 * np.sin(n)).astype(np.float32)
    def _ssim(self, n): return np.full(len(n), 0.99, np.float32)
    def _label(self, n): return (n % 8).astype(np.int32)
    def _steps(self, n): return np.full(len(n), 400, np.int32)
    def _dead(self, n): return (n % 5).astype(np.int32)
    def _state(self, n): return np.where(n % 1000 == 999, 2, 1).astype(np.uint8)
    def _source_id(self, n): return np.array([f"{i:06d}.png" for i in n], dtype=object)
    def _failure(self, n): return np.array(["broken"] * len(n), dtype=object)
    def _content_hash(self, n):
        keys = np.zeros((len(n), 16), np.uint8)
        keys.view("<u8")[:, 0] = n + 1
        return keys

    def _splats(self, n): return np.stack([np.random.default_rng(i).uniform(0.05, 0.9, (150, 8)) for i in n])
    def _image(self, n): return np.stack([np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8) for i in n])


from pipeline.report import build_report

store = SyntheticStore()
start = time.process_time()
report = build_report(store, sys.argv[2]).report
print(json.dumps({
    "seconds": time.process_time() - start,
    "peak_bytes": peak_bytes(),
    "done": report.images.done, "failed": len(report.failed), "most_rows": store.most_rows,
    "sample": report.predictability.images,
    "page_bytes": Path(sys.argv[2], "report.html").stat().st_size,
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("images", [FEW, *(pytest.param(images, marks=pytest.mark.soak) for images in (ALL, MILLION))])
def test_a_large_set_in_30_seconds_and_one_gigabyte(images: int, repository: Path, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(images), str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    failed = images // 1000
    assert (measured["done"], measured["failed"], measured["sample"]) == (images - failed, failed, 2000)
    assert measured["most_rows"] <= 256  # streams: never all splats or pixels at once
    assert measured["peak_bytes"] < (1e9 if images <= ALL else 2e9), measured
    assert measured["seconds"] < (30 if images <= ALL else 60), measured
    assert measured["page_bytes"] <= 5_000_000
