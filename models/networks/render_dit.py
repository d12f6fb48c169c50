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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

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
        JobError: no anchors, fewer anchors than patches, or a patch larger than the image.
    """

    def __init__(self, spec: DataSpec, config: PixelDiTConfig) -> None:
        super().__init__(spec, config)
        self.renderer: Renderer | None = None
        self.layout = layout_named(spec.layout)
        places = places_of(spec.anchors, height=spec.height, width=spec.width, patch=self.patch)
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
        leaving = self.trunk(self.tokens(noisy), self.condition(time, label))
        numbers = leaving[..., self.pixels :].unflatten(-1, (self.most, -1)).flatten(1, 2)[:, self.answers]
        splats = self.slots.splats(numbers + self.first)
        rendering = 2 * self.renderer(splats, height, width).permute(0, 3, 1, 2) - 1
        fade = (1 - time).clamp(min=0).sqrt()[:, None, None, None]
        image = (rendering + fade * self.picture(leaving[..., : self.pixels], height, width)).to(noisy.dtype)
        return RenderedAnswer(image, splats) if whole else image
