"""The cache of compiled code follows the sources."""

import os
import subprocess
import sys

import numpy as np
import pytest

import encoders
from encoders import compiled as compiled_module
from encoders.base import FitSettings
from encoders.compiled import cache_folder, compiled, is_compiled
from encoders.cpu import fit as fit_kernel
from encoders.cpu.engine import CpuEncoder

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


def double(number):
    return 2 * number


def test_whether_a_kernel_is_there_is_known_before_it_is_called(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    cache_folder.cache_clear()
    try:
        kernel = compiled(double)
        assert not is_compiled(kernel)
        assert kernel(2) == 4
        assert is_compiled(kernel)
        assert is_compiled(compiled(double)), "on disk"
    finally:
        cache_folder.cache_clear()


@pytest.mark.parametrize("there", [True, False])
def test_the_wait_for_the_first_kernels_is_told(there, monkeypatch, caplog):
    monkeypatch.setattr(compiled_module, "is_compiled", lambda _kernel: there)
    with caplog.at_level("INFO", "splatspace.engine"):
        CpuEncoder(FitSettings(4, steps=0), workers=1).fit(np.zeros((1, 8, 8, 1), np.uint8))
    assert ("compiled for this machine" in caplog.text) is not there


def test_kernels_are_kept_there():
    assert str(cache_folder()) in fit_kernel.fit_images.stats.cache_path
