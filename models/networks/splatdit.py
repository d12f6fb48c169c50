"""SplatDiT: a diffusion transformer whose tokens are packed neighbouring Gaussians that know their slot."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.networks.layers import ConditionEmbedding, fourier_features
from models.networks.trunk import Packing, Trunk, TrunkSize, default_pack

ANCHOR_FREQUENCIES = 6


@dataclass(frozen=True)
class SplatDiTConfig:
    """Size of a SplatDiT.

    Attributes:
        size: the transformer.
        pack: Gaussians per token; 0: by K (see :func:`models.networks.trunk.default_pack`).
        anchored: whether Fourier features of the anchors join the learned slot embedding.
    """

    size: TrunkSize
    pack: int = 0
    anchored: bool = True


class SplatDiT(Denoiser):
    """A transformer over tokens of ``pack`` neighbouring Gaussians, for stores whose index has a meaning.

    A Gaussian's own times stand beside its features in the token, so that a known neighbour and an unknown one are
    told apart inside one token; the token's modulation follows the mean of its parts' time embeddings.

    Args:
        spec: the data; without anchors the slots are learned alone and packed in their order.
        config: the size.

    Raises:
        JobError: a packing that K does not allow.
    """

    def __init__(self, spec: DataSpec, config: SplatDiTConfig) -> None:
        super().__init__(spec)
        pack = config.pack or default_pack(spec.gaussians)
        if not 1 <= pack <= spec.gaussians:
            raise JobError(f"{pack} Gaussians per token for K = {spec.gaussians}", allowed=f"1 to {spec.gaussians}")
        width = config.size.width
        self.packing = Packing(spec.anchors, spec.gaussians, pack)
        self.enter = nn.Linear(pack * (spec.features + spec.groups), width, bias=False)
        self.slot = nn.Parameter(torch.randn(self.packing.tokens, width) * 0.02)
        self.anchor_features: Tensor | None
        self.anchor_enter: nn.Linear | None = None
        features: Tensor | None = None
        if config.anchored and spec.anchors is not None:
            points = torch.tensor(spec.anchors, dtype=torch.float32, device=self.slot.device)
            features = self.packing.enter(fourier_features(points, ANCHOR_FREQUENCIES)[None])[0].flatten(1)
            self.anchor_enter = nn.Linear(features.shape[1], width, bias=False)
        self.register_buffer("anchor_features", features, persistent=False)
        self.condition = ConditionEmbedding(width, spec.groups, spec.classes)
        self.trunk = Trunk(config.size, pack * spec.features)

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`; ``time`` is [batch] or [batch, gaussian, group]."""
        times = time
        if time.ndim == 1:
            times = time[:, None, None].expand(-1, self.spec.gaussians, self.spec.groups)
        packed_times = self.packing.enter(times)
        # Centred, so that a time is as large as a whitened feature.
        packed = torch.cat([self.packing.enter(noisy), (2 * packed_times - 1).to(noisy.dtype)], dim=-1).flatten(2)
        tokens = self.enter(packed) + self.slot
        if self.anchor_enter is not None and self.anchor_features is not None:
            tokens = tokens + self.anchor_enter(self.anchor_features.to(tokens.dtype))
        condition = self.condition(time if time.ndim == 1 else packed_times, label)
        leaving = self.trunk(tokens, condition).unflatten(-1, (self.packing.pack, -1))
        return self.packing.leave(leaving).to(noisy.dtype)
