"""Networks, objectives, samplers and checkpoints together, all as small as they come."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.base import DataSpec
from models.checkpoint import load_checkpoint, save_checkpoint
from models.diffusion.objective_settings import OBJECTIVES
from models.diffusion.objectives import Objective, build_objective
from models.diffusion.samplers import generators_for, sample
from models.registry import MODELS, build_model
from tests.models.small_networks import grid_anchors, ready_model

SPLATS = DataSpec(
    "splats", gaussians=6, features=6, groups=2, height=8, width=8, channels=1, anchors=grid_anchors(3, 2)
)
PIXELS = DataSpec("pixels", groups=1, height=8, width=8, channels=1)
GROUPS = (0, 0, 0, 0, 0, 1)


def _spec(model: str) -> DataSpec:
    entry = MODELS[model]
    if entry.sees == "splats":
        return SPLATS
    return replace(PIXELS, gaussians=6, anchors=grid_anchors(3, 2), layout="grey") if entry.draws else PIXELS


def _objective(name: str, model: str) -> Objective:
    return build_objective(name, groups=GROUPS) if _spec(model).kind == "splats" else build_objective(name)


def _shape(model: str, images: int) -> tuple[int, ...]:
    return (images, 6, 6) if _spec(model).kind == "splats" else (images, 1, 8, 8)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_network_trains_and_samples_with_every_objective(model: str, name: str) -> None:
    torch.manual_seed(0)
    network, objective = ready_model(model, "tiny", _spec(model)), _objective(name, model)
    clean = torch.randn(_shape(model, 4), generator=torch.Generator().manual_seed(0))
    loss = objective.loss(network, clean, None, torch.Generator().manual_seed(1))
    loss.mean().backward()
    assert loss.shape == (4,)
    assert torch.isfinite(loss).all()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients)
    made = sample(objective, network, _shape(model, 2), generators=generators_for(0, 2), evaluations=3)
    assert torch.isfinite(made).all()


@pytest.mark.parametrize("model", [name for name, entry in MODELS.items() if entry.sees == "splats"])
def test_every_network_of_splats_fills_in(model: str) -> None:
    torch.manual_seed(0)
    network, objective = build_model(model, "tiny", SPLATS), _objective("flow-clean", model)
    known = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(2, 6, 2, dtype=torch.bool)
    keep[0, :3], keep[1, :, 0] = True, True
    made = sample(objective, network, (2, 6, 6), generators=generators_for(0, 2), evaluations=3, known=known, keep=keep)
    mask = objective.spread(keep, made)
    assert torch.equal(made[mask], known[mask])


def test_a_loaded_checkpoint_samples_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_model("splatdit", "tiny", SPLATS)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    objective = _objective("flow-clean", "splatdit")
    save_checkpoint(tmp_path / "model", network, {"data": SPLATS.to_dict(), "objective": objective.config()})
    checkpoint = load_checkpoint(tmp_path / "model")
    again = build_model("splatdit", "tiny", DataSpec.from_dict(checkpoint.config["data"]))
    checkpoint.load_into(again)
    read = Objective.from_config(checkpoint.config["objective"], anchors=SPLATS.anchors)
    one = sample(objective, network, (2, 6, 6), generators=generators_for(0, 2), evaluations=4)
    assert torch.equal(one, sample(read, again, (2, 6, 6), generators=generators_for(0, 2), evaluations=4))


@pytest.mark.slow
def test_a_small_network_learns_two_pictures() -> None:
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(2, 6, 6, generator=generator)
    network = build_model("splatdit", "tiny", SPLATS)
    objective = build_objective("flow-clean", groups=GROUPS, anchors=SPLATS.anchors)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    # Steps that grow small at the end: where it comes to rest hangs neither on the seed nor on how a CPU rounds.
    steps = 150
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, 2 * (1 - step / steps))
        clean = pictures[torch.randint(0, 2, (16,), generator=generator)]
        loss = objective.loss(network, clean, None, generator).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    made = sample(objective, network, (32, 6, 6), generators=generators_for(0, 32))
    distance = (made[:, None] - pictures[None]).square().mean(dim=(2, 3))
    assert float(distance.amin(dim=1).median()) < 0.1
    # Both images are drawn, and given one's geometry its colours come back.
    assert 4 <= int((distance[:, 0] < distance[:, 1]).sum()) <= 28
    keep = torch.tensor([True, False]).expand(2, 6, 2)
    recoloured = sample(objective, network, (2, 6, 6), generators=generators_for(0, 2), known=pictures, keep=keep)
    assert float((recoloured[..., 5] - pictures[..., 5]).square().mean()) < 0.1
