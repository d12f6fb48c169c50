"""Sums over the pixels of large images: the mathematics of the fused fit, the work shared out over many programs.

Gaussians lie in groups of 32 neighbours (``encoders.cuda.tiled_batch`` sorts them), each with the box of pixels that
it reaches. A step renders tiles of pixels, each by the groups whose box meets it; looks at the error of the whole
image; gathers the moments of each group over its box, in several parts; and moves the groups
(``encoders.cuda.moves``). No lists, no atomics: a tile goes through the groups in their order, and parts are
added in theirs. Coordinates are counted from the tile or
the box, as float32 would lose the fourth digit of an exponent 2,000 pixels from the origin.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
from __future__ import annotations

import triton
import triton.language as tl

from encoders.cuda.sums import DERIVED, SCALE, SLANT_X, SLANT_Y, UPRIGHT, add_weighted, gather, write_residual
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y

_X, _Y, _LOG_A, _B, _LOG_C, _COLOUR = (tl.constexpr(row) for row in (X, Y, LOG_A, B, LOG_C, COLOUR))
_SLANT_X, _SLANT_Y, _UPRIGHT, _SCALE = SLANT_X, SLANT_Y, UPRIGHT, SCALE
_DERIVED = tl.constexpr(DERIVED)

TOP, BOTTOM, LEFT, RIGHT = (tl.constexpr(row) for row in range(4))
"""Rows of the table of boxes [4, ROOM / GROUP]: first and last row and column that a group reaches."""
BOXES = 4

SUMS = 8
_SUMS = tl.constexpr(SUMS)


@triton.jit
def derive_group(
    theta,
    derived,
    boxes,
    group,
    cut,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Factors of the exponents of a group and the box that it reaches; empty (first after last) off the canvas."""
    n = group * GROUP + tl.arange(0, GROUP)
    x, y = tl.load(theta + _X * ROOM + n), tl.load(theta + _Y * ROOM + n)
    a, c = tl.exp(tl.load(theta + _LOG_A * ROOM + n)), tl.exp(tl.load(theta + _LOG_C * ROOM + n))
    b = tl.load(theta + _B * ROOM + n)
    tl.store(derived + _SLANT_X * ROOM + n, a * _SCALE)
    tl.store(derived + _SLANT_Y * ROOM + n, b * _SCALE)
    tl.store(derived + _UPRIGHT * ROOM + n, c * _SCALE)
    reach_y = cut / c
    reach_x = cut * tl.sqrt(b * b + c * c) / (a * c)
    here = n < COUNT
    top = tl.min(tl.where(here, y - reach_y, 1e9), axis=0)
    bottom = tl.max(tl.where(here, y + reach_y, -1e9), axis=0)
    left = tl.min(tl.where(here, x - reach_x, 1e9), axis=0)
    right = tl.max(tl.where(here, x + reach_x, -1e9), axis=0)
    # Clipped as floats first, so that no integer overflows.
    groups: tl.constexpr = ROOM // GROUP
    high, wide = HEIGHT * 1.0, WIDTH * 1.0
    tl.store(boxes + TOP * groups + group, tl.minimum(tl.maximum(tl.floor(top), 0.0), high).to(tl.int32))
    tl.store(boxes + BOTTOM * groups + group, tl.minimum(tl.maximum(tl.ceil(bottom), 0.0), high).to(tl.int32) - 1)
    tl.store(boxes + LEFT * groups + group, tl.minimum(tl.maximum(tl.floor(left), 0.0), wide).to(tl.int32))
    tl.store(boxes + RIGHT * groups + group, tl.minimum(tl.maximum(tl.ceil(right), 0.0), wide).to(tl.int32) - 1)


