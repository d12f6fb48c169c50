from __future__ import annotations

import pytest
import torch

from data_schemas.errors import JobError
from models.diffusion.schedules import SCHEDULES, DiscretePath, ScheduleName, StraightPath, alpha_bars


@pytest.mark.parametrize(("steps", "left"), [(50, 0.60), (100, 0.36), (200, 0.131), (1000, 4.0e-5)])
def test_linear_betas_leave_signal_at_the_last_step(steps: int, left: float) -> None:
    assert float(alpha_bars("linear", steps)[-1]) == pytest.approx(left, rel=0.02)


@pytest.mark.parametrize("steps", [10, 200, 1000])
def test_the_cosine_schedule_ends_in_pure_noise(steps: int) -> None:
    table = alpha_bars("cosine", steps)
    assert float(table[-1]) == 0
    # Half the variance is left at half the way, but for the small offset.
    assert float(table[steps // 2]) == pytest.approx(0.494, abs=0.002)


@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_fall_from_clean_data(name: ScheduleName) -> None:
    table = alpha_bars(name, 200)
    assert table.shape == (201,)
    assert float(table[0]) == 1
    assert (table.diff() < 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_1_is_clean_and_time_0_is_the_last_step(name: ScheduleName) -> None:
    path = DiscretePath(name, 200)
    times = torch.tensor([1.0, 0.75, 0.0])
    assert path.step(times).tolist() == [0, 50, 200]
    signal, noise = path.signal(times), path.noise(times)
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(3))
    assert (float(signal[0]), float(noise[0])) == (1, 0)
    torch.testing.assert_close(signal.double() ** 2, path.alpha_bar[[0, 50, 200]], rtol=1e-5, atol=1e-9)


def test_the_straight_path_has_zero_signal_at_0_and_zero_noise_at_1() -> None:
    path, ends = StraightPath(), torch.tensor([0.0, 1.0])
    assert path.signal(ends).tolist() == [0, 1]
    assert path.noise(ends).tolist() == [1, 0]
    assert path.times(4) == [0, 0.25, 0.5, 0.75, 1]
    assert StraightPath(0.02).times(1) == [0.02, 1]


@pytest.mark.parametrize("steps", [1, 7, 50, 200])
def test_a_sampler_visits_steps_of_the_table_once_and_ends_clean(steps: int) -> None:
    path = DiscretePath("cosine", 200)
    times = path.times(steps)
    visited = path.step(torch.tensor(times))
    assert len(times) == steps + 1
    assert visited[0] == 200
    assert visited[-1] == 0
    assert (visited.diff() < 0).all()


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(JobError, match="sigmoid"):
        alpha_bars("sigmoid", 10)  # pyright: ignore[reportArgumentType]
    with pytest.raises(JobError, match="0 steps"):
        alpha_bars("cosine", 0)
    for steps in (0, 201):
        with pytest.raises(JobError, match="1 to 200"):
            DiscretePath("linear", 200).times(steps)
