"""A U-Net on pixels: the baseline in the space that everybody knows.

Residual blocks of group norm, SiLU and 3x3 convolutions, time and label as scale and shift in every block, attention
where the image has been halved once and twice (16 and 8 of 32 pixels), halving by strided and doubling by nearest
neighbours with a convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, cat, nn
from torch.nn import functional

from models.base import DataSpec, Denoiser
from models.networks.layers import ConditionEmbedding

GROUPS = 32


@dataclass(frozen=True)
class PixelUNetConfig:
    """Size of a U-Net.

    Attributes:
        channels: at full resolution.
        multiples: of ``channels`` at each resolution, each half of the one before.
        blocks: residual blocks per resolution on the way down (one more on the way up).
        attention_levels: resolutions (0: full) whose blocks are followed by attention.
        head_width: channels per attention head.
    """

    channels: int
    multiples: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 2
    attention_levels: tuple[int, ...] = (1, 2)
    head_width: int = 64


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(GROUPS, channels // 4), channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two convolutions, the second under the condition's scale and shift, around a shortcut; starts as the shortcut.

    Args:
        enter: channels that come in.
        leave: channels that go out.
        condition: length of the condition.
    """

    def __init__(self, enter: int, leave: int, condition: int) -> None:
        super().__init__()
        self.first_norm = _norm(enter)
        self.first = nn.Conv2d(enter, leave, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * leave)
        self.second_norm = _norm(leave)
        self.second = nn.Conv2d(leave, leave, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)
        self.shortcut = nn.Conv2d(enter, leave, 1) if enter != leave else nn.Identity()

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """[batch, enter, row, column] -> [batch, leave, row, column]."""
        value = self.first(functional.silu(self.first_norm(image)))
        scale, shift = self.modulation(functional.silu(condition))[..., None, None].chunk(2, dim=1)
        value = self.second(functional.silu(self.second_norm(value) * (1 + scale) + shift))
        return self.shortcut(image) + value


class PixelAttention(nn.Module):
    """Every place of the image gathers from every other; starts as the identity.

    Args:
        channels: of the image.
        head_width: channels per head; one head where it does not divide ``channels``.
    """

    def __init__(self, channels: int, head_width: int) -> None:
        super().__init__()
        self.heads = channels // head_width if channels % head_width == 0 else 1
        self.norm = _norm(channels)
        self.enter = nn.Linear(channels, 3 * channels)
        self.leave = nn.Linear(channels, channels)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, channel, row, column] -> the same shape."""
        places = self.norm(image).flatten(2).transpose(1, 2)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.enter(places).chunk(3, dim=-1)
        )
        gathered = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return image + self.leave(gathered).transpose(1, 2).unflatten(2, image.shape[2:])


class Stage(nn.Module):
    """A residual block and, at some resolutions, attention.

    Args:
        enter: channels that come in.
        leave: channels that go out.
        condition: length of the condition.
        head_width: channels per attention head; 0: no attention.
    """

    def __init__(self, enter: int, leave: int, condition: int, head_width: int) -> None:
        super().__init__()
        self.block = ResidualBlock(enter, leave, condition)
        self.attention = PixelAttention(leave, head_width) if head_width else nn.Identity()

    def forward(self, image: Tensor, condition: Tensor) -> Tensor:
        """[batch, enter, row, column] -> [batch, leave, row, column]."""
        return self.attention(self.block(image, condition))


class PixelUNet(Denoiser):
    """The U-Net; sizes that cannot be halved often enough are padded with zeros and cut again.

    Args:
        spec: images.
        config: the size.
    """

    def __init__(self, spec: DataSpec, config: PixelUNetConfig) -> None:
        super().__init__(spec)
        base, condition = config.channels, 3 * config.channels
        widths = [base * multiple for multiple in config.multiples]
        heads = [config.head_width if level in config.attention_levels else 0 for level in range(len(widths))]
        last = len(widths) - 1
        self.factor = 2**last
        self.condition = ConditionEmbedding(condition, 1, spec.classes)
        self.enter = nn.Conv2d(spec.channels, base, 3, padding=1)
        self.down = nn.ModuleList()
        self.halvings = nn.ModuleList()
        skips, width = [base], base
        for level, wanted in enumerate(widths):
            stages = nn.ModuleList()
            for _ in range(config.blocks):
                stages.append(Stage(width, wanted, condition, heads[level]))
                width = wanted
                skips.append(width)
            self.down.append(stages)
            if level < last:
                self.halvings.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.middle = Stage(width, width, condition, config.head_width)
        self.deepest = ResidualBlock(width, width, condition)
        self.up = nn.ModuleList()
        self.doublings = nn.ModuleList()
        for level in reversed(range(len(widths))):
            stages = nn.ModuleList()
            for _ in range(config.blocks + 1):
                stages.append(Stage(width + skips.pop(), widths[level], condition, heads[level]))
                width = widths[level]
            self.up.append(stages)
            if level:
                self.doublings.append(nn.Conv2d(width, width, 3, padding=1))
        self.last_norm = _norm(width)
        self.leave = nn.Conv2d(width, spec.channels, 3, padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`; ``time`` is [batch]."""
        height, width = noisy.shape[-2:]
        image = self.enter(functional.pad(noisy, (0, -width % self.factor, 0, -height % self.factor)))
        condition = self.condition(time, label)[:, 0]
        skips = [image]
        for level, stages in enumerate(self.down):
            for stage in stages.children():
                image = stage(image, condition)
                skips.append(image)
            if level < len(self.halvings):
                image = self.halvings[level](image)
                skips.append(image)
        image = self.deepest(self.middle(image, condition), condition)
        for level, stages in enumerate(self.up):
            for stage in stages.children():
                image = stage(cat([image, skips.pop()], dim=1), condition)
            if level < len(self.doublings):
                image = self.doublings[level](functional.interpolate(image, scale_factor=2.0, mode="nearest"))
        leaving = self.leave(functional.silu(self.last_norm(image)))
        return leaving[..., :height, :width].to(noisy.dtype)