@triton.jit
def derive_groups(
    tables,
    derived,
    boxes,
    cut,
    CHANNELS: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Program (group, image): factors and box of every group, before the first step and after dark ones moved."""
    image = tl.program_id(1).to(tl.int64)
    theta = tables + image * 4 * (_COLOUR + CHANNELS) * ROOM
    derived += image * _DERIVED * ROOM
    boxes += image * 4 * (ROOM // GROUP)
    derive_group(theta, derived, boxes, tl.program_id(0), cut, COUNT, ROOM, HEIGHT, WIDTH, GROUP)


@triton.jit
def _add_group(
    theta,
    derived,
    group,
    row,
    column,
    red,
    green,
    blue,
    mass,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    ROOM: tl.constexpr,
    GROUP: tl.constexpr,
    TOGETHER: tl.constexpr,
    STRIP: tl.constexpr,
):
    """Adds a group of Gaussians to the pixels of all lanes."""
    for start in range(group * GROUP, group * GROUP + GROUP, TOGETHER):
        n = start + tl.arange(0, TOGETHER)
        slant_x = tl.load(derived + _SLANT_X * ROOM + n)[:, None, None]
        slant_y = tl.load(derived + _SLANT_Y * ROOM + n)[:, None, None]
        upright = tl.load(derived + _UPRIGHT * ROOM + n)[:, None, None]
        dx = column[None, None, :] - tl.load(theta + _X * ROOM + n)[:, None, None]
        dy = row[None, None, :] - tl.load(theta + _Y * ROOM + n)[:, None, None]
        along = slant_x * dx + slant_y * dy
        red, green, blue, mass = add_weighted(
            theta, n, slant_x, along, upright * dy, red, green, blue, mass, CHANNELS, NORMALISED, ROOM, STRIP
        )
    return red, green, blue, mass


@triton.jit
def render_tiles(
    target,
    tables,
    derived,
    boxes,
    planes,
    errors,
    running,
    epsilon,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    TOGETHER: tl.constexpr,
    STRIP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Program (tile, image): the residual of a tile of ROWS x COLUMNS pixels, and half its sum of squares."""
    size: tl.constexpr = HEIGHT * STRIDE
    groups: tl.constexpr = ROOM // GROUP
    per_row: tl.constexpr = STRIDE // COLUMNS
    tiles: tl.constexpr = ((HEIGHT + ROWS - 1) // ROWS) * per_row
    strips: tl.constexpr = ROWS * (COLUMNS // STRIP)
    image = tl.program_id(1).to(tl.int64)
    if tl.load(running + image) > 0:
        tile = tl.program_id(0)
        target += image * CHANNELS * size
        theta = tables + image * 4 * (_COLOUR + CHANNELS) * ROOM
        derived += image * _DERIVED * ROOM
        boxes += image * 4 * groups
        planes += image * (CHANNELS + NORMALISED) * size
        top, left = tile // per_row * ROWS, tile % per_row * COLUMNS
        strip = tl.arange(0, strips)
        row = top + strip // (COLUMNS // STRIP)
        on_canvas = row < HEIGHT
        # Lanes below the last row repeat it: the same numbers to the same places, counted once.
        row = tl.minimum(row, HEIGHT - 1)
        first = left + strip % (COLUMNS // STRIP) * STRIP
        middle, edge = row.to(tl.float32) + 0.5, first.to(tl.float32)
        red = tl.zeros([STRIP, strips], tl.float32)
        green, blue, mass = red, red, red
        for base in range(0, groups, 32):
            group = base + tl.arange(0, 32)
            there = group < groups
            met = tl.load(boxes + TOP * groups + group, mask=there, other=HEIGHT) < top + ROWS
            met &= tl.load(boxes + BOTTOM * groups + group, mask=there, other=-1) >= top
            met &= tl.load(boxes + LEFT * groups + group, mask=there, other=STRIDE) < left + COLUMNS
            met &= tl.load(boxes + RIGHT * groups + group, mask=there, other=-1) >= left
            met = (met & there).to(tl.int32)
            left_over = tl.sum(met, axis=0)
            while left_over > 0:
                # In the order of the groups, whatever the order of programs: the same sum again.
                one = tl.min(tl.where(met > 0, group, 2147483647), axis=0)
                met = tl.where(group == one, 0, met)
                left_over -= 1
                red, green, blue, mass = _add_group(
                    theta,
                    derived,
                    one,
                    middle,
                    edge,
                    red,
                    green,
                    blue,
                    mass,
                    CHANNELS,
                    NORMALISED,
                    ROOM,
                    GROUP,
                    TOGETHER,
                    STRIP,
                )
        column = first[None, :] + tl.arange(0, STRIP)[:, None]
        at = row[None, :] * STRIDE + column
        inside = column < WIDTH
        total = write_residual(target, planes, at, inside, red, green, blue, mass, epsilon, size, CHANNELS, NORMALISED)
        squares = tl.sum(tl.where(on_canvas, tl.sum(total, axis=0), 0.0), axis=0)
        tl.store(errors + image * tiles + tile, 0.5 * squares)


@triton.jit
def gather_groups(
    tables,
    derived,
    boxes,
    planes,
    sums,
    running,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    RUN: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Program (group, part, image): moments of a group over the rows of one part of its box."""
    groups: tl.constexpr = ROOM // GROUP
    image = tl.program_id(2).to(tl.int64)
    if tl.load(running + image) > 0:
        group, part = tl.program_id(0), tl.program_id(1)
        theta = tables + image * 4 * (_COLOUR + CHANNELS) * ROOM
        derived += image * _DERIVED * ROOM
        boxes += image * 4 * groups
        planes += image * (CHANNELS + NORMALISED) * HEIGHT * STRIDE
        sums += (image * PARTS + part) * _SUMS * ROOM
        top = tl.load(boxes + TOP * groups + group)
        left = tl.load(boxes + LEFT * groups + group) // RUN * RUN
        rows = tl.maximum(tl.load(boxes + BOTTOM * groups + group) + 1 - top, 0)
        columns = tl.maximum(tl.load(boxes + RIGHT * groups + group) + 1 - left, 0)
        n = group * GROUP + tl.arange(0, GROUP)
        dx = left.to(tl.float32) - tl.load(theta + _X * ROOM + n)
        dy = top.to(tl.float32) - tl.load(theta + _Y * ROOM + n)
        slant_0 = tl.load(derived + _SLANT_X * ROOM + n) * dx + tl.load(derived + _SLANT_Y * ROOM + n) * dy
        upright_0 = tl.load(derived + _UPRIGHT * ROOM + n) * dy
        sum_u, sum_v, sum_uu, sum_uv, sum_vv, sum_red, sum_green, sum_blue = gather(
            theta,
            derived,
            planes + (top * STRIDE + left),
            group * GROUP,
            slant_0,
            upright_0,
            rows * part // PARTS,
            rows * (part + 1) // PARTS,
            columns,
            CHANNELS,
            NORMALISED,
            ROOM,
            HEIGHT,
            STRIDE,
            GROUP,
            RUN,
        )
        tl.store(sums + n, sum_u)
        tl.store(sums + ROOM + n, sum_v)
        tl.store(sums + 2 * ROOM + n, sum_uu)
        tl.store(sums + 3 * ROOM + n, sum_uv)
        tl.store(sums + 4 * ROOM + n, sum_vv)
        tl.store(sums + 5 * ROOM + n, sum_red)
        if CHANNELS == 3:
            tl.store(sums + 6 * ROOM + n, sum_green)
            tl.store(sums + 7 * ROOM + n, sum_blue)
