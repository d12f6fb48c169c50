"""LPIPS: the distances of torchmetrics' network, gradients, and files that are no weights."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.image import lpips as reference

from data_schemas.errors import CheckpointError
from models.image_losses import BACKBONE_FILE, Lpips
from tests.models.small_networks import noise
from tests.models.vgg_weights import save_vgg, vgg_features

LINEAR = Path(str(importlib.resources.files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / BACKBONE_FILE
    save_vgg(vgg_features(), path)
    return path


@pytest.fixture(scope="module")
def distance(backbone: Path) -> Lpips:
    return Lpips.of_files(backbone, LINEAR)


@pytest.fixture(scope="module")
def torchmetrics_distance() -> reference._LPIPS:
    with pytest.MonkeyPatch.context() as patched:
        # What would be torchvision's, which is not needed to compare: the layers, with the same weights.
        patched.setattr(reference, "_get_tv_model_features", lambda _net, _pretrained: vgg_features())
        return reference._LPIPS(net="vgg")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (16, 40)])
@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
def test_distances_are_those_of_torchmetrics(
    distance: Lpips, torchmetrics_distance: reference._LPIPS, size: tuple[int, int], spread: float
) -> None:
    image = noise(2, 3, *size).clamp(-1, 1)
    target = (image + spread * noise(2, 3, *size, seed=2)).clamp(-1, 1)
    wanted = torchmetrics_distance(image, target).flatten()
    assert bool((wanted > 1e-6).all())
    torch.testing.assert_close(distance(image, target), wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_gradients_are_those_of_torchmetrics(distance: Lpips, torchmetrics_distance: reference._LPIPS) -> None:
    image, target = noise(1, 3, 16, 16).requires_grad_(), noise(1, 3, 16, 16, seed=2)
    [found] = torch.autograd.grad(distance(image, target).sum(), image)
    [wanted] = torch.autograd.grad(torchmetrics_distance(image, target).sum(), image)
    assert wanted.abs().sum() > 0
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()))


def test_nearer_images_are_nearer_and_equal_ones_at_no_distance(distance: Lpips) -> None:
    assert sum(weight.numel() for weight in distance.stages.parameters()) == 14_714_688
    image = noise(2, 3, 16, 16)
    near, far = (distance(image, image + spread * noise(2, 3, 16, 16, seed=2)) for spread in (0.05, 1.0))
    assert bool((near < far).all())
    assert torch.equal(distance(image, image), torch.zeros(2))


@pytest.mark.slow
def test_files_of_other_networks_are_named(backbone: Path, tmp_path: Path) -> None:
    missing, other = tmp_path / "missing.pth", tmp_path / "other.pth"
    with pytest.raises(CheckpointError, match=r"missing\.pth cannot be read"):
        Lpips.of_files(missing, LINEAR)
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, other)
    with pytest.raises(CheckpointError, match=r"other\.pth holds weights of another network"):
        Lpips.of_files(backbone, other)
    with pytest.raises(CheckpointError, match=r"other\.pth or .* holds weights of another network"):
        Lpips.of_files(other, LINEAR)
    torch.save([1, 2], other)
    with pytest.raises(CheckpointError, match=r"other\.pth holds no weights by name"):
        Lpips.of_files(other, LINEAR)
    for content in (b"", b"no weights", backbone.read_bytes()[:100_000]):
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"other\.pth cannot be read"):
            Lpips.of_files(other, LINEAR)
