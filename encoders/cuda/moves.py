"""How Gaussians move in the fused fit: Adam in each Gaussian's own frame, and the rescue of dark Gaussians.

The rules are those of ``encoders.cpu.moves``; only the order of the additions before them differs.

How large images are judged and their Gaussians moved: what follows the sums of ``encoders.cuda.tiled_sums``.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
from __future__ import annotations

import math

import triton
import triton.language as tl

from encoders.cpu.moves import DARK, RESEEDED_SIGMA
from encoders.cuda.sums import DERIVED
from encoders.cuda.tiled_sums import SUMS, derive_group
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y

_X, _Y, _LOG_A, _B, _LOG_C, _COLOUR = (tl.constexpr(row) for row in (X, Y, LOG_A, B, LOG_C, COLOUR))
_DARK = tl.constexpr(DARK)
_RESEEDED_LOG = tl.constexpr(-math.log(RESEEDED_SIGMA))

_DERIVED, _SUMS = tl.constexpr(DERIVED), tl.constexpr(SUMS)


@triton.jit
def _direction(first, second, at, gradient, keep1, keep2, tiny):
    """Adam's quotient of one parameter, its two means brought up to date."""
    mean = keep1 * tl.load(first + at) + (1.0 - keep1) * gradient
    square = keep2 * tl.load(second + at) + (1.0 - keep2) * gradient * gradient
    tl.store(first + at, mean)
    tl.store(second + at, square)
    return mean / (tl.sqrt(square) + tiny)


@triton.jit
def _move_colour(theta, first, second, at, gradient, rate, here, keep1, keep2, tiny, BOUNDED: tl.constexpr):
    moved = tl.load(theta + at) - rate * _direction(first, second, at, gradient, keep1, keep2, tiny)
    if BOUNDED:
        moved = tl.minimum(tl.maximum(moved, 0.0), 1.0)
    tl.store(theta + at, moved, mask=here)


