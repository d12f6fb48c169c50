"""What the fused and the tiled fit do alike for pixels: adding Gaussians to them, and their residual.

Lanes are strips of neighbouring pixels of a row; planes are [plane, row, column] with padded rows.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportIndexIssue=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportPossiblyUnboundVariable=false
from __future__ import annotations

import triton
import triton.language as tl

from encoders.frame import COLOUR

_COLOUR = tl.constexpr(COLOUR)


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
