"""The optimisation of one large image by several threads: the steps of ``encoders.cpu.fit``, cut into shares.

A step is two rounds of shares: rows of pixels (sum and residual), then Gaussians (moments and Adam). Nothing is added
up across shares (``encoders.cpu.shares``), so the bytes do not depend on how many there are. Between rounds the
interpreter hands out the work, some tens of microseconds: little beside a step of an image of
``encoders.base.LARGE_PIXELS``.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from encoders.cpu.boxes import DERIVED, derive
from encoders.cpu.moments import MOMENTS
from encoders.cpu.moves import reseed
from encoders.cpu.rule import FitRule
from encoders.cpu.shares import move_gaussians, prepare, sum_rows
from encoders.cpu.sums import half_sum_of_squares
from encoders.frame import X
from encoders.team import Team, cut_evenly
from encoders.vector import LANES

SHARES_PER_THREAD = 6
"""Shares of Gaussians for each thread: where one is held up the others take over. Rows are cut once for each thread,
as a box that is cut is set up twice."""


def fit_large(
    image: NDArray[np.uint8],
    frame: NDArray[np.float32],
    result: NDArray[np.float32],
    team: Team,
    rule: FitRule,
) -> int:
    """Fits one image.

    Args:
        image: uint8 [height, width, channel].
        frame: float32 [gaussian, 5 + channel], where Gaussians begin (encoders.frame).
        result: float32 like ``frame``, receives the best iterate.
        team: threads that share the work.
        rule: what decides the fit beside these.

    Returns:
        The optimiser steps taken.
    """
    rates, betas, limits, target_error, tag, bounded, epsilon, cut, tail, reseed_every, reseed_until, reach = rule
    height, width, channels = image.shape
    count, parameters = frame.shape
    padded = -(-count // LANES) * LANES
    stride = width + LANES
    room = height * stride
    target, low, high = _lay_out_target(image)
    mask = np.zeros(stride + LANES, np.float32)
    mask[:width] = 1
    planes = np.zeros(len(tag) * room + LANES, np.float32)
    # The planes of an additive sum hold the differences themselves.
    differences = planes if len(tag) == channels else np.zeros(channels * room + LANES, np.float32)
    table = np.zeros((parameters, padded), np.float32)
    table[:, :count] = frame.T
    table[X, count:] = -1e4
    theta = table.ravel()
    former, best, first, second = (np.zeros(parameters * padded, np.float32) for _ in range(4))
    derived = np.zeros(DERIVED * padded, np.float32)
    moments = np.zeros(MOMENTS * padded, np.float32)
    chains, spans, layout = (np.empty(0, np.float32) for _ in range(3))
    places = np.zeros((3, count), np.int64)
    row_work, again, work = np.zeros(height), np.zeros(height), np.zeros(padded)
    needed = np.zeros(height * width, np.float32)
    sizes = (count, padded, height, width)
    least, taken, steps = np.float32(np.inf), 0, len(rates)
    error = least

    def measure() -> None:
        nonlocal error
        error = np.float32(half_sum_of_squares(differences, height, width, channels))

    derive(theta, derived, padded, height, width, cut)
    for step in range(steps + 1):
        chains, spans, layout = prepare(theta, derived, chains, spans, layout, places, row_work, again, work, *sizes)
        kept = (chains, spans, layout, places)
        seen = (target, low, high, mask, differences)
        team.share(
            [
                partial(sum_rows, theta, derived, planes, *kept, *seen, *rows, *sizes, tag, channels, epsilon)
                for rows in cut_evenly(row_work, team.threads, 1, again)
            ]
        )
        former[:] = theta
        calls: list[partial[None]] = []
        if step < steps:
            moved = (theta, first, second, derived, planes, *kept, moments)
            how = (rates[step], betas, limits, bounded, cut)
            calls = [
                partial(move_gaussians, *moved, *gaussians, *sizes, tag, channels, *how)
                for gaussians in cut_evenly(work, SHARES_PER_THREAD * team.threads, LANES)
            ]
        # Adding up the error, in one order, takes as long as a small share; a step that turns out to be one too many
        # is not kept.
        team.share([measure, *calls])
        if error < least and (step >= tail or error <= target_error):
            least = error
            former, best = best, former
        if step == steps or error <= target_error:
            break
        taken += 1
        if reach >= 0 and reseed_every > 0 and taken % reseed_every == 0 and taken <= reseed_until:
            reseed(theta, first, second, planes, needed, *sizes, channels, reach)
            derive(theta, derived, padded, height, width, cut)
    result[:] = best.reshape(parameters, padded)[:, :count].T
    return taken


def _lay_out_target(image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The image as padded planes, and between which values its sum counts as it is (``encoders.cpu.sums.residual``)."""
    height, width, channels = image.shape
    shape, tail = (channels, height, width + LANES), np.zeros(LANES, np.float32)
    planes = image.transpose(2, 0, 1)
    target, low, high = (np.zeros(shape, np.float32) for _ in range(3))
    target[:, :, :width] = planes.astype(np.float32) * np.float32(1 / 255)
    low[:, :, :width] = np.where(planes == 0, np.float32(0), np.float32(-1e30))
    high[:, :, :width] = np.where(planes == 255, np.float32(1), np.float32(1e30))
    return tuple(np.concatenate([plane.ravel(), tail]) for plane in (target, low, high))  # pyright: ignore
