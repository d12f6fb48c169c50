"""Whether this machine can run gsplat, and if not, what is missing: found out before anything is compiled or fitted.

gsplat is a package of sources: its CUDA kernels are compiled on first use, which takes the CUDA toolkit (nvcc), a C++
compiler and ninja. Without a GPU it cannot render at all. Importing it to see what happens is no test: where nvcc is
there and torch is not built for CUDA, it starts to compile and fails in ways that name no cause.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import shutil
from typing import cast

from data_schemas.errors import JobError
from encoders.autograd.gsplat_tiles import Rasteriser

OLDEST = (1, 5)
"""First version of gsplat that takes many images in one call."""

_ALLOWED = "--engine gsplat where torch sees an NVIDIA GPU, with gsplat 1.5, the CUDA toolkit, a C++ compiler and ninja"
_INSTEAD = "; or give --engine reference, which fits codec over/1 on any machine, slowly"


def missing_for_gsplat() -> JobError | None:
    """The first thing that this machine lacks, as the error to raise; None where nothing is missing.

    Looks at what is installed only: nothing is imported from gsplat, nothing is compiled.
    """
    import torch

    if torch.version.cuda is None:
        return _missing(
            f"a torch built for CUDA; this is torch {torch.__version__}",
            "install torch without the CPU index (pip install --force-reinstall torch)",
        )
    if not torch.cuda.is_available():
        return _missing(
            "an NVIDIA GPU; torch sees none", "see whether nvidia-smi lists a GPU, and CUDA_VISIBLE_DEVICES"
        )
    try:
        version = importlib.metadata.version("gsplat")
    except importlib.metadata.PackageNotFoundError:
        return _missing("the package gsplat", "pip install 'splatspace[gpu]'")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return _missing(f"gsplat {OLDEST[0]}.{OLDEST[1]} or newer; this is {version}", "pip install 'gsplat>=1.5'")
    # gsplat uses it without declaring it.
    if importlib.util.find_spec("packaging") is None:
        return _missing("the package packaging", "pip install packaging")
    if importlib.util.find_spec("gsplat.csrc") is not None:
        return None  # a wheel with compiled kernels
    from torch.utils.cpp_extension import CUDA_HOME, is_ninja_available

    if shutil.which("nvcc") is None and not (CUDA_HOME and os.path.isfile(os.path.join(CUDA_HOME, "bin", "nvcc"))):
        return _missing(
            "nvcc of the CUDA toolkit, to compile its kernels once",
            f"install the CUDA toolkit {torch.version.cuda} and set CUDA_HOME, or a gsplat wheel with compiled kernels",
        )
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return _missing("a C++ compiler, to compile its kernels once", "install one (Debian, Ubuntu: apt install g++)")
    if not is_ninja_available():
        return _missing("ninja, to compile its kernels once", "pip install ninja")
    return None


def load_gsplat() -> Rasteriser:
    """Loads gsplat and its kernels; to compile them takes some minutes the first time on a machine.

    Raises:
        JobError: what is missing, or what the compiler said.
    """
    missing = missing_for_gsplat()
    if missing is not None:
        raise missing
    try:
        kernels = importlib.import_module("gsplat.cuda._backend")._C
        rasteriser = importlib.import_module("gsplat")
    # Compilers, linkers and loaders fail in many ways, and none of them is to end a run without a word.
    except Exception as error:
        raise _broken(f"{type(error).__name__}: {error}") from error
    if kernels is None:
        raise _broken("gsplat found no CUDA toolkit")
    return cast(Rasteriser, rasteriser)


def _missing(what: str, next_step: str) -> JobError:
    return JobError(f"Engine 'gsplat' needs {what}", allowed=_ALLOWED, next_step=next_step + _INSTEAD)


def _broken(reason: str) -> JobError:
    return JobError(
        f"gsplat cannot compile or load its kernels: {reason.strip().splitlines()[0][:500]}",
        allowed="a CUDA toolkit of the major version that torch was built for",
        next_step="run python -c 'from gsplat.cuda._backend import _C' to see all of it" + _INSTEAD,
    )
