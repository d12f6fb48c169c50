"""Where Gaussians begin: compiled parts of ``encoders.start.begin``."""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.vector import LANES, flush_denormals, fused, load, restore_denormals, splat, store

_GREATEST_SPREAD = np.float32(1e28)
"""Scalings of Sinkhorn's iteration may spread this far before float32 would overflow."""

BLOCK = 4 * LANES
"""Tables are padded to four vectors, which are summed side by side: enough to hide the latency of an addition."""

GRID, TRANSPORT, ADAPTIVE = range(3)


@compiled
def saliency(image, ink, edge, floor, density):
    """How many Gaussians a pixel deserves: brightness and local contrast above a uniform floor, summing to 1.

    Args:
        image: uint8 [height, width, channel].
        ink: weight of the brightness.
        edge: weight of the length of the gradient.
        floor: share of the mass that is spread evenly.
        density: float32 [height, width], receives the result.
    """
    height, width, channels = image.shape
    mass = 0.0
    for row in range(height):
        above, below = max(row - 1, 0), min(row + 1, height - 1)
        for column in range(width):
            left, right = max(column - 1, 0), min(column + 1, width - 1)
            bright, slope = 0.0, 0.0
            for channel in range(channels):
                bright += float(image[row, column, channel])
                dx = float(image[row, right, channel]) - float(image[row, left, channel])
                dy = float(image[below, column, channel]) - float(image[above, column, channel])
                slope += dx * dx + dy * dy
            value = ink * bright / channels + edge * np.sqrt(slope / channels)
            density[row, column] = value
            mass += value
    even = 1.0 / (height * width)
    # A faint image keeps its floor: mass below one 8-bit level per hundred pixels counts as evenly spread.
    faint = 0.01 * height * width
    scale = (1.0 - floor) / max(mass, faint)
    rest = 1.0 - scale * mass
    for row in range(height):
        for column in range(width):
            density[row, column] = scale * density[row, column] + rest * even


@compiled
def _gather(density, by_column, by_row, sums, rows, padded):
    """sums_i = sum over pixels of by_row[y, i] by_column[x, i] density[y, x]; lanes are anchors, four vectors wide."""
    height, width = rows
    for n in range(0, padded, BLOCK):
        result0, result1, result2, result3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        # Two rows at a time, so that a table entry that was loaded serves twice.
        for row in range(0, height, 2):
            below = min(row + 1, height - 1)
            upper0, upper1, upper2, upper3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            lower0, lower1, lower2, lower3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for column in range(width):
                upper, lower = splat(density[row * width + column]), splat(density[below * width + column])
                at = column * padded + n
                table0, table1 = load(by_column, at), load(by_column, at + LANES)
                table2, table3 = load(by_column, at + 2 * LANES), load(by_column, at + 3 * LANES)
                upper0, lower0 = fused(upper, table0, upper0), fused(lower, table0, lower0)
                upper1, lower1 = fused(upper, table1, upper1), fused(lower, table1, lower1)
                upper2, lower2 = fused(upper, table2, upper2), fused(lower, table2, lower2)
                upper3, lower3 = fused(upper, table3, upper3), fused(lower, table3, lower3)
            at = row * padded + n
            result0 = fused(upper0, load(by_row, at), result0)
            result1 = fused(upper1, load(by_row, at + LANES), result1)
            result2 = fused(upper2, load(by_row, at + 2 * LANES), result2)
            result3 = fused(upper3, load(by_row, at + 3 * LANES), result3)
            if below > row:
                at = below * padded + n
                result0 = fused(lower0, load(by_row, at), result0)
                result1 = fused(lower1, load(by_row, at + LANES), result1)
                result2 = fused(lower2, load(by_row, at + 2 * LANES), result2)
                result3 = fused(lower3, load(by_row, at + 3 * LANES), result3)
        store(sums, n, result0)
        store(sums, n + LANES, result1)
        store(sums, n + 2 * LANES, result2)
        store(sums, n + 3 * LANES, result3)


