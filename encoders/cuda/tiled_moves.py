"""How large images are judged and their Gaussians moved: what follows the sums of ``encoders.cuda.tiled_sums``."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
from __future__ import annotations

import triton
import triton.language as tl

from encoders.cuda.fused_moves import adam, reseed
from encoders.cuda.fused_sums import DERIVED
from encoders.cuda.tiled_sums import SUMS, derive_group
from encoders.frame import COLOUR

_COLOUR, _DERIVED, _SUMS = tl.constexpr(COLOUR), tl.constexpr(DERIVED), tl.constexpr(SUMS)


@triton.jit(do_not_specialize=["steps", "tail"])
def judge(errors, least, taken, running, better, steps, tail, enough, TILES: tl.constexpr, LANES: tl.constexpr):
    """Program (image): whether this iterate is the best so far, and whether the image takes another step."""
    image = tl.program_id(0).to(tl.int64)
    was_running = tl.load(running + image)
    improves = was_running * 0
    if was_running > 0:
        total = tl.zeros([LANES], tl.float32)
        for begin in range(0, TILES, LANES):
            tile = begin + tl.arange(0, LANES)
            total += tl.load(errors + image * TILES + tile, mask=tile < TILES, other=0.0)
        error = tl.sum(total, axis=0)
        lowest = tl.load(least + image)
        step = tl.load(taken + image)
        improves = ((error < lowest) & ((step >= tail) | (error <= enough))).to(tl.int32)
        goes_on = ((step < steps) & (error > enough)).to(tl.int32)
        tl.debug_barrier()
        tl.store(least + image, tl.where(improves > 0, error, lowest))
        tl.store(running + image, goes_on)
        tl.store(taken + image, step + goes_on)
    tl.store(better + image, improves)


@triton.jit
def _added(sums, row: tl.constexpr, n, ROOM: tl.constexpr, PARTS: tl.constexpr):
    """One sum over the parts of the boxes, in their order."""
    total = tl.load(sums + row * ROOM + n)
    for part in range(1, PARTS):
        total += tl.load(sums + (part * _SUMS + row) * ROOM + n)
    return total


@triton.jit
def move_groups(
    tables,
    derived,
    boxes,
    sums,
    rates,
    taken,
    running,
    better,
    cut,
    keep1,
    keep2,
    tiny,
    margin,
    least_log,
    greatest_log,
    greatest_slope,
    CHANNELS: tl.constexpr,
    BOUNDED: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Program (group, image): keeps the best iterate, takes a step of Adam, and derives factors and box anew."""
    table: tl.constexpr = (_COLOUR + CHANNELS) * ROOM
    group, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    theta = tables + image * 4 * table
    n = group * GROUP + tl.arange(0, GROUP)
    if tl.load(better + image) > 0:
        for row in range(0, _COLOUR + CHANNELS):
            tl.store(theta + table + row * ROOM + n, tl.load(theta + row * ROOM + n))
    if tl.load(running + image) > 0:
        sums += image * PARTS * _SUMS * ROOM
        red = _added(sums, 5, n, ROOM, PARTS)
        green, blue = red, red
        if CHANNELS == 3:
            green, blue = _added(sums, 6, n, ROOM, PARTS), _added(sums, 7, n, ROOM, PARTS)
        adam(
            theta,
            theta + 2 * table,
            theta + 3 * table,
            rates + (tl.load(taken + image) - 1) * 3,
            group * GROUP,
            keep1,
            keep2,
            tiny,
            margin,
            least_log,
            greatest_log,
            greatest_slope,
            _added(sums, 0, n, ROOM, PARTS),
            _added(sums, 1, n, ROOM, PARTS),
            _added(sums, 2, n, ROOM, PARTS),
            _added(sums, 3, n, ROOM, PARTS),
            _added(sums, 4, n, ROOM, PARTS),
            red,
            green,
            blue,
            CHANNELS,
            BOUNDED,
            COUNT,
            ROOM,
            HEIGHT,
            WIDTH,
            GROUP,
        )
        tl.debug_barrier()
        derived += image * _DERIVED * ROOM
        boxes += image * 4 * (ROOM // GROUP)
        derive_group(theta, derived, boxes, group, cut, COUNT, ROOM, HEIGHT, WIDTH, GROUP)


@triton.jit
def rescue(
    tables,
    planes,
    needed,
    running,
    reach,
    CHANNELS: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    LANES: tl.constexpr,
):
    """Program (image): moves dark Gaussians (additive codec only, so planes are as many as channels)."""
    table: tl.constexpr = (_COLOUR + CHANNELS) * ROOM
    image = tl.program_id(0).to(tl.int64)
    if tl.load(running + image) > 0:
        theta = tables + image * 4 * table
        reseed(
            theta,
            theta + 2 * table,
            theta + 3 * table,
            planes + image * CHANNELS * HEIGHT * STRIDE,
            needed + image * HEIGHT * STRIDE,
            reach,
            CHANNELS,
            COUNT,
            ROOM,
            HEIGHT,
            WIDTH,
            STRIDE,
            GROUP,
            LANES,
        )
