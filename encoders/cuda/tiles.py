"""How the fused fit divides an image among the lanes of a warp; decides speed and the order of sums, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32

_FORWARD_COST = {8: 7.3, 4: 8.2}
"""Instructions per pixel and Gaussian of the forward pass by the length of a lane's strip (sm_90, three channels)."""

_BACKWARD_COST = {16: 15.1, 8: 15.4, 4: 16.2}
_BACKWARD_ROW = 31.0
"""Instructions per pixel and Gaussian of the backward pass by the length of a run, and per row. Runs of 32 take one
instruction less, but stage the residual in shared memory behind a barrier, and spill in the normalised codec."""


def padded(number: int, multiple: int) -> int:
    """``number`` rounded up to a multiple."""
    return -(-number // multiple) * multiple


@dataclass(frozen=True)
class Tiles:
    """Compile-time sizes of ``encoders.cuda.fused_fit.fit_images``, whose arguments they are named after.

    Attributes:
        group: Gaussians of a group, one a lane.
        together: Gaussians added to each other before they are to a pixel.
        strip: neighbouring pixels of a lane in the forward pass.
        strips: lanes of the forward pass.
        run: neighbouring pixels summed at once in the backward pass.
        warps: warps of a program.
    """

    group: int = WARP
    together: int = 8
    strip: int = 8
    strips: int = WARP
    run: int = 16
    warps: int = 1

    def stride(self, width: int) -> int:
        """Columns that a row of ``width`` takes: whole strips and whole runs."""
        return padded(width, max(self.strip, self.run))

    def cost(self, height: int, width: int) -> float:
        """Counted instructions per Gaussian, image and step: what the choice of tiles goes by."""
        stride = self.stride(width)
        blocks = -(-height * stride // self.strip // self.strips)
        forward = blocks * self.strips * self.strip * _FORWARD_COST[self.strip]
        return forward + height * (stride * _BACKWARD_COST[self.run] + _BACKWARD_ROW)


def tiles_for(height: int, width: int) -> Tiles:
    """The tiles with the fewest instructions for images of this size: long runs, unless they hang over the edge."""
    choices = [Tiles(strip=strip, run=run) for strip in _FORWARD_COST for run in _BACKWARD_COST]
    return min(choices, key=lambda tiles: tiles.cost(height, width))


def interpreted_tiles(height: int, width: int, gaussians: int) -> Tiles:
    """Tiles for Triton's interpreter, whose time goes by the number of operations and not by their size."""
    group = WARP
    while group < min(gaussians, 256):
        group *= 2
    stride = padded(width, 32)
    strips = WARP
    while strips < min(height * stride // 8, 1024):
        strips *= 2
    return Tiles(group=group, together=min(group, 64), strip=8, strips=strips, run=32)
