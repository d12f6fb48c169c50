"""Importing this module loads the compiled code: a fork of a process that has done so starts at full speed."""

import tempfile
from pathlib import Path

from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode

with tempfile.TemporaryDirectory() as _folder:
    encode(resolve_job("demo", Path(_folder, "warm.h5"), limit=1, steps=1, gaussians=4, workers=1))