@compiled
def _spread(scales, by_anchor_column, by_row, sums, rows, count, padded, wide):
    """sums[y, x] = sum over anchors of scales_i by_row[y, i] by_anchor_column[i, x]; lanes are columns."""
    height, _ = rows
    # Two rows at a time, as above; the last of an odd number is written twice.
    for row in range(0, height, 2):
        below = min(row + 1, height - 1)
        for column in range(0, wide, BLOCK):
            upper0, upper1, upper2, upper3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            lower0, lower1, lower2, lower3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for n in range(count):
                upper = splat(scales[n] * by_row[row * padded + n])
                lower = splat(scales[n] * by_row[below * padded + n])
                at = n * wide + column
                table0, table1 = load(by_anchor_column, at), load(by_anchor_column, at + LANES)
                table2, table3 = load(by_anchor_column, at + 2 * LANES), load(by_anchor_column, at + 3 * LANES)
                upper0, lower0 = fused(upper, table0, upper0), fused(lower, table0, lower0)
                upper1, lower1 = fused(upper, table1, upper1), fused(lower, table1, lower1)
                upper2, lower2 = fused(upper, table2, upper2), fused(lower, table2, lower2)
                upper3, lower3 = fused(upper, table3, upper3), fused(lower, table3, lower3)
            at = row * wide + column
            store(sums, at, upper0)
            store(sums, at + LANES, upper1)
            store(sums, at + 2 * LANES, upper2)
            store(sums, at + 3 * LANES, upper3)
            at = below * wide + column
            store(sums, at, lower0)
            store(sums, at + LANES, lower1)
            store(sums, at + 2 * LANES, lower2)
            store(sums, at + 3 * LANES, lower3)


@compiled
def transport(density, tables_column, tables_row, tables_anchor, epsilons, iterations, count, positions):
    """Entropic optimal transport from K anchors of equal mass to ``density``; barycentric projection.

    Sinkhorn's scaling with annealed regularisation (Cuturi 2013, arXiv:1306.0895). The Gibbs kernel of the squared
    distance is a product over the axes, so it is never formed.

    Args:
        density: float32 [height, width], sums to 1.
        tables_column: float32 [level, width * padded], exp(-(x - x_i)^2 / epsilon), anchors last.
        tables_row: float32 [level, height * padded], the same for y.
        tables_anchor: float32 [level, count * wide], the same as ``tables_column`` with columns last.
        epsilons: float32 [level], regularisation of each level (normalised units squared), falling.
        iterations: of each level.
        count: K.
        positions: float32 [count, 2], receives (x, y) in [-1, 1].
    """
    height, width = density.shape
    levels = len(epsilons)
    padded = (count + BLOCK - 1) // BLOCK * BLOCK
    wide = (width + BLOCK - 1) // BLOCK * BLOCK
    rows = (height, width)
    u = np.zeros(padded, np.float32)
    kept = np.zeros(padded, np.float32)
    sums = np.zeros(padded, np.float32)
    spread = np.zeros(height * wide, np.float32)
    v = np.zeros(height * width, np.float32)
    share = np.float32(1.0 / count)
    for n in range(count):
        u[n] = np.float32(1)
    good = 0
    for level in range(levels):
        for _ in range(iterations):
            _spread(u, tables_anchor[level], tables_row[level], spread, rows, count, padded, wide)
            for row in range(height):
                for column in range(width):
                    v[row * width + column] = density[row, column] / spread[row * wide + column]
            _gather(v, tables_column[level], tables_row[level], sums, rows, padded)
            for n in range(count):
                u[n] = share / sums[n]
        low, high = u[0], u[0]
        for n in range(count):
            low, high = min(low, u[n]), max(high, u[n])
        # A map too far for float32 at this level keeps the last level's: smooth, only blunter.
        if not (low > 0 and high < np.float32(np.inf) and high < low * _GREATEST_SPREAD):
            break
        good = level
        kept[:] = u
        if level + 1 < levels:
            # Potentials are epsilon log u: they carry over to the next level.
            power = epsilons[level] / epsilons[level + 1]
            middle = np.sqrt(low) * np.sqrt(high)
            for n in range(count):
                u[n] = np.float32((u[n] / middle) ** power)
    _spread(kept, tables_anchor[good], tables_row[good], spread, rows, count, padded, wide)
    moment = np.empty((3, height * width), np.float32)
    for row in range(height):
        for column in range(width):
            at = row * width + column
            value = density[row, column] / spread[row * wide + column]
            moment[0, at] = value
            moment[1, at] = value * np.float32((2 * column + 1) / width - 1)
            moment[2, at] = value * np.float32((2 * row + 1) / height - 1)
    mass = np.empty((3, padded), np.float32)
    for axis in range(3):
        _gather(moment[axis], tables_column[good], tables_row[good], mass[axis], rows, padded)
    for n in range(count):
        positions[n, 0] = mass[1, n] / mass[0, n]
        positions[n, 1] = mass[2, n] / mass[0, n]


