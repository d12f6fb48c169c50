"""Where Gaussians begin: compiled parts of ``encoders.start.begin``."""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.start.transport import transport
from encoders.vector import flush_denormals, restore_denormals

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
def find_nearest(positions, order, first, last, width, nearest_points):
    """The nearest point of every pixel of rows ``first`` to ``last``.

    Args:
        positions: float32 [count, 2] in pixels.
        order: int64 [count], the points from the top down.
        first: row.
        last: the row after the last.
        width: columns of the image.
        nearest_points: int32 [height * width], receives the result.
    """
    count = len(positions)
    # From the row outwards: most points lie further above or below than the nearest point found so far.
    middle = 0
    for row in range(first, last):
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
            nearest_points[row * width + column] = nearest


@compiled
def move_to_centroids(density, nearest_points, sums, positions):
    """Moves every point to the centroid of the pixels that are nearest to it; one without any mass stays.

    ``sums`` float32 [count, 3] is room to work in.
    """
    height, width = density.shape
    sums[:] = np.float32(0)
    for row in range(height):
        y = np.float32(row + 0.5)
        for column in range(width):
            x = np.float32(column + 0.5)
            nearest = nearest_points[row * width + column]
            weight = density[row, column]
            sums[nearest, 0] += weight
            sums[nearest, 1] += weight * x
            sums[nearest, 2] += weight * y
    for n in range(len(positions)):
        if sums[n, 0] > 0:
            positions[n, 0] = sums[n, 1] / sums[n, 0]
            positions[n, 1] = sums[n, 2] / sums[n, 0]


@compiled
def relax(density, positions, rounds):
    """Lloyd's iteration: every point moves to the centroid of the density that is nearest to it.

    Points that share a place are told apart by index, and a point without any mass stays.
    """
    height, width = density.shape
    sums = np.zeros((len(positions), 3), np.float32)
    nearest_points = np.empty(height * width, np.int32)
    for _ in range(rounds):
        find_nearest(positions, np.argsort(positions[:, 1]), 0, height, width, nearest_points)
        move_to_centroids(density, nearest_points, sums, positions)


@compiled
def spacings(positions, first_point, last_point, result):
    """Mean distance of points ``first_point`` to ``last_point`` to their three nearest others.

    Args:
        positions: float32 [count, 2] in pixels.
        first_point: index.
        last_point: the index after the last.
        result: float32 [count]; infinite where there are fewer than three others.
    """
    count = len(positions)
    for n in range(first_point, last_point):
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
def to_pixels(positions, height, width):
    """Moves points float32 [count, 2] from [-1, 1] to pixels in place."""
    for n in range(len(positions)):
        positions[n, 0] = (positions[n, 0] + np.float32(1)) * np.float32(0.5 * width)
        positions[n, 1] = (positions[n, 1] + np.float32(1)) * np.float32(0.5 * height)


@compiled
def lay_frame(image, positions, distances, spread, brightness, colours, frame):
    """Gaussians as wide as their ``distances`` to their neighbours ask for, coloured by the pixels under them.

    ``colours`` float32 [count, channel] is room to work in; ``frame`` float32 [count, 5 + channel] is filled.
    """
    height, width, channels = image.shape
    count = len(positions)
    # Between a third of a pixel and half the image; fewer than four Gaussians share the image evenly.
    least, most = np.float32(0.3), np.float32(0.5 * max(height, width))
    alone = np.float32(0.5 * np.sqrt(height * width / count))
    local_colours(image, positions, colours)
    for n in range(count):
        sigma = np.float32(spread) * distances[n] if np.isfinite(distances[n]) else alone
        log_factor = -np.log(min(max(sigma, least), most))
        frame[n, X] = positions[n, 0]
        frame[n, Y] = positions[n, 1]
        frame[n, LOG_A] = log_factor
        frame[n, B] = np.float32(0)
        frame[n, LOG_C] = log_factor
        for channel in range(channels):
            frame[n, COLOUR + channel] = np.float32(brightness) * colours[n, channel]


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
                for n in range(count):  # a loop, as in ``keep_scales``
                    positions[n, 0], positions[n, 1] = points[n, 0], points[n, 1]
            to_pixels(positions, height, width)
        spacings(positions, 0, count, distances)
        lay_frame(images[image], positions, distances, spread, brightness, colours, frames[image])
    restore_denormals(before)
