"""The benchmark of the heads' ceilings: fits come nearer with more steps, and its table has a line for each head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.cats import fits, fitted, main
from data_schemas.errors import SplatSpaceError


@pytest.fixture(scope="module")
def target() -> torch.Tensor:
    """A smooth picture."""
    y, x = torch.meshgrid(torch.linspace(-3, 3, 64), torch.linspace(-3, 3, 64), indexing="ij")
    return torch.stack([torch.sin(x + y), torch.cos(x * y), torch.sin(y)]).unsqueeze(0) * 0.8


@pytest.mark.soak
def test_every_head_comes_nearer_with_more_steps(target: torch.Tensor) -> None:
    torch.manual_seed(0)
    few = [fitted(fit, target, 2) for fit in fits(target)]
    more = [fitted(fit, target, 20) for fit in fits(target)]
    assert len({ceiling.head for ceiling in few}) == len(few) == 12
    for before, after in zip(few, more, strict=True):
        assert after.psnr > before.psnr, after.head
        assert (after.seams is not None) == after.head.startswith("splats")
    by_name = {ceiling.head: ceiling for ceiling in more}
    for shared_name, alone_name in (
        ("splats gaussian 3x3 (modern)", "splats gaussian patch"),
        ("splats flat 3x3", "splats flat patch"),
    ):
        shared, alone = by_name[shared_name].seams, by_name[alone_name].seams
        assert shared is not None
        assert alone is not None
        assert shared < 1.15 < alone
    assert by_name["outer 64 (modern)"].psnr > by_name["outer 64 (published)"].psnr


def test_images_that_are_not_there_are_said(tmp_path: Path) -> None:
    with pytest.raises(SplatSpaceError):
        main(["--data-dir", str(tmp_path), "--images", "1", "--steps", "1"])
