"""Splats of patches blended by depth, compiled: a pixel of each lane, the splats of its patch and of those around.

A splat of squared distance d (in its own metric, offset e = pixel - mean), depth s and colour k weighs exp(l) with
l = 2 s - 4 d + f, f the logarithm of the fading of its patch, and shows exp(-d) k, or k. With w = exp(l) / sum exp(l),
shown light e_d, the pixel P and its gradient g,

    dL/dl = w (e_d g.k - g.P),   dL/dd = -4 dL/dl - w e_d g.k  (without the last term where k is shown everywhere).

``models.patches.splats.blend`` is the same in plain torch and its oracle. Arrays are flat; a patch's places are padded
to full vectors.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.vector import (
    LANES,
    entry,
    exponential_to_rounding,
    flush_denormals,
    fused,
    largest,
    load,
    maximum,
    restore_denormals,
    scatter_totals,
    splat,
    store,
    total,
)

HIDDEN = -40.0
"""A splat whose weight is less than exp(-40) of the greatest at all pixels of a vector is passed over."""

# Numbers of a splat as a pixel sees it: mean, precision (the mixed term twice), twice the depth, three colours, and
# where its patch lies among the nine.
_X, _Y, _XX, _XY, _YY, _DEPTH, _COLOUR, _PLACE = 0, 1, 2, 3, 4, 5, 6, 9
_NUMBERS = 10
_CHANNELS = 3


@compiled
def _see(mean, precision, colour, depth, image, patch, grid, channels, seen, origins):
    """Gathers the splats that the pixels of a patch see, in its own coordinates; returns how many."""
    rows, columns, splats, reach = grid
    row, column = patch // columns, patch % columns
    count = 0
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if row + down < 0 or row + down >= rows or column + right < 0 or column + right >= columns:
                continue
            first = ((image * rows + row + down) * columns + column + right) * splats
            for origin in range(first, first + splats):
                at = count * _NUMBERS
                seen[at + _X] = mean[2 * origin] + np.float32(right)
                seen[at + _Y] = mean[2 * origin + 1] + np.float32(down)
                seen[at + _XX] = precision[3 * origin]
                seen[at + _XY] = np.float32(2) * precision[3 * origin + 1]
                seen[at + _YY] = precision[3 * origin + 2]
                seen[at + _DEPTH] = np.float32(2) * depth[origin]
                for channel in range(channels):
                    seen[at + _COLOUR + channel] = colour[channels * origin + channel]
                seen[at + _PLACE] = np.float32((down + 1) * 3 + right + 1)
                origins[count] = origin
                count += 1
    return count


@compiled
def draw_patches(
    mean, precision, colour, depth, xs, ys, fading, pixels, images, peaks, shares, grid, falling, level, epsilon
):
    """Draws images.

    Args:
        mean: float32, flat [image, row, column, splat, 2].
        precision: float32, flat [..., 3].
        colour: float32, flat [..., channel], 1 or 3 channels.
        depth: float32, flat [...].
        xs: float32, flat [row, column, place], places of a patch from its centre; padded to full vectors.
        ys: the same.
        fading: float32, flat [row, column, 9, place], added to l.
        pixels: int64 [row * column, place], pixel of a place; -1 for none.
        images: float32 [image, channel, pixel], filled.
        peaks: float32, flat [image, row, column, place], filled: what is taken from l before the exponential.
        shares: float32, likewise: 1 / sum of exponentials.
        grid: rows, columns, splats of a patch, and how many patches away a pixel sees (0 or 1).
        falling: whether a splat's colour falls off with distance.
        level: a fixed number for ``peaks``; NaN for the greatest l of each pixel.
        epsilon: added to the sum of exponentials.
    """
    rows, columns, splats, reach = grid
    batch, channels, _ = images.shape
    places = len(xs) // (rows * columns)
    most = splats * (2 * reach + 1) ** 2
    seen = np.zeros(most * _NUMBERS, np.float32)
    origins = np.zeros(most, np.int64)
    distances = np.empty(most * LANES, np.float32)
    logits = np.empty(most * LANES, np.float32)
    shown = np.zeros(_CHANNELS * LANES, np.float32)
    zero = splat(0.0)
    before = flush_denormals()
    for image in range(batch):
        for patch in range(rows * columns):
            count = _see(mean, precision, colour, depth, image, patch, grid, channels, seen, origins)
            for vector in range(0, places, LANES):
                x, y = load(xs, patch * places + vector), load(ys, patch * places + vector)
                peak = splat(-3e38)
                for n in range(count):
                    at = n * _NUMBERS
                    ex, ey = x - splat(entry(seen, at + _X)), y - splat(entry(seen, at + _Y))
                    along = fused(splat(entry(seen, at + _XX)), ex, splat(entry(seen, at + _XY)) * ey)
                    distance = maximum(fused(along, ex, splat(entry(seen, at + _YY)) * ey * ey), zero)
                    logit = fused(splat(-4.0), distance, splat(entry(seen, at + _DEPTH)))
                    if reach > 0:
                        logit = logit + load(fading, (patch * 9 + int(entry(seen, at + _PLACE))) * places + vector)
                    store(distances, n * LANES, distance)
                    store(logits, n * LANES, logit)
                    peak = maximum(peak, logit)
                if level == level:
                    peak = splat(level)
                summed, light0, light1, light2 = zero, zero, zero, zero
                for n in range(count):
                    lower = load(logits, n * LANES) - peak
                    if largest(lower) < np.float32(HIDDEN):
                        continue
                    at = n * _NUMBERS + _COLOUR
                    weight = exponential_to_rounding(lower)
                    summed = summed + weight
                    if falling:
                        weight = weight * exponential_to_rounding(zero - load(distances, n * LANES))
                    light0 = fused(weight, splat(entry(seen, at)), light0)
                    light1 = fused(weight, splat(entry(seen, at + 1)), light1)
                    light2 = fused(weight, splat(entry(seen, at + 2)), light2)
                share = splat(1.0) / (summed + splat(epsilon))
                here = (image * rows * columns + patch) * places + vector
                store(peaks, here, peak)
                store(shares, here, share)
                store(shown, 0, light0 * share)
                store(shown, LANES, light1 * share)
                store(shown, 2 * LANES, light2 * share)
                for lane in range(LANES):
                    pixel = pixels[patch, vector + lane]
                    if pixel >= 0:
                        for channel in range(channels):
                            images[image, channel, pixel] = shown[channel * LANES + lane]
    restore_denormals(before)


@compiled
def draw_patches_back(
    mean,
    precision,
    colour,
    depth,
    xs,
    ys,
    fading,
    pixels,
    images,
    peaks,
    shares,
    grid,
    falling,
    pulls,
    mean_gradient,
    precision_gradient,
    colour_gradient,
    depth_gradient,
):
    """Gradients of all numbers of the splats; arguments as filled by ``draw_patches``.

    ``pulls`` float32 [image, channel, pixel] is the gradient of each pixel; the last four, zeros shaped like the
    numbers of the splats, receive theirs.
    """
    rows, columns, splats, reach = grid
    batch, channels, _ = images.shape
    places = len(xs) // (rows * columns)
    most = splats * (2 * reach + 1) ** 2
    seen = np.zeros(most * _NUMBERS, np.float32)
    origins = np.zeros(most, np.int64)
    pulled = np.zeros(_CHANNELS * places, np.float32)
    mixed = np.zeros(places, np.float32)
    moments = np.zeros(8, np.float32)
    zero = splat(0.0)
    before = flush_denormals()
    for image in range(batch):
        for patch in range(rows * columns):
            count = _see(mean, precision, colour, depth, image, patch, grid, channels, seen, origins)
            for place in range(places):
                pixel = pixels[patch, place]
                both = np.float32(0)
                for channel in range(channels):
                    pull = pulls[image, channel, pixel] if pixel >= 0 else np.float32(0)
                    pulled[channel * places + place] = pull
                    if pixel >= 0:
                        both += pull * images[image, channel, pixel]
                mixed[place] = both
            for n in range(count):
                at = n * _NUMBERS
                mean_x, mean_y = splat(entry(seen, at + _X)), splat(entry(seen, at + _Y))
                xx, xy, yy = entry(seen, at + _XX), entry(seen, at + _XY), entry(seen, at + _YY)
                twice_depth = splat(entry(seen, at + _DEPTH))
                colour0, colour1, colour2 = (
                    splat(entry(seen, at + _COLOUR)),
                    splat(entry(seen, at + _COLOUR + 1)),
                    splat(entry(seen, at + _COLOUR + 2)),
                )
                faded = (patch * 9 + int(entry(seen, at + _PLACE))) * places
                sum_x, sum_y, sum_xx, sum_xy, sum_yy, sum_logit = zero, zero, zero, zero, zero, zero
                gather0, gather1, gather2 = zero, zero, zero
                reached = False
                for vector in range(0, places, LANES):
                    here = (image * rows * columns + patch) * places + vector
                    ex, ey = load(xs, patch * places + vector) - mean_x, load(ys, patch * places + vector) - mean_y
                    along = fused(splat(xx), ex, splat(xy) * ey)
                    distance = maximum(fused(along, ex, splat(yy) * ey * ey), zero)
                    logit = fused(splat(-4.0), distance, twice_depth)
                    if reach > 0:
                        logit = logit + load(fading, faded + vector)
                    lower = logit - load(peaks, here)
                    if largest(lower) < np.float32(HIDDEN):
                        continue
                    reached = True
                    weight = exponential_to_rounding(lower) * load(shares, here)
                    light = weight
                    if falling:
                        light = weight * exponential_to_rounding(zero - distance)
                    pull0, pull1, pull2 = (
                        load(pulled, vector),
                        load(pulled, places + vector),
                        load(pulled, 2 * places + vector),
                    )
                    gather0 = fused(light, pull0, gather0)
                    gather1 = fused(light, pull1, gather1)
                    gather2 = fused(light, pull2, gather2)
                    own = light * fused(pull0, colour0, fused(pull1, colour1, pull2 * colour2))
                    of_logit = own - weight * load(mixed, vector)
                    of_distance = splat(-4.0) * of_logit
                    if falling:
                        of_distance = of_distance - own
                    sum_logit = sum_logit + of_logit
                    along_x, along_y = of_distance * ex, of_distance * ey
                    sum_x, sum_y = sum_x + along_x, sum_y + along_y
                    sum_xx = fused(along_x, ex, sum_xx)
                    sum_xy = fused(along_x, ey, sum_xy)
                    sum_yy = fused(along_y, ey, sum_yy)
                if not reached:
                    continue
                scatter_totals(
                    moments, 0, 1, np.float32(1), sum_x, sum_y, sum_xx, sum_xy, sum_yy, gather0, gather1, gather2
                )
                origin = origins[n]
                mean_gradient[2 * origin] -= np.float32(2) * xx * moments[0] + xy * moments[1]
                mean_gradient[2 * origin + 1] -= xy * moments[0] + np.float32(2) * yy * moments[1]
                precision_gradient[3 * origin] += moments[2]
                precision_gradient[3 * origin + 1] += np.float32(2) * moments[3]
                precision_gradient[3 * origin + 2] += moments[4]
                for channel in range(channels):
                    colour_gradient[channels * origin + channel] += moments[5 + channel]
                depth_gradient[origin] += np.float32(2) * total(sum_logit)
    restore_denormals(before)