@triton.jit
def adam(
    theta,
    first,
    second,
    rates,
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
    CHANNELS: tl.constexpr,
    BOUNDED: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """One step of the ``GROUP`` Gaussians from ``start`` on; those beyond ``COUNT`` stay where they are."""
    n = start + tl.arange(0, GROUP)
    here = n < COUNT
    rate_centre, rate_shape, rate_colour = tl.load(rates), tl.load(rates + 1), tl.load(rates + 2)
    x, y = tl.load(theta + _X * ROOM + n), tl.load(theta + _Y * ROOM + n)
    log_a, log_c = tl.load(theta + _LOG_A * ROOM + n), tl.load(theta + _LOG_C * ROOM + n)
    b = tl.load(theta + _B * ROOM + n)
    a, c = tl.exp(log_a), tl.exp(log_c)
    right = rate_centre * _direction(first, second, n, sum_u, keep1, keep2, tiny)
    down = rate_centre * _direction(first, second, ROOM + n, sum_v, keep1, keep2, tiny) / c
    right = (right - b * down) / a
    x = tl.minimum(tl.maximum(x - right, -margin), WIDTH + margin)
    y = tl.minimum(tl.maximum(y - down, -margin), HEIGHT + margin)
    stretch = rate_shape * _direction(first, second, 2 * ROOM + n, -sum_uu, keep1, keep2, tiny)
    shear = rate_shape * _direction(first, second, 3 * ROOM + n, -sum_uv, keep1, keep2, tiny)
    squeeze = rate_shape * _direction(first, second, 4 * ROOM + n, -sum_vv, keep1, keep2, tiny)
    log_a = tl.minimum(tl.maximum(log_a - stretch, least_log), greatest_log)
    log_c = tl.minimum(tl.maximum(log_c - squeeze, least_log), greatest_log)
    steepest = greatest_slope * tl.exp(log_c)
    b = tl.minimum(tl.maximum(b * (1.0 - stretch) - shear * c, -steepest), steepest)
    tl.store(theta + _X * ROOM + n, x, mask=here)
    tl.store(theta + _Y * ROOM + n, y, mask=here)
    tl.store(theta + _LOG_A * ROOM + n, log_a, mask=here)
    tl.store(theta + _B * ROOM + n, b, mask=here)
    tl.store(theta + _LOG_C * ROOM + n, log_c, mask=here)
    at = _COLOUR * ROOM + n
    _move_colour(theta, first, second, at, sum_red, rate_colour, here, keep1, keep2, tiny, BOUNDED)
    if CHANNELS == 3:
        _move_colour(
            theta, first, second, (_COLOUR + 1) * ROOM + n, sum_green, rate_colour, here, keep1, keep2, tiny, BOUNDED
        )
        _move_colour(
            theta, first, second, (_COLOUR + 2) * ROOM + n, sum_blue, rate_colour, here, keep1, keep2, tiny, BOUNDED
        )


@triton.jit
def _lack(planes, at, inside, size: tl.constexpr, CHANNELS: tl.constexpr):
    """Light that the rendering lacks at pixels, summed over channels; -1 outside."""
    lack = tl.maximum(-tl.load(planes + at, mask=inside, other=0.0), 0.0)
    if CHANNELS == 3:
        lack += tl.maximum(-tl.load(planes + size + at, mask=inside, other=0.0), 0.0)
        lack += tl.maximum(-tl.load(planes + 2 * size + at, mask=inside, other=0.0), 0.0)
    return tl.where(inside, lack, -1.0)


@triton.jit
def _neediest(
    needed, x, y, reach, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, STRIDE: tl.constexpr, LANES: tl.constexpr
):
    """The pixel within reach that lacks most light (the first in reading order), and how much it lacks."""
    top = tl.minimum(tl.maximum(y - reach, 0.0), HEIGHT - 1.0).to(tl.int32)
    bottom = tl.minimum(tl.maximum(y + reach, 0.0), HEIGHT - 1.0).to(tl.int32)
    left = tl.minimum(tl.maximum(x - reach, 0.0), WIDTH - 1.0).to(tl.int32)
    right = tl.minimum(tl.maximum(x + reach, 0.0), WIDTH - 1.0).to(tl.int32)
    most = tl.full([LANES], -1.0, tl.float32)
    where = tl.zeros([LANES], tl.int32)
    for begin in range(top * STRIDE, (bottom + 1) * STRIDE, LANES):
        at = begin + tl.arange(0, LANES)
        column = at % STRIDE
        inside = (at < (bottom + 1) * STRIDE) & (column >= left) & (column <= right)
        value = tl.load(needed + at, mask=inside, other=-1.0)
        where = tl.where(value > most, at, where)
        most = tl.maximum(value, most)
    greatest = tl.max(most, axis=0)
    return tl.min(tl.where(most == greatest, where, 2147483647), axis=0), greatest


@triton.jit
def _restart(
    theta,
    first,
    second,
    planes,
    n,
    at,
    size: tl.constexpr,
    ROOM: tl.constexpr,
    STRIDE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Puts Gaussian ``n`` on a pixel, round and small, in the colour that the pixel lacks."""
    for parameter in tl.static_range(_COLOUR + CHANNELS):
        tl.store(first + parameter * ROOM + n, 0.0)
        tl.store(second + parameter * ROOM + n, 0.0)
    tl.store(theta + _X * ROOM + n, (at % STRIDE) * 1.0 + 0.5)
    tl.store(theta + _Y * ROOM + n, (at // STRIDE) * 1.0 + 0.5)
    tl.store(theta + _LOG_A * ROOM + n, _RESEEDED_LOG)
    tl.store(theta + _B * ROOM + n, 0.0)
    tl.store(theta + _LOG_C * ROOM + n, _RESEEDED_LOG)
    for channel in tl.static_range(CHANNELS):
        lack = tl.maximum(-tl.load(planes + channel * size + at), 0.0)
        tl.store(theta + (_COLOUR + channel) * ROOM + n, tl.minimum(lack, 1.0))


@triton.jit
def reseed(
    theta,
    first,
    second,
    planes,
    needed,
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
    """Moves every dark Gaussian, in the order of their index, to the pixel that lacks most light.

    ``planes`` hold the residual of the step before; ``needed`` [row, STRIDE] is scratch.
    """
    size: tl.constexpr = HEIGHT * STRIDE
    for begin in range(0, size, LANES):
        at = begin + tl.arange(0, LANES)
        tl.store(needed + at, _lack(planes, at, at < size, size, CHANNELS), mask=at < size)
    tl.debug_barrier()
    for start in range(0, ROOM, GROUP):
        n = start + tl.arange(0, GROUP)
        brightest = tl.abs(tl.load(theta + _COLOUR * ROOM + n))
        if CHANNELS == 3:
            brightest = tl.maximum(brightest, tl.abs(tl.load(theta + (_COLOUR + 1) * ROOM + n)))
            brightest = tl.maximum(brightest, tl.abs(tl.load(theta + (_COLOUR + 2) * ROOM + n)))
        dark = ((brightest < _DARK) & (n < COUNT)).to(tl.int32)
        left = tl.sum(dark, axis=0)
        while left > 0:
            # The dark one of least index that is left.
            one = tl.min(tl.where(dark > 0, n, 2147483647), axis=0)
            dark = tl.where(n == one, 0, dark)
            left -= 1
            x, y = tl.load(theta + _X * ROOM + one), tl.load(theta + _Y * ROOM + one)
            at, lack = _neediest(needed, x, y, reach, HEIGHT, WIDTH, STRIDE, LANES)
            if lack > _DARK:
                # Every lane has read the place and the light before any lane changes them.
                tl.debug_barrier()
                _restart(theta, first, second, planes, one, at, size, ROOM, STRIDE, CHANNELS)
                # Its neighbours are served by the same Gaussian.
                near = tl.arange(0, 16)
                row, column = at // STRIDE + near // 3 - 1, at % STRIDE + near % 3 - 1
                inside = (near < 9) & (row >= 0) & (row < HEIGHT) & (column >= 0) & (column < WIDTH)
                tl.store(needed + row * STRIDE + column, tl.zeros([16], tl.float32), mask=inside)
                tl.debug_barrier()
    tl.debug_barrier()


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
    """Program (group, image): keeps the best iterate, takes a step of Adam, and derives factors and box again."""
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
