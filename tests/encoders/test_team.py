"""Threads that share the work on one image."""

import threading
from functools import partial

import numpy as np
import pytest

from encoders.team import Team, cut_evenly


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_call_is_made_once_and_is_done_afterwards(threads):
    made = np.zeros(40, int)

    def call(number):
        made[number] += 1

    with Team(threads) as team:
        for _ in range(3):
            team.share([partial(call, number) for number in range(40)])
        team.share([])
    assert (made == 3).all()


def test_threads_work_at_the_same_time():
    # Each call waits for the other: alone, neither would end.
    meeting = threading.Barrier(2, timeout=60)
    with Team(2) as team:
        team.share([meeting.wait, meeting.wait])


def test_what_fails_on_any_thread_is_raised():
    meeting = threading.Barrier(2, timeout=60)

    def fail():
        meeting.wait()
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("on the other thread")

    with Team(2) as team, pytest.raises(ValueError, match="on the other thread"):
        team.share([fail, fail])


def test_time_of_the_other_threads_is_counted():
    meeting = threading.Barrier(2, timeout=60)

    def work():
        meeting.wait()
        sum(range(200_000))

    with Team(2) as team:
        team.share([work, work])
        assert team.seconds > 0


def test_denormal_numbers_are_zero_within_and_kept_after():
    tiny, half = np.full(8, 1e-38, np.float32), np.float32(0.25)
    seen = []
    meeting = threading.Barrier(2, timeout=60)

    def multiply():
        meeting.wait()
        seen.append(bool((tiny * half).any()))

    with Team(2) as team:
        team.share([multiply, multiply])
    assert len(set(seen)) == 1, "both threads compute alike"
    assert (tiny * half).all()


@pytest.mark.parametrize(("items", "shares", "multiple"), [(100, 4, 1), (100, 7, 8), (3, 8, 1), (1, 3, 8), (16, 2, 32)])
def test_ranges_cover_all_items_once(items, shares, multiple):
    work = np.cumsum(np.random.default_rng(0).uniform(0, 1, items))
    ranges = cut_evenly(work, shares, multiple)
    assert [item for first, last in ranges for item in range(first, last)] == list(range(items))
    assert len(ranges) <= shares
    assert all(first % multiple == 0 for first, _ in ranges)


def test_ranges_hold_equal_work():
    # All of the work in the last tenth.
    work = np.cumsum(np.where(np.arange(1000) < 900, 0.0, 1.0))
    assert cut_evenly(work, 4) == [(0, 924), (924, 949), (949, 974), (974, 1000)]
