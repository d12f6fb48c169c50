"""The pixels of a stored image as features for the pixel models, and the choice between the two representations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_schemas.errors import CheckpointError, StoreMismatchError
from models.features.normalisation import Normalisation, check_normalisation, statistics_of
from models.features.splats import Representation, SplatRepresentation


class PixelRepresentation(nn.Module):
    """Images [image, row, column, channel] as features [image, channel, row, column].

    ``minmax`` maps [0, 1] to [-1, 1], as is usual for pixels; ``whitened`` takes off the mean and divides by the scale
    of each channel.

    Args:
        height: rows of an image.
        width: columns of an image.
        channels: colours of an image.
        normalisation: ``minmax`` or ``whitened``.

    Raises:
        JobError: an unknown normalisation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, *, height: int, width: int, channels: int, normalisation: str = "minmax") -> None:
        super().__init__()
        self.height, self.width, self.channels = height, width, channels
        self.normalisation: Normalisation = check_normalisation(normalisation)
        self.register_buffer("mean", torch.full((channels,), 0.5))
        self.register_buffer("scale", torch.full((channels,), 0.5))

    @property
    def kind(self) -> str:
        """``pixels``."""
        return "pixels"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    @property
    def groups(self) -> tuple[int, ...]:
        """One group: all pixels of an image share their noise level."""
        return (0,)

    def fit(self, chunks: Iterable[Tensor | NDArray[Any]]) -> PixelRepresentation:
        """Takes the statistics of ``whitened`` from images, chunk by chunk; ``minmax`` needs none.

        Args:
            chunks: uint8 or float in [0, 1], [image, row, column, channel] each.

        Returns:
            This representation.

        Raises:
            StoreMismatchError: images of another shape.
            TrainingError: no image, or numbers that are not finite.
        """
        if self.normalisation == "whitened":
            statistics = statistics_of(self._unit(torch.as_tensor(chunk)).flatten(1, 2) for chunk in chunks)
            mean, scale = statistics.whitened(by_slot=False)
            self.mean.copy_(mean[0])
            self.scale.copy_(scale[0])
        return self

    def _unit(self, images: Tensor) -> Tensor:
        expected = (self.height, self.width, self.channels)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise StoreMismatchError(f"Images of shape {tuple(images.shape)}", allowed=f"[image, *{expected}]")
        return images.float() / 255 if images.dtype == torch.uint8 else images.float()

    def encode(self, stored: Tensor) -> Tensor:
        """Images to features.

        Args:
            stored: uint8 or float in [0, 1], [image, row, column, channel].

        Returns:
            float32 [image, channel, row, column].

        Raises:
            StoreMismatchError: images of another shape.
        """
        return ((self._unit(stored) - self.mean) / self.scale).permute(0, 3, 1, 2).contiguous()

    def decode(self, features: Tensor, *, clamp: bool = True) -> Tensor:
        """Features to images.

        Args:
            features: float [image, channel, row, column].
            clamp: whether to hold intensities in [0, 1].

        Returns:
            float32 [image, row, column, channel]; differentiable.
        """
        images = features.float().permute(0, 2, 3, 1) * self.scale + self.mean
        return images.clamp(0, 1) if clamp else images

    def config(self) -> dict[str, Any]:
        """Plain values from which ``from_config`` rebuilds this representation."""
        return {
            "kind": "pixels",
            "height": self.height,
            "width": self.width,
            "channels": self.channels,
            "normalisation": self.normalisation,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Mean and scale, [channel] each."""
        return {name: value.detach().clone() for name, value in self.named_buffers()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> PixelRepresentation:
        """The representation that ``config()`` and ``tensors()`` describe.

        Raises:
            CheckpointError: an entry is missing or of the wrong shape.
        """
        try:
            result = cls(**{key: value for key, value in config.items() if key != "kind"})
            result.load_state_dict(dict(tensors))
        except (RuntimeError, TypeError) as error:
            raise CheckpointError(f"A representation of pixels that cannot be read: {error}") from error
        return result


def representation_from(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> SplatRepresentation | PixelRepresentation:
    """The representation of either kind that a checkpoint describes.

    Raises:
        CheckpointError: an unknown kind, or an entry is missing or of the wrong shape.
    """
    kinds: dict[str, type[SplatRepresentation] | type[PixelRepresentation]] = {
        "splats": SplatRepresentation,
        "pixels": PixelRepresentation,
    }
    kind = str(config.get("kind"))
    if kind not in kinds:
        raise CheckpointError(f"Representation of {kind!r}", allowed=", ".join(kinds))
    result = kinds[kind].from_config(config, tensors)
    assert isinstance(result, Representation)
    return result
