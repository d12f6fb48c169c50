"""The cache of compiled code follows the sources."""

import os
import subprocess
import sys

import pytest

import encoders
from encoders.compiled import cache_folder
from encoders.cpu import fit as fit_kernel

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from encoders.compiled import compiled, cache_folder
from encoders.quality import ssim
import numpy as np
ssim(np.zeros((1, 8, 8, 1), np.uint8), np.zeros((1, 8, 8, 1), np.uint8))
print(cache_folder(), len(list(cache_folder().rglob("*.nbi"))))
"""


@pytest.mark.slow
def test_another_source_gets_another_cache(tmp_path):
    import shutil
    from pathlib import Path

    import data_schemas

    for package in (encoders, data_schemas):
        folder = Path(str(package.__file__)).parent
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run():
        command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.split()

    folder, files = run()
    assert folder.startswith(str(tmp_path / "cache"))
    assert int(files) == 1
    assert run() == [folder, files]
    with (tmp_path / "encoders" / "vector.py").open("a") as source:
        source.write("\n# changed\n")
    assert run()[0] != folder


def test_kernels_are_kept_there():
    assert str(cache_folder()) in fit_kernel.fit_images.stats.cache_path
