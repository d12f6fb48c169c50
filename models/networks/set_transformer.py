"""Set transformers: Gaussians without slot identity, so that a permuted set gives the permuted answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.base import DataSpec, Denoiser
from models.networks.layers import ConditionEmbedding
from models.networks.trunk import Trunk, TrunkSize


@dataclass(frozen=True)
class SetConfig:
    """Size of a set transformer.

    Attributes:
        size: the transformer.
        inducing: learned tokens per block through which the Gaussians meet (cost linear in K); 0: every Gaussian
            attends to every other.
    """

    size: TrunkSize
    inducing: int = 0


class SetTransformer(Denoiser):
    """Every Gaussian is a token and nothing tells it its index: permutation-equivariant, for any number of them.

    Args:
        spec: the data; its anchors and its K are not used.
        config: the size.
    """

    def __init__(self, spec: DataSpec, config: SetConfig) -> None:
        super().__init__(spec)
        width = config.size.width
        self.enter = nn.Linear(spec.features + spec.groups, width, bias=False)
        self.base = nn.Parameter(torch.randn(width) * 0.02)
        self.condition = ConditionEmbedding(width, spec.groups, spec.classes)
        self.trunk = Trunk(config.size, spec.features, config.inducing)

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`.

        Args:
            noisy: float [batch, gaussian, feature]; the number of Gaussians is free.
            time: float [batch] or [batch, gaussian, group].
            label: int64 [batch] or None.
            mask: bool [batch, gaussian], False for Gaussians that are not there: nobody sees them and their answer
                is zero. None: all are there.

        Returns:
            As ``noisy``.
        """
        times = time[:, None, None].expand(-1, noisy.shape[1], self.spec.groups) if time.ndim == 1 else time
        tokens = self.enter(torch.cat([noisy, (2 * times - 1).to(noisy.dtype)], dim=-1)) + self.base
        condition = self.condition(time if time.ndim == 1 else time[:, :, None, :], label)
        leaving = self.trunk(tokens, condition, mask).to(noisy.dtype)
        return leaving if mask is None else leaving * mask[..., None]
