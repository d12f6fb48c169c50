"""The whole fit of an image in one Triton program: one warp, one launch, all steps.

Per step: factors of all Gaussians, the rendering and its residual (lanes are pixels), a barrier, then for every group
of Gaussians their moments and a step of Adam (lanes are Gaussians), and a barrier. What an image needs lies in a
record of its own in global memory, where the caches keep it. No atomics, and every sum in a fixed order: the same
bytes again. A launch may stop after any step and another go on, which changes no bit.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
from __future__ import annotations

import triton
import triton.language as tl

from encoders.cuda.moves import adam, reseed
from encoders.cuda.sums import (
    DERIVED,
    SLANT_0,
    UPRIGHT_0,
    derive,
    forward,
    gather,
)
from encoders.frame import COLOUR

_COLOUR = tl.constexpr(COLOUR)
_DERIVED = tl.constexpr(DERIVED)


def record_size(channels: int, normalised: bool, room: int, height: int, stride: int) -> int:
    """Numbers of one image's record in ``fit_images``, a multiple of 32."""
    tables = 4 * (COLOUR + channels) * room + DERIVED * room
    planes = (channels + normalised + 1) * height * stride
    return -(-tables // 32) * 32 + -(-planes // 32) * 32


@triton.jit(do_not_specialize=["steps", "until", "tail", "reseed_every", "reseed_until"])
def fit_images(
    target,
    records,
    least,
    taken,
    running,
    rates,
    steps,
    until,
    tail,
    reseed_every,
    reseed_until,
    enough,
    epsilon,
    keep1,
    keep2,
    tiny,
    margin,
    least_log,
    greatest_log,
    greatest_slope,
    reach,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    BOUNDED: tl.constexpr,
    RESEEDS: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    TOGETHER: tl.constexpr,
    STRIP: tl.constexpr,
    STRIPS: tl.constexpr,
    RUN: tl.constexpr,
):
    """Fits image ``program_id``.

    Args:
        target: uint8 [image, CHANNELS, HEIGHT, STRIDE], columns from ``WIDTH`` on unused.
        records: float32 [image, record_size(...)]. Tables [5 + CHANNELS, ROOM] of the parameters (encoders.frame; from
            ``COUNT`` on x = -1e4 and colours 0), of the best iterate, of Adam's mean and mean square (zeros before the
            first step); then scratch.
        least: float32 [image], half the sum of squared residuals of the best iterate; infinite before the first step.
        taken: int32 [image], optimiser steps taken.
        running: int32 [image], 1 until the image is finished.
        rates: float32 [step, 3], steps of centre, shape and colour.
        steps: most optimiser steps.
        until: the launch ends before the optimiser step of this number, or when the image is finished.
        tail: from this step on the best iterate is kept.
        reseed_every: move dark Gaussians every so many steps.
        reseed_until: and not after this step.
        enough: stop an image at this half sum of squares.
        epsilon: floor of the weight sum (normalised only).
        keep1: Adam's decay of the mean.
        keep2: Adam's decay of the mean square.
        tiny: floor of Adam's denominator.
        margin: how far outside the image a centre may lie, in pixels.
        least_log: least log factor.
        greatest_log: greatest log factor.
        greatest_slope: greatest |b / c|.
        reach: how far a dark Gaussian is moved at most, in pixels along either axis.
        CHANNELS: 1 or 3.
        NORMALISED: whether sums are divided by the summed weights.
        BOUNDED: whether colours are held in [0, 1].
        RESEEDS: whether dark Gaussians are moved.
        COUNT: K.
        ROOM: K rounded up to a multiple of ``GROUP``.
        HEIGHT: rows.
        WIDTH: columns.
        STRIDE: columns rounded up to a multiple of ``STRIP`` and of ``RUN``.
        GROUP: Gaussians of a group, one a lane.
        TOGETHER: Gaussians that are added to each other before they are to a pixel; divides ``GROUP``.
        STRIP: neighbouring pixels of a lane in the forward pass.
        STRIPS: lanes of the forward pass.
        RUN: neighbouring pixels summed at once in the backward pass.
    """
    size: tl.constexpr = HEIGHT * STRIDE
    table: tl.constexpr = (_COLOUR + CHANNELS) * ROOM
    tables: tl.constexpr = 4 * table + _DERIVED * ROOM
    scratch: tl.constexpr = (tables + 31) // 32 * 32
    record: tl.constexpr = scratch + ((CHANNELS + NORMALISED + 1) * size + 31) // 32 * 32
    image = tl.program_id(0).to(tl.int64)
    target += image * CHANNELS * size
    theta = records + image * record
    best, first, second, derived = theta + table, theta + 2 * table, theta + 3 * table, theta + 4 * table
    planes = theta + scratch
    needed = planes + (CHANNELS + NORMALISED) * size
    step = tl.load(taken + image)
    lowest = tl.load(least + image)
    active = tl.load(running + image)
    while (active > 0) & (step < until):
        derive(theta, derived, ROOM, GROUP)
        tl.debug_barrier()
        error = forward(
            target,
            theta,
            derived,
            planes,
            epsilon,
            CHANNELS,
            NORMALISED,
            COUNT,
            ROOM,
            HEIGHT,
            WIDTH,
            STRIDE,
            TOGETHER,
            STRIP,
            STRIPS,
        )
        tl.debug_barrier()
        if (error < lowest) & ((step >= tail) | (error <= enough)):
            lowest = error
            for at in range(0, table, GROUP):
                tl.store(best + at + tl.arange(0, GROUP), tl.load(theta + at + tl.arange(0, GROUP)))
        active = ((step < steps) & (error > enough)).to(tl.int32)
        if active > 0:
            for start in range(0, ROOM, GROUP):
                sum_u, sum_v, sum_uu, sum_uv, sum_vv, sum_red, sum_green, sum_blue = gather(
                    theta,
                    derived,
                    planes,
                    start,
                    tl.load(derived + SLANT_0 * ROOM + start + tl.arange(0, GROUP)),
                    tl.load(derived + UPRIGHT_0 * ROOM + start + tl.arange(0, GROUP)),
                    0,
                    HEIGHT,
                    STRIDE,
                    CHANNELS,
                    NORMALISED,
                    ROOM,
                    HEIGHT,
                    STRIDE,
                    GROUP,
                    RUN,
                )
                adam(
                    theta,
                    first,
                    second,
                    rates + step * 3,
                    start,
                    keep1,
                    keep2,
                    tiny,
                    margin,
                    least_log,
                    greatest_log,
                    greatest_slope,
                    sum_u,
                    sum_v,
                    sum_uu,
                    sum_uv,
                    sum_vv,
                    sum_red,
                    sum_green,
                    sum_blue,
                    CHANNELS,
                    BOUNDED,
                    COUNT,
                    ROOM,
                    HEIGHT,
                    WIDTH,
                    GROUP,
                )
            tl.debug_barrier()
            step += 1
            # Not one condition: the first is decided while it compiles.
            if RESEEDS:  # noqa: SIM102
                if (step % reseed_every == 0) & (step <= reseed_until):
                    reseed(
                        theta,
                        first,
                        second,
                        planes,
                        needed,
                        reach,
                        CHANNELS,
                        COUNT,
                        ROOM,
                        HEIGHT,
                        WIDTH,
                        STRIDE,
                        GROUP,
                        STRIPS,
                    )
    tl.store(least + image, lowest)
    tl.store(taken + image, step)
    tl.store(running + image, active)
