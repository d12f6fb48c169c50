"""Renders splats with gradients: compiled on the CPU, dense torch everywhere else.

``render_differentiable`` has the signature of the oracle ``encoders.render.render``. float32 tensors on the CPU
take the compiled sums of the CPU engine (``encoders.differentiable.splat_sums``), which leave out what lies beyond
``CUT`` or ``NORMALISED_CUT`` standard deviations; other tensors, codec ``over/1`` and an export to ONNX take the
oracle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from data_schemas.errors import JobError, StoreMismatchError, TrainingError
from data_schemas.splats import CODECS, NORMALISED, NORMALISED_EPSILON, OVER, Layout
from encoders.compiled import on_threads, parts_of
from encoders.cpu.decode import GREATEST_RHO, SMALLEST_SIGMA
from encoders.differentiable.splat_sums import draw_back, draw_images
from encoders.render import render

CUT, NORMALISED_CUT = 5.2, 6.0
"""Half-widths of the summed boxes in marginal standard deviations: weights below 2e-6 and 2e-8 are left out. The second
is wider since ``normalised/1`` divides by as little as 1e-3."""


def render_differentiable(
    splats: Tensor,
    layout: Layout,
    codec: str,
    height: int,
    width: int,
    *,
    clip: bool = True,
    workers: int | None = None,
) -> Tensor:
    """Renders splats; every column gets its gradient.

    A sigma below 1e-6 and a rho beyond +-0.999999 are drawn as these bounds and have gradient 0, as under a clamp.

    Args:
        splats: float [image, gaussian, parameter] in ``layout``.
        layout: the columns of ``splats``.
        codec: one of ``CODECS``.
        height: rows of the rendered image.
        width: columns of the rendered image.
        clip: whether to clip to [0, 1] as the codec says. A clip has no gradient beyond white and black: losses want
            the unclipped sum.
        workers: threads of the compiled path; None takes torch's (``torch.set_num_threads``, ``OMP_NUM_THREADS``).
            The result does not depend on it.

    Returns:
        [image, height, width, channel], of the dtype of ``splats``. On the compiled path a view of contiguous
        [image, channel, height, width]: ``permute(0, 3, 1, 2)`` costs nothing.

    Raises:
        StoreMismatchError: an unknown codec, or splats of another shape than the layout's.
        JobError: a size below 1.
        TrainingError: splats on the CPU that are not finite.
    """
    if codec not in CODECS:
        raise StoreMismatchError(f"Codec {codec!r} cannot be rendered", allowed=", ".join(CODECS))
    if splats.ndim != 3 or splats.shape[2] != layout.width:
        raise StoreMismatchError(
            f"Splats of shape {tuple(splats.shape)}",
            allowed=f"[image, gaussian, {layout.width}] for layout {layout.name!r}",
        )
    if height < 1 or width < 1:
        raise JobError(f"Images of {height}x{width} pixels cannot be rendered", allowed="1 or more along each axis")
    if is_compiled(splats, codec):
        image = _compiled(splats, layout, codec == NORMALISED, height, width, workers)
        return image.clamp(0, 1) if clip else image
    if splats.device.type == "cpu" and not is_traced():
        bad = (~torch.isfinite(splats)).any(dim=-1).nonzero()
        if len(bad):
            raise _not_finite(splats, *bad[0].tolist())
    return render(_within_bounds(splats), layout, codec, height, width, clip=clip)


def is_compiled(splats: Tensor, codec: str) -> bool:
    """Whether these splats take the compiled path."""
    return splats.device.type == "cpu" and splats.dtype == torch.float32 and codec != OVER and not is_traced()


def is_traced() -> bool:
    """Whether torch records operations, for ONNX or a compiler, instead of carrying them out alone."""
    # Either way of exporting to ONNX does one of these. To ask torch.onnx itself takes as long as to draw ten images.
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or torch.compiler.is_compiling() or torch.compiler.is_exporting()


def _not_finite(splats: Tensor, image: int, gaussian: int) -> TrainingError:
    return TrainingError(
        f"Gaussian {gaussian} of image {image} of the batch is not finite: {splats[image, gaussian].tolist()}",
        allowed="finite numbers",
        next_step="a lower learning rate, or bounds on what the network may answer",
    )


def _within_bounds(splats: Tensor) -> Tensor:
    sigma = splats[..., :2].clamp_min(SMALLEST_SIGMA)
    rho = splats[..., 2:3].clamp(-GREATEST_RHO, GREATEST_RHO)
    return torch.cat([sigma, rho, splats[..., 3:]], dim=-1)


def _compiled(splats: Tensor, layout: Layout, normalised: bool, height: int, width: int, workers: int | None) -> Tensor:
    cut = NORMALISED_CUT if normalised else CUT
    threads = max(1, workers or torch.get_num_threads())

    def drawn(columns: Tensor, divided: bool) -> Tensor:
        return _Drawing.apply(columns, height, width, cut, divided, threads)

    if not layout.has_alpha:
        return drawn(splats, normalised)
    # The kernels know no opacity: it is a factor of the colours, and the colour of the weight sum.
    geometry, alpha, colours, centre = splats.split([3, 1, layout.channels, 2], dim=-1)
    summed = drawn(torch.cat([geometry, alpha * colours, centre], dim=-1), False)
    if not normalised:
        return summed
    weights = drawn(torch.cat([geometry, alpha, centre], dim=-1), False)
    return summed / (NORMALISED_EPSILON + weights)


class _Drawing(torch.autograd.Function):
    """float32 [image, gaussian, 5 + channel] -> unclipped [image, height, width, channel].

    Arrays of numpy wherever possible: beside the sums of a small batch, operations of torch cost much.
    """

    @staticmethod
    def forward(
        ctx: Any, splats: Tensor, height: int, width: int, cut: float, normalised: bool, threads: int
    ) -> Tensor:
        columns = splats.detach().contiguous()
        batch, count, parameters = columns.shape
        channels = parameters - 5
        images = np.empty((batch, channels, height, width), np.float32)
        scales = np.empty((batch, height * width if normalised else 0), np.float32)
        numbers = columns.numpy(), images, scales
        tag = (1,) * (channels + normalised)

        def part(rows: slice) -> None:
            sizes = (rows.stop - rows.start, count, channels, height, width)
            given = (array[rows].reshape(-1) for array in numbers)
            image, gaussian = draw_images(*given, sizes, np.float32(cut), np.float32(NORMALISED_EPSILON), tag)
            if image >= 0:
                raise _not_finite(columns, rows.start + image, gaussian)

        on_threads(part, parts_of(batch, threads), threads)
        drawn = torch.from_numpy(images.transpose(0, 2, 3, 1))
        # Additive gradients do not depend on the image.
        ctx.save_for_backward(columns, *([drawn] if normalised else []))
        ctx.others = scales, cut, tag, threads
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        columns, *drawn = (tensor.numpy() for tensor in ctx.saved_tensors)
        scales, cut, tag, threads = ctx.others
        pulled = pulls[0].numpy()
        batch, height, width, channels = pulled.shape
        images = drawn[0].transpose(0, 3, 1, 2) if drawn else scales
        strides = 1, width * channels, channels
        if not pulled.flags.c_contiguous:
            # Losses come with either order of memory: both are read as they are.
            pulled = np.ascontiguousarray(pulled.transpose(0, 3, 1, 2))
            strides = height * width, width, 1
        gradients = np.empty(columns.shape, np.float32)
        numbers = columns, images, scales, pulled, gradients

        def part(rows: slice) -> None:
            sizes = (rows.stop - rows.start, columns.shape[1], channels, height, width)
            draw_back(*(array[rows].reshape(-1) for array in numbers), sizes, strides, np.float32(cut), tag)

        on_threads(part, parts_of(batch, threads), threads)
        return torch.from_numpy(gradients), None, None, None, None, None
