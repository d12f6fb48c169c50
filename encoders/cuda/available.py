"""Whether this machine can run Triton kernels on a GPU, and if not, what is missing."""

from __future__ import annotations

import os
from functools import lru_cache

from data_schemas.errors import JobError
from encoders.compiled import cache_folder

OLDEST = (7, 5)
"""Compute capability of the oldest GPU that Triton compiles for (Turing, 2018)."""

_ALLOWED = "--engine cuda where torch sees an NVIDIA GPU and Triton is installed (Linux)"
_INSTEAD = "; or give --engine cpu"


def use_cache_folder() -> None:
    """Makes Triton keep what it compiles beside the compiled code of the other engine, unless the user said where."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache_folder().parent.parent / "triton"))


@lru_cache(maxsize=1)
def require_cuda() -> None:
    """Checks torch, the GPU, Triton and the C compiler that Triton calls once.

    Raises:
        JobError: the first thing that is missing, and what to do about it.
    """
    import torch

    if torch.version.cuda is None:
        raise JobError(
            f"Engine 'cuda' needs a torch built for CUDA; this is torch {torch.__version__}",
            allowed=_ALLOWED,
            next_step="install torch without the CPU index (pip install --force-reinstall torch)" + _INSTEAD,
        )
    if not torch.cuda.is_available():
        raise JobError(
            "Engine 'cuda' needs an NVIDIA GPU; torch sees none",
            allowed=_ALLOWED,
            next_step="see whether nvidia-smi lists a GPU, and CUDA_VISIBLE_DEVICES does not hide it" + _INSTEAD,
        )
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST:
        raise JobError(
            f"Engine 'cuda' cannot use {torch.cuda.get_device_name()}: compute capability {capability}",
            allowed=f"compute capability {OLDEST[0]}.{OLDEST[1]} or newer",
            next_step="give --engine cpu",
        )
    use_cache_folder()
    try:
        import triton
    except ImportError:
        raise JobError(
            "Engine 'cuda' needs Triton, which is not installed",
            allowed=_ALLOWED,
            next_step="pip install 'splatspace[gpu]'" + _INSTEAD,
        ) from None
    try:
        # Compiles a small C file on first use: without a compiler or Python's headers it fails here, not in a fit.
        triton.runtime.driver.active.get_current_target()
    except Exception as error:
        raise JobError(
            f"Triton cannot start on this machine: {type(error).__name__}: {error}",
            allowed="a C compiler (gcc or clang) and Python's header files",
            next_step="install them (Debian, Ubuntu: apt install gcc python3-dev)" + _INSTEAD,
        ) from error
