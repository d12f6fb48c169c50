from __future__ import annotations

import pytest
import torch
from torch import nn

from data_schemas.errors import CheckpointError
from models.ema import LARGEST_DECAY, Ema, decay_for


def _set(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_the_mean_ramps_up_and_then_follows_its_decay() -> None:
    model = nn.Linear(1, 1, bias=False)
    _set(model, 5.0)
    ema, expected = Ema(model, 0.5), 5.0
    for update in range(30):
        _set(model, float(update))
        ema.update(model)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * update
        assert ema.model.state_dict()["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_the_first_weights_are_forgotten_by_the_ramp() -> None:
    model = nn.Linear(1, 1, bias=False)
    _set(model, 1000.0)
    ema = Ema(model, LARGEST_DECAY)
    _set(model, 0.0)
    for _ in range(100):
        ema.update(model)
    assert abs(ema.model.state_dict()["weight"].item()) < 1e-3


def test_half_of_the_memory_is_gone_after_the_half_life() -> None:
    assert decay_for(1000) ** 50 == pytest.approx(0.5)
    assert decay_for(10**9) == LARGEST_DECAY
    assert decay_for(1) == 0.5


def test_buffers_are_copied_and_the_followed_network_is_not_changed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()
    ema = Ema(model, 0.9)
    model(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ema.update(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(ema.tensors()[name], before[name])
    assert not ema.model.training
    assert model.training
    assert all(not parameter.requires_grad for parameter in ema.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_restored_it_goes_on_exactly() -> None:
    torch.manual_seed(0)
    model, one = nn.Linear(3, 3), Ema(nn.Linear(3, 3), 0.7)
    for _ in range(4):
        one.update(model)
    two = Ema(nn.Linear(3, 3), 0.1)
    two.restore(one.tensors(), one.state())
    for ema in (one, two):
        ema.update(model)
    assert all(torch.equal(value, two.tensors()[name]) for name, value in one.tensors().items())
    assert one.state() == two.state() == {"updates": 5, "decay": 0.7}
    with pytest.raises(CheckpointError, match="Mean weights"):
        two.restore({}, one.state())
