"""A diffusion transformer that looks at noisy pixels and answers with Gaussians, whose rendering is the clean image.

The noised state is an image, the clean prediction is a set of Gaussians, and the loss is on its rendering. In 3D this
is how PixWorld (arXiv:2607.05373) and DiffusionGS (arXiv:2411.14384) work; diffusion of fitted splats has to predict
the noise of the fit, which is no part of the image.

The network is the pixel transformer, its loss is the pixel transformer's loss, and it ends at exactly K Gaussians. What
it takes for the clean image of a noisy one is a blur of many, which pixels say at once and Gaussians learn slowly: so
the same trunk adds a residual of pixels, which fades with the square root of the noise. Nothing of it is left where the
image is clean: there the prediction is the rendering alone.

A share of every batch is shown clean: so it is also an encoder in one pass, which says with which Gaussians a finished
sample is drawn.

Gaussians can be drawn larger than what the network looks at (``RenderDiTConfig.pool``): it reads means over squares of
pixels, and its loss is on the rendering at full size. The mean of p x p pixels of a x + b e is a mean(x) + (b / p) e',
with e' of variance 1 again: so the means of a noisy image are, among themselves, the diffusion of a smaller image, on
the same path and at a later time. Whatever steps a sampler takes, it never needs more than these means and the
prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from data_schemas.splats import layout_named
from models.base import DataSpec
from models.features.slots import SlotNumbers, places_of, usual_slots
from models.networks.pixel_dit import PixelDiT, PixelDiTConfig

Renderer = Callable[[Tensor, int, int], Tensor]
"""(splats [image, gaussian, parameter], height, width) -> float32 [image, row, column, channel], not clipped."""


def nothing_drawn(splats: Tensor, height: int, width: int) -> Tensor:
    """A renderer that draws black: for counting what the network itself costs."""
    channels = splats.shape[-1] - 5
    return splats.new_zeros(len(splats), height, width, channels)


@dataclass(frozen=True)
class RenderDiTConfig(PixelDiTConfig):
    """Size of a pixel transformer that answers with Gaussians; ``patch`` counts pixels that it looks at.

    Attributes:
        pool: side of the squares of pixels whose means it looks at; 1: the pixels themselves.
    """

    pool: int = 1


class RenderedAnswer(NamedTuple):
    """All that the network says of a batch.

    Attributes:
        image: float [batch, channel, row, column], the prediction: their rendering, in [-1, 1] where it is in range,
            and the residual.
        splats: float32 [batch, gaussian, parameter] in the layout of the data.
    """

    image: Tensor
    splats: Tensor


class RenderDiT(PixelDiT):
    """The transformer of :class:`~models.networks.pixel_dit.PixelDiT` with K Gaussians as its answer.

    Every slot belongs to the token of the patch that its place lies in. What the network says of a slot is how far its
    Gaussian is from the usual one of the store (:class:`~models.features.slots.SlotNumbers`), so that it begins with
    the mean of the store, and any weights draw something that can be drawn.

    Args:
        spec: images, with ``anchors``, ``layout`` and ``colours`` of the Gaussians; the anchors are the places of the
            slots, best those where the store's Gaussians lie on average.
        config: the size.

    Attributes:
        renderer: draws the Gaussians; set it before the first call (``pipeline`` does).
        slots: the usual Gaussians; ``take`` those of the store before the training.

    Raises:
        JobError: no anchors, fewer anchors than patches, a patch larger than the image, or squares that do not fill
            it.
    """

    def __init__(self, spec: DataSpec, config: RenderDiTConfig) -> None:
        seen = pooled_size(spec, config.pool)
        super().__init__(seen, config)
        self.spec, self.pool = spec, config.pool
        self.renderer: Renderer | None = None
        self.layout = layout_named(spec.layout)
        places = places_of(spec.anchors, height=seen.height, width=seen.width, patch=self.patch)
        device = self.slot.device
        self.most = places.most
        self.answers: Tensor
        self.register_buffer("answers", places.flat.to(device), persistent=False)
        usual = usual_slots(places.anchors, places.spacing, spec.channels, spec.colours)
        self.slots = SlotNumbers(usual, self.layout, spec.colours).to(device)
        self.each = usual.mean.shape[1]
        self.pixels = spec.channels * self.patch**2
        self.trunk.leave = nn.Linear(config.size.width, self.pixels + self.most * self.each, bias=False)
        nn.init.zeros_(self.trunk.leave.weight)
        self.first = nn.Parameter(torch.zeros(spec.gaussians, self.each))

    @overload
    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None = None, *, whole: Literal[False] = False
    ) -> Tensor: ...

    @overload
    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None, *, whole: bool) -> RenderedAnswer: ...

    def forward(
        self, noisy: Tensor, time: Tensor, label: Tensor | None = None, *, whole: bool = False
    ) -> Tensor | RenderedAnswer:
        """See :meth:`models.base.Denoiser.forward`; ``time`` is [batch].

        Args:
            noisy: float [batch, channel, row, column].
            time: float [batch].
            label: int64 [batch] or None.
            whole: return everything that the network says instead of the predicted image.

        Raises:
            JobError: no renderer was set.
        """
        if self.renderer is None:
            raise JobError("a generator of splats by their rendering without a renderer", allowed="one that was set")
        height, width = noisy.shape[-2:]
        seen, time = self.look(noisy, time)
        leaving = self.trunk(self.tokens(seen), self.condition(time, label))
        numbers = leaving[..., self.pixels :].unflatten(-1, (self.most, -1)).flatten(1, 2)[:, self.answers]
        splats = self.slots.splats(numbers + self.first)
        rendering = 2 * self.renderer(splats, height, width).permute(0, 3, 1, 2) - 1
        fade = (1 - time).clamp(min=0).sqrt()[:, None, None, None]
        residual = fade * self.picture(leaving[..., : self.pixels], *seen.shape[-2:])
        if self.pool > 1:
            residual = functional.interpolate(residual, scale_factor=float(self.pool), mode="nearest")
        image = (rendering + residual).to(noisy.dtype)
        return RenderedAnswer(image, splats) if whole else image

    def look(self, noisy: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """What it looks at: means of squares of pixels, on the straight path of an image of their number.

        Args:
            noisy: float [batch, channel, row, column], t x + (1 - t) e.
            time: float [batch], t.

        Returns:
            float [batch, channel, row, column], s mean(x) + (1 - s) e', with noise e' of variance 1, and s [batch].
        """
        if self.pool == 1:
            return noisy, time
        # Of the means t mean(x) + (1 - t) / pool e'; both shares divided by their sum.
        total = time + (1 - time) / self.pool
        return functional.avg_pool2d(noisy, self.pool) / total[:, None, None, None].to(noisy.dtype), time / total


def pooled_size(spec: DataSpec, pool: int) -> DataSpec:
    """The same data with an image of as many pixels as there are squares of side ``pool``.

    Raises:
        JobError: they do not fill the image.
    """
    if pool < 1 or spec.height % pool or spec.width % pool:
        fitting = [
            side for side in range(1, min(spec.height, spec.width) + 1) if not (spec.height % side or spec.width % side)
        ]
        raise JobError(
            f"pool = {pool} of an image of {spec.height}x{spec.width} pixels",
            allowed=", ".join(map(str, fitting)),
            next_step="give a --pool that divides both sides",
        )
    return replace(spec, height=spec.height // pool, width=spec.width // pool)
