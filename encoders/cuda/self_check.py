"""Whether engine ``cuda`` is right on the GPU that is there: the same small fit on the GPU and on the CPU.

``--engine auto`` asks before it trusts a GPU. The fit runs in a process of its own, since a kernel that fails leaves
CUDA unusable, or the process dead. What it found is kept for this GPU, driver, torch, Triton and state of the sources.

    python -m encoders.cuda.self_check additive/1 3 fused RESULT.json
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from data_schemas.files import write_file
from data_schemas.splats import CodecName, layout_of
from encoders.base import Encoder, FitSettings
from encoders.compiled import cache_folder

logger = logging.getLogger("splatspace.engine")

PARITY_DB = 0.3
"""How far the two engines may be apart in PSNR of the mean error."""

LEAST_DB = 18.0
"""Two fits that fail alike prove nothing."""

SECONDS = 300.0
"""How long a check may take; kernels are compiled in it."""

STEPS = 40

FitPath = Literal["fused", "tiled"]

_SHAPES: dict[FitPath, tuple[int, int, int]] = {"fused": (32, 20, 24), "tiled": (2, 136, 96)}
"""Images, side in pixels and K of the fit that takes each path through the engine (encoders.cuda.slabs)."""


def pictures(count: int, size: int, channels: int) -> NDArray[np.uint8]:
    """Waves of several lengths and a bright disc, uint8 [image, size, size, channel]; the same on every machine."""
    row, column = np.mgrid[:size, :size] / size
    found = np.empty((count, size, size, channels))
    for image in range(count):
        disc = np.hypot(row - 0.3 - 0.01 * (image % 32), column - 0.6) < 0.2
        for channel in range(channels):
            wave = np.sin(2 * math.pi * (row * (1 + image % 3) + column * (1 + channel)) + image)
            found[image, ..., channel] = 0.5 + 0.3 * wave * (1 - row) + 0.2 * disc
    return np.round(255 * found.clip(0, 1)).astype(np.uint8)


def compare(
    codec: CodecName,
    channels: int,
    path: FitPath,
    *,
    device: str = "cuda",
    images: int | None = None,
    steps: int = STEPS,
) -> dict[str, float]:
    """PSNR of the mean error in dB that each engine reaches: {"cpu": ..., "cuda": ...}.

    Args:
        codec: to be fitted.
        channels: 1 or 3.
        path: through the engine.
        device: ``cpu`` only while Triton interprets its kernels.
        images: how many; None takes as many as the path has.
        steps: of the optimiser.
    """
    from encoders.cpu.engine import CpuEncoder
    from encoders.cuda.engine import CudaEncoder
    from encoders.decode import decode, to_uint8
    from encoders.quality import psnr, psnr_of_mean_error

    count, size, gaussians = _SHAPES[path]
    settings = FitSettings(gaussians, steps, codec=codec, start="grid")
    wanted = pictures(images or count, size, channels)

    def reached(encoder: Encoder) -> float:
        splats = encoder.fit(wanted).splats
        decoded = decode(splats, layout=layout_of(codec, channels), codec=codec, height=size, width=size)
        return psnr_of_mean_error(psnr(to_uint8(decoded), wanted))

    return {"cpu": reached(CpuEncoder(settings)), "cuda": reached(CudaEncoder(settings, device=device))}


def fault_of(found: dict[str, Any]) -> str | None:
    """What is wrong with the outcome of a comparison; None where nothing is."""
    cpu, cuda = float(found["cpu"]), float(found["cuda"])
    if not (math.isfinite(cuda) and cpu >= LEAST_DB and abs(cuda - cpu) <= PARITY_DB):
        return f"a fit that reaches {cpu:.2f} dB on the CPU reaches {cuda:.2f} dB on the GPU"
    return None


def fault_on_this_card(settings: FitSettings, height: int, width: int, channels: int) -> str | None:
    """Checks the kernels that images of this kind would take, or remembers an earlier check.

    Args:
        settings: of the fit.
        height: rows of the images.
        width: columns of the images.
        channels: 1 or 3.

    Returns:
        What is wrong, or None. What says nothing about the kernels (no memory left, no time) is not remembered.
    """
    import torch

    from encoders.cuda.slabs import is_fused

    path: FitPath = "fused" if is_fused(settings, height, width) else "tiled"
    asked = {"codec": settings.codec, "channels": channels, "path": path}
    subject = {**asked, **_machine(torch.cuda.get_device_name())}
    name = hashlib.blake2b(json.dumps(subject, sort_keys=True).encode(), digest_size=12).hexdigest()
    kept = cache_folder().parent.parent / "engine-checks" / f"{name}.json"
    found = _remembered(kept)
    if found is None:
        logger.info("checking the kernels of engine cuda on %s, which is done once", subject["card"])
        found, failure = run_check(settings.codec, channels, path)
        if found is None:
            return failure
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_file(kept, json.dumps({**subject, **found}, indent=1).encode())
        except OSError as error:
            logger.debug("the outcome of the check is not kept in %s: %s", kept, error)
    fault = fault_of(found)
    return None if fault is None else f"{fault} (kept in {kept}: delete it to check again)"


def run_check(
    codec: CodecName, channels: int, path: FitPath, *, command: list[str] | None = None, seconds: float = SECONDS
) -> tuple[dict[str, Any] | None, str]:
    """Compares in a process of its own.

    Args:
        codec: to be fitted.
        channels: 1 or 3.
        path: through the engine.
        command: to run instead of this module's own.
        seconds: how long it may take.

    Returns:
        What was reached, or None and what went wrong.
    """
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [*(command or [sys.executable, "-m", __spec__.name]), codec, str(channels), path, str(result)]
        try:
            done = subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return None, f"the check did not end within {seconds:.0f} seconds"
        if done.returncode == 0 and result.is_file():
            return cast(dict[str, Any], json.loads(result.read_text())), ""
    logger.debug("the check said: %s", done.stderr)
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
    return None, f"the check failed with status {done.returncode}: {last.strip()[:300]}"


def _remembered(kept: Path) -> dict[str, Any] | None:
    """An earlier check, where there was one and its file is whole."""
    try:
        found = json.loads(kept.read_text())
        return {"cpu": float(found["cpu"]), "cuda": float(found["cuda"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _machine(card: str) -> dict[str, str]:
    """What the outcome of a check may depend on beside what is fitted."""
    import torch
    import triton

    driver = "unknown"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
        driver = answer[0].strip() if answer else driver
    digest = hashlib.blake2b(cache_folder().name.encode(), digest_size=8)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return {
        "card": card,
        "driver": driver,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "sources": digest.hexdigest(),
    }


def main(arguments: list[str]) -> None:
    """Compares, and writes the outcome to the file named last."""
    codec, channels, path, result = arguments
    found = compare(cast(CodecName, codec), int(channels), cast(FitPath, path))
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
