"""Compiles what most tests call, so that their processes find it: else each would do so for itself, side by side.

    python -m tests.compile_kernels

The code is kept where the engine keeps it (``encoders.compiled``): a second time this takes as long as the imports.
"""

from __future__ import annotations

import numpy as np
import torch

from data_schemas.splats import ADDITIVE, NORMALISED, CodecName, layout_named
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode_with_dead, to_uint8
from encoders.differentiable.splats import render_differentiable
from encoders.quality import ssim


def compile_kernels() -> None:
    """Fits, decodes, compares and differentiates two tiny images of every kind that data sets have."""
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3), np.uint8)
    kinds: tuple[tuple[str, CodecName], ...] = (("rgb", ADDITIVE), ("rgb", NORMALISED), ("grey", ADDITIVE))
    for name, codec in kinds:
        layout = layout_named(name)
        sources = np.ascontiguousarray(images[..., : layout.channels])
        splats = CpuEncoder(FitSettings(gaussians=6, steps=3, codec=codec), workers=1).fit(sources).splats
        for numbers in (splats.astype(np.float32), splats.astype(np.float16)):
            decoded, _ = decode_with_dead(numbers, layout=layout, codec=codec, height=12, width=12, workers=1)
        ssim(to_uint8(decoded), sources)
        leaves = torch.from_numpy(splats.astype(np.float32)).requires_grad_()
        render_differentiable(leaves, layout, codec, 12, 12, clip=False, workers=1).sum().backward()


if __name__ == "__main__":
    compile_kernels()