@compiled
def stratify(density, curve, offset, positions):
    """One point in each of K strata of equal mass along a space-filling curve.

    Args:
        density: float32 [height, width], sums to 1.
        curve: int32 [height * width], pixels in the order of the curve.
        offset: where in its stratum each point lies, in [0, 1).
        positions: float32 [count, 2], receives pixel coordinates (x, y).
    """
    width = density.shape[1]
    count = len(positions)
    whole = 0.0
    for pixel in curve:
        whole += float(density[pixel // width, pixel % width])
    mass, n = 0.0, 0
    for pixel in curve:
        row, column = pixel // width, pixel % width
        mass += float(density[row, column]) / whole * count
        while n < count and n + offset < mass:
            positions[n, 0] = column + np.float32(0.5)
            positions[n, 1] = row + np.float32(0.5)
            n += 1
    while n < count:
        positions[n, 0] = curve[-1] % width + np.float32(0.5)
        positions[n, 1] = curve[-1] // width + np.float32(0.5)
        n += 1


@compiled
def relax(density, positions, rounds):
    """Lloyd's iteration: every point moves to the centroid of the density that is nearest to it.

    Points that share a place are told apart by index, and a point without any mass stays.
    """
    height, width = density.shape
    count = len(positions)
    sums = np.zeros((count, 3), np.float32)
    for _ in range(rounds):
        sums[:] = np.float32(0)
        # From the row outwards: most points lie further above or below than the nearest point found so far.
        order = np.argsort(positions[:, 1])
        middle = 0
        for row in range(height):
            y = np.float32(row + 0.5)
            while middle < count and positions[order[middle], 1] < y:
                middle += 1
            guess = 0
            for column in range(width):
                x = np.float32(column + 0.5)
                nearest = guess
                best = (positions[guess, 0] - x) ** 2 + (positions[guess, 1] - y) ** 2
                for step in (-1, 1):
                    at = middle if step > 0 else middle - 1
                    while 0 <= at < count:
                        n = order[at]
                        dy = positions[n, 1] - y
                        if dy * dy > best:
                            break
                        dx = positions[n, 0] - x
                        distance = dx * dx + dy * dy
                        # Of equally near points that of the pixel before, else the one of the least index.
                        if distance < best or (distance == best and nearest != guess and n < nearest):
                            best, nearest = distance, n
                        at += step
                guess = nearest
                weight = density[row, column]
                sums[nearest, 0] += weight
                sums[nearest, 1] += weight * x
                sums[nearest, 2] += weight * y
        for n in range(count):
            if sums[n, 0] > 0:
                positions[n, 0] = sums[n, 1] / sums[n, 0]
                positions[n, 1] = sums[n, 2] / sums[n, 0]


@compiled
def spacings(positions, result):
    """Mean distance of each point to its three nearest others.

    Args:
        positions: float32 [count, 2] in pixels.
        result: float32 [count]; infinite where there are fewer than three others.
    """
    count = len(positions)
    for n in range(count):
        first = second = third = np.float32(np.inf)
        for other in range(count):
            if other == n:
                continue
            dx, dy = positions[n, 0] - positions[other, 0], positions[n, 1] - positions[other, 1]
            distance = dx * dx + dy * dy
            if distance < third:
                if distance < first:
                    first, second, third = distance, first, second
                elif distance < second:
                    second, third = distance, second
                else:
                    third = distance
        result[n] = (np.sqrt(first) + np.sqrt(second) + np.sqrt(third)) / np.float32(3)


@compiled
def local_colours(image, positions, result):
    """Bilinear sample of the 3x3 mean of the image at each point.

    Args:
        image: uint8 [height, width, channel].
        positions: float32 [count, 2] in pixels.
        result: float32 [count, channel] in [0, 1].
    """
    height, width, channels = image.shape
    for n in range(len(positions)):
        # A 3x3 mean sampled bilinearly is a 4x4 window with these separable weights: continuous in the position.
        x, y = positions[n, 0] - np.float32(0.5), positions[n, 1] - np.float32(0.5)
        left, top = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - np.float32(left), y - np.float32(top)
        for channel in range(channels):
            result[n, channel] = np.float32(0)
        for i in range(-1, 3):
            wy = (np.float32(1) - fy) if i == -1 else (fy if i == 2 else np.float32(1))
            row = min(max(top + i, 0), height - 1)
            for j in range(-1, 3):
                wx = (np.float32(1) - fx) if j == -1 else (fx if j == 2 else np.float32(1))
                column = min(max(left + j, 0), width - 1)
                for channel in range(channels):
                    result[n, channel] += wy * wx * np.float32(image[row, column, channel])
        for channel in range(channels):
            result[n, channel] *= np.float32(1.0 / (9 * 255))


@compiled
def begin_images(
    images,
    kind,
    points,
    weights,
    tables_column,
    tables_row,
    tables_anchor,
    epsilons,
    iterations,
    curve,
    offsets,
    rounds,
    spread,
    brightness,
    frames,
):
    """Starts of a range of images; see ``encoders.start.begin.begin``.

    Args (beyond those of the functions above): ``kind`` = GRID, TRANSPORT or ADAPTIVE; ``points`` = anchors float32
    [count, 2] in [-1, 1]; ``weights`` = (ink, edge, floor); ``offsets`` float64 [image]; ``frames`` receives float32
    [image, count, 5 + channel].
    """
    before = flush_denormals()
    number, height, width, channels = images.shape
    count = len(points)
    density = np.empty((height, width), np.float32)
    positions = np.empty((count, 2), np.float32)
    distances = np.empty(count, np.float32)
    colours = np.empty((count, channels), np.float32)
    # Between a third of a pixel and half the image; fewer than four Gaussians share the image evenly.
    least, most = np.float32(0.3), np.float32(0.5 * max(height, width))
    alone = np.float32(0.5 * np.sqrt(height * width / count))
    for image in range(number):
        if kind == ADAPTIVE:
            saliency(images[image], weights[0], weights[1], weights[2], density)
            stratify(density, curve, offsets[image], positions)
            relax(density, positions, rounds)
        else:
            if kind == TRANSPORT:
                saliency(images[image], weights[0], weights[1], weights[2], density)
                transport(density, tables_column, tables_row, tables_anchor, epsilons, iterations, count, positions)
            else:
                positions[:] = points
            for n in range(count):
                positions[n, 0] = (positions[n, 0] + np.float32(1)) * np.float32(0.5 * width)
                positions[n, 1] = (positions[n, 1] + np.float32(1)) * np.float32(0.5 * height)
        spacings(positions, distances)
        local_colours(images[image], positions, colours)
        for n in range(count):
            sigma = np.float32(spread) * distances[n] if np.isfinite(distances[n]) else alone
            log_factor = -np.log(min(max(sigma, least), most))
            frames[image, n, X] = positions[n, 0]
            frames[image, n, Y] = positions[n, 1]
            frames[image, n, LOG_A] = log_factor
            frames[image, n, B] = np.float32(0)
            frames[image, n, LOG_C] = log_factor
            for channel in range(channels):
                frames[image, n, COLOUR + channel] = np.float32(brightness) * colours[n, channel]
    restore_denormals(before)
