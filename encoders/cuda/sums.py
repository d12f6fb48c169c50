"""Sums over the pixels of one image, by one warp: Triton parts of the fused fit (``encoders.cuda.fused_fit``).

Two passes without a reduction between lanes in any inner loop:

* forward: lanes are strips of neighbouring pixels, Gaussians are looped over. What a Gaussian's exponent owes to the
  row is computed once a strip, so a pixel costs two multiply-adds, one exponential and one multiply-add a channel.
* backward: lanes are Gaussians, pixels are looped over. Moments of v are sums over rows, as v is constant along a row.

The exponential is of base 2: ``U = s (a dx + b dy)``, ``V = s c dy`` with s^2 = log2(e) / 2, weight = 2^-(U^2 + V^2).
Tables are [row, ROOM] with the Gaussian last, planes [plane, HEIGHT, STRIDE]. Sizes are compile-time constants, so that
the places of tables and rows are part of the instructions.

What the fused and the tiled fit do alike for pixels: adding Gaussians to them, and their residual.

Lanes are strips of neighbouring pixels of a row; planes are [plane, row, column] with padded rows.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
from __future__ import annotations

import math

import triton
import triton.language as tl

from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y

SCALE = tl.constexpr(math.sqrt(0.5 * math.log2(math.e)))
_X, _Y, _LOG_A, _B, _LOG_C, _COLOUR = (tl.constexpr(row) for row in (X, Y, LOG_A, B, LOG_C, COLOUR))

SLANT_X, SLANT_Y, SLANT_0, UPRIGHT, UPRIGHT_0 = (tl.constexpr(row) for row in range(5))
"""Rows of the table of derived factors: U = SLANT_X px + SLANT_Y py + SLANT_0, V = UPRIGHT py + UPRIGHT_0."""
DERIVED = 5


@triton.jit
def add_weighted(
    theta,
    n,
    slant_x,
    along,
    v,
    red,
    green,
    blue,
    mass,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    ROOM: tl.constexpr,
    STRIP: tl.constexpr,
):
    """Adds Gaussians ``n`` to the pixels of all lanes; tiles are [gaussian, pixel of a strip, strip].

    ``along`` is U at the left end of each strip, ``v`` is V.
    """
    # From the first pixel of the strip on: the offsets are constants of the instructions.
    offset = (tl.arange(0, STRIP).to(tl.float32) + 0.5)[None, :, None]
    u = slant_x * offset + along
    weight = tl.exp2(-(v * v) - u * u)
    red += tl.sum(weight * tl.load(theta + _COLOUR * ROOM + n)[:, None, None], axis=0)
    if CHANNELS == 3:
        green += tl.sum(weight * tl.load(theta + (_COLOUR + 1) * ROOM + n)[:, None, None], axis=0)
        blue += tl.sum(weight * tl.load(theta + (_COLOUR + 2) * ROOM + n)[:, None, None], axis=0)
    if NORMALISED:
        mass += tl.sum(weight, axis=0)
    return red, green, blue, mass


@triton.jit
def difference(value, target, at, inside):
    """Residual of one channel, 0 outside the image; one-sided as clipping hides what lies beyond black and white."""
    wanted = tl.load(target + at).to(tl.float32)
    low = tl.where(wanted == 0.0, 0.0, -1e30)
    high = tl.where(wanted == 255.0, 1.0, 1e30)
    clipped = tl.minimum(tl.maximum(value, low), high)
    return tl.where(inside, clipped - wanted * (1.0 / 255.0), 0.0)


@triton.jit
def write_residual(
    target,
    planes,
    at,
    inside,
    red,
    green,
    blue,
    mass,
    epsilon,
    size: tl.constexpr,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
):
    """Writes the residual planes of some pixels; see ``forward``. Returns their squared residuals."""
    scale = 1.0 / (mass + epsilon) if NORMALISED else 1.0
    error = difference(red * scale, target, at, inside)
    total = error * error
    tl.store(planes + at, error * scale)
    pull = error * scale * (red * scale)
    if CHANNELS == 3:
        error = difference(green * scale, target + size, at, inside)
        total += error * error
        tl.store(planes + size + at, error * scale)
        pull += error * scale * (green * scale)
        error = difference(blue * scale, target + 2 * size, at, inside)
        total += error * error
        tl.store(planes + 2 * size + at, error * scale)
        pull += error * scale * (blue * scale)
    if NORMALISED:
        tl.store(planes + CHANNELS * size + at, -pull)
    return total


@triton.jit
def derive(
    theta,
    derived,
    ROOM: tl.constexpr,
    GROUP: tl.constexpr,
):
    """Factors of the exponents of all Gaussians."""
    for start in range(0, ROOM, GROUP):
        n = start + tl.arange(0, GROUP)
        x, y = tl.load(theta + _X * ROOM + n), tl.load(theta + _Y * ROOM + n)
        along = tl.exp(tl.load(theta + _LOG_A * ROOM + n)) * SCALE
        across = tl.load(theta + _B * ROOM + n) * SCALE
        upright = tl.exp(tl.load(theta + _LOG_C * ROOM + n)) * SCALE
        tl.store(derived + SLANT_X * ROOM + n, along)
        tl.store(derived + SLANT_Y * ROOM + n, across)
        tl.store(derived + SLANT_0 * ROOM + n, -(along * x + across * y))
        tl.store(derived + UPRIGHT * ROOM + n, upright)
        tl.store(derived + UPRIGHT_0 * ROOM + n, -(upright * y))


@triton.jit
def _add_gaussians(
    theta,
    derived,
    start,
    column,
    py,
    red,
    green,
    blue,
    mass,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    ROOM: tl.constexpr,
    TOGETHER: tl.constexpr,
    STRIP: tl.constexpr,
):
    """Adds ``TOGETHER`` Gaussians to the pixels of all lanes; tiles are [gaussian, pixel of a strip, strip]."""
    n = start + tl.arange(0, TOGETHER)
    slant_x = tl.load(derived + SLANT_X * ROOM + n)[:, None, None]
    slant_y = tl.load(derived + SLANT_Y * ROOM + n)[:, None, None]
    slant_0 = tl.load(derived + SLANT_0 * ROOM + n)[:, None, None]
    upright = tl.load(derived + UPRIGHT * ROOM + n)[:, None, None]
    upright_0 = tl.load(derived + UPRIGHT_0 * ROOM + n)[:, None, None]
    v = upright * py + upright_0
    along = slant_x * column + (slant_y * py + slant_0)
    return add_weighted(theta, n, slant_x, along, v, red, green, blue, mass, CHANNELS, NORMALISED, ROOM, STRIP)


@triton.jit
def forward(
    target,
    theta,
    derived,
    planes,
    epsilon,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    COUNT: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    STRIDE: tl.constexpr,
    TOGETHER: tl.constexpr,
    STRIP: tl.constexpr,
    STRIPS: tl.constexpr,
):
    """Renders, writes the residual planes and returns half the sum of squared residuals.

    Planes receive residual_c (normalised: residual_c / mass, and after the channels what every weight loses by the
    division); columns from ``WIDTH`` on receive 0.
    """
    size: tl.constexpr = HEIGHT * STRIDE
    strips_per_row: tl.constexpr = STRIDE // STRIP
    strips: tl.constexpr = HEIGHT * strips_per_row
    squares = tl.zeros([STRIPS], tl.float32)
    for block in range(0, strips, STRIPS):
        strip = block + tl.arange(0, STRIPS)
        on_canvas = strip < strips
        # Lanes without a strip repeat the last one: the same numbers to the same places, counted once.
        strip = tl.minimum(strip, strips - 1)
        row = strip // strips_per_row
        first = (strip % strips_per_row) * STRIP
        py = (row.to(tl.float32) + 0.5)[None, None, :]
        px = first.to(tl.float32)[None, None, :]
        red = tl.zeros([STRIP, STRIPS], tl.float32)
        green, blue, mass = red, red, red
        for start in range(0, COUNT, TOGETHER):
            red, green, blue, mass = _add_gaussians(
                theta, derived, start, px, py, red, green, blue, mass, CHANNELS, NORMALISED, ROOM, TOGETHER, STRIP
            )
        column = first[None, :] + tl.arange(0, STRIP)[:, None]
        at = row[None, :] * STRIDE + column
        inside = column < WIDTH
        total = write_residual(target, planes, at, inside, red, green, blue, mass, epsilon, size, CHANNELS, NORMALISED)
        squares += tl.where(on_canvas, tl.sum(total, axis=0), 0.0)
    return 0.5 * tl.sum(squares, axis=0)


@triton.jit
def gather(
    theta,
    derived,
    planes,
    start,
    slant_0,
    upright_0,
    first_row,
    last_row,
    columns,
    CHANNELS: tl.constexpr,
    NORMALISED: tl.constexpr,
    ROOM: tl.constexpr,
    HEIGHT: tl.constexpr,
    STRIDE: tl.constexpr,
    GROUP: tl.constexpr,
    RUN: tl.constexpr,
):
    """Moments of the residual under the ``GROUP`` Gaussians from ``start`` on, over a rectangle of pixels.

    ``planes`` point at the pixel that rows and columns are counted from, and ``slant_0`` and ``upright_0`` [GROUP] are
    U and V at its upper left corner. The rectangle has rows ``first_row`` to ``last_row`` - 1 and columns 0 to
    ``columns`` - 1, rounded up to a multiple of ``RUN``.

    Returns:
        sums of g u, g v, g u^2, g u v, g v^2 and of residual_c * weight for three channels (zeros where there are
        fewer), each [GROUP]; g = weight * sum_c(residual_c colour_c) and (u, v) unscaled.
    """
    size: tl.constexpr = HEIGHT * STRIDE
    n = start + tl.arange(0, GROUP)
    slant_x, slant_y = tl.load(derived + SLANT_X * ROOM + n), tl.load(derived + SLANT_Y * ROOM + n)
    upright = tl.load(derived + UPRIGHT * ROOM + n)
    red = tl.load(theta + _COLOUR * ROOM + n)
    green, blue = red, red
    if CHANNELS == 3:
        green, blue = tl.load(theta + (_COLOUR + 1) * ROOM + n), tl.load(theta + (_COLOUR + 2) * ROOM + n)
    sum_u = tl.zeros([GROUP], tl.float32)
    sum_v, sum_uu, sum_uv, sum_vv, sum_red, sum_green, sum_blue = sum_u, sum_u, sum_u, sum_u, sum_u, sum_u, sum_u
    offset = (tl.arange(0, RUN).to(tl.float32) + 0.5)[:, None]
    for row in range(first_row, last_row):
        py = row * 1.0 + 0.5
        v = upright * py + upright_0
        along_row = slant_y * py + slant_0
        depth = v * v
        row_u = tl.zeros([GROUP], tl.float32)
        row_uu, row_red, row_green, row_blue, row_pull = row_u, row_u, row_u, row_u, row_u
        for column in range(0, columns, RUN):
            at = row * STRIDE + column + tl.arange(0, RUN)
            u = slant_x[None, :] * offset + (slant_x * (column * 1.0) + along_row)[None, :]
            weight = tl.exp2(-depth[None, :] - u * u)
            residual = tl.load(planes + at)[:, None]
            row_red += tl.sum(weight * residual, axis=0)
            # One channel without a division: the colour is a common factor, multiplied in at the end.
            pull = residual
            if CHANNELS == 3:
                second = tl.load(planes + size + at)[:, None]
                third = tl.load(planes + 2 * size + at)[:, None]
                row_green += tl.sum(weight * second, axis=0)
                row_blue += tl.sum(weight * third, axis=0)
                pull = residual * red[None, :] + second * green[None, :] + third * blue[None, :]
            elif NORMALISED:
                pull = residual * red[None, :]
            if NORMALISED:
                loss = tl.load(planes + CHANNELS * size + at)[:, None]
                row_pull += tl.sum(weight * loss, axis=0)
                pull += loss
            moved = weight * pull * u
            row_u += tl.sum(moved, axis=0)
            row_uu += tl.sum(moved * u, axis=0)
        # The pull of the whole row follows from what each channel gathered.
        g = row_red
        if CHANNELS == 3:
            g = row_red * red + row_green * green + row_blue * blue
        elif NORMALISED:
            g = row_red * red
        if NORMALISED:
            g += row_pull
        sum_red += row_red
        sum_green += row_green
        sum_blue += row_blue
        sum_u += row_u
        sum_uu += row_uu
        sum_v += g * v
        sum_uv += row_u * v
        sum_vv += g * depth
    once = tl.full([GROUP], 1.0 / SCALE, tl.float32)
    if CHANNELS + NORMALISED == 1:
        once = once * red
    twice = once * (1.0 / SCALE)
    return sum_u * once, sum_v * once, sum_uu * twice, sum_uv * twice, sum_vv * twice, sum_red, sum_green, sum_blue
