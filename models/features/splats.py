"""What a network sees of a stored image: features of mean 0 and scale 1, and the way back to valid numbers.

Everything that the way back needs is in ``config()`` and ``tensors()``, which travel in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_schemas.errors import CheckpointError, JobError, StoreMismatchError
from data_schemas.splats import ColourRange, Layout, layout_named
from models.features.covariance import CovarianceForm, check_form, from_numbers, to_numbers
from models.features.normalisation import Normalisation, check_normalisation, statistics_of

GEOMETRY, COLOUR = 0, 1
"""Groups of features that may carry different noise levels."""

_OPACITY_MARGIN = 1e-3
"""Opacities are kept this far from 0 and 1, where the logit is infinite."""

_LARGEST_FEATURE = 1e4
"""Normalised features beyond it are pulled in before decoding, so that nothing overflows."""

Anchors = Sequence[Sequence[float]] | NDArray[Any] | Tensor


@runtime_checkable
class Representation(Protocol):
    """Between stored data and what a network sees."""

    @property
    def kind(self) -> str:
        """``splats`` or ``pixels``."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        ...

    @property
    def groups(self) -> tuple[int, ...]:
        """Group of each feature (last axis for splats); all 0 for pixels."""
        ...

    def encode(self, stored: Tensor) -> Tensor:
        """Stored data to normalised features."""
        ...

    def decode(self, features: Tensor, *, clamp: bool = True) -> Tensor:
        """Normalised features to valid stored data."""
        ...

    def config(self) -> dict[str, Any]:
        """Plain values for the header of a checkpoint."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Statistics for the checkpoint."""
        ...


class SplatRepresentation(nn.Module):
    """Splats [image, gaussian, parameter] as features [image, gaussian, feature].

    The features are 2 positions (offsets to the anchor where there are anchors), 3 numbers of the covariance, the
    colours, and for layouts with opacity its logit. ``whitened`` takes off the mean of each slot (without anchors: of
    all) and divides by the scale of each feature; ``minmax`` maps each feature's range to [-1, 1].

    Args:
        layout: columns of the stored splats, or their layout's name.
        gaussians: K.
        anchors: [gaussian, 2] of (x, y); None where the index of a Gaussian carries no meaning. No statistic then
            depends on the slot.
        colours: ``bounded`` clamps decoded colours to [0, 1].
        covariance: one of ``models.features.covariance.COVARIANCE_FORMS``.
        normalisation: ``whitened`` or ``minmax`` (the published recipe, which clamps to the range when decoding).

    Raises:
        JobError: an unknown form or normalisation, or anchors that are not K points.
    """

    mean: Tensor
    scale: Tensor
    anchors: Tensor | None

    def __init__(
        self,
        *,
        layout: Layout | str,
        gaussians: int,
        anchors: Anchors | None = None,
        colours: ColourRange = "bounded",
        covariance: str = "matrix_log",
        normalisation: str = "whitened",
    ) -> None:
        super().__init__()
        self.layout = layout_named(layout) if isinstance(layout, str) else layout
        self.gaussians = gaussians
        self.colours: ColourRange = colours
        self.covariance: CovarianceForm = check_form(covariance)
        self.normalisation: Normalisation = check_normalisation(normalisation)
        points = None if anchors is None else torch.as_tensor(np.asarray(anchors), dtype=torch.float32)
        if points is not None and points.shape != (gaussians, 2):
            raise JobError(f"Anchors of shape {tuple(points.shape)}", allowed=f"({gaussians}, 2)")
        self.features = 5 + self.layout.channels + int(self.layout.has_alpha)
        slots = gaussians if self._by_slot(points) else 1
        self.register_buffer("anchors", points)
        self.register_buffer("mean", torch.zeros(slots, self.features))
        self.register_buffer("scale", torch.ones(1, self.features))

    def _by_slot(self, anchors: Tensor | None) -> bool:
        return anchors is not None and self.normalisation == "whitened"

    @property
    def kind(self) -> str:
        """``splats``."""
        return "splats"

    @property
    def shape(self) -> tuple[int, ...]:
        """(K, F)."""
        return self.gaussians, self.features

    @property
    def groups(self) -> tuple[int, ...]:
        """Group of each feature: five of geometry, the rest of colour."""
        return (GEOMETRY,) * 5 + (COLOUR,) * (self.features - 5)

    def fit(self, chunks: Iterable[Tensor | NDArray[Any]]) -> SplatRepresentation:
        """Takes the statistics from stored splats, chunk by chunk, in bounded memory.

        Args:
            chunks: float [image, gaussian, parameter] each; finished rows only.

        Returns:
            This representation.

        Raises:
            StoreMismatchError: splats of another shape.
            TrainingError: no image, or numbers that are not finite.
        """
        device = self.mean.device
        statistics = statistics_of(self._raw(torch.as_tensor(chunk).to(device)) for chunk in chunks)
        if self.normalisation == "minmax":
            mean, scale = statistics.minmax()
        else:
            mean, scale = statistics.whitened(by_slot=self.anchors is not None)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        return self

    def _raw(self, splats: Tensor) -> Tensor:
        """Features before normalisation, float32."""
        if splats.ndim != 3 or splats.shape[1:] != (self.gaussians, self.layout.width):
            raise StoreMismatchError(
                f"Splats of shape {tuple(splats.shape)}",
                allowed=f"[image, {self.gaussians}, {self.layout.width}] for layout {self.layout.name!r}",
            )
        values = splats.float()

        def column(name: str) -> Tensor:
            return values[..., self.layout.index(name)]

        position = torch.stack([column("x"), column("y")], dim=-1)
        if self.anchors is not None:
            position = position - self.anchors
        covariance = to_numbers(self.covariance, column("sigma_x"), column("sigma_y"), column("rho"))
        parts = [position, covariance, values[..., self.layout.colour_slice]]
        if self.layout.has_alpha:
            opacity = column("alpha").clamp(_OPACITY_MARGIN, 1 - _OPACITY_MARGIN)
            parts.append(torch.logit(opacity)[..., None])
        return torch.cat(parts, dim=-1)

    def encode(self, stored: Tensor) -> Tensor:
        """Splats to features.

        Args:
            stored: float [image, gaussian, parameter]; sigma, rho and opacity are clamped to what decoding gives.

        Returns:
            float32 [image, gaussian, feature].

        Raises:
            StoreMismatchError: splats of another shape.
        """
        return (self._raw(stored) - self.mean) / self.scale

    def decode(self, features: Tensor, *, clamp: bool = True) -> Tensor:
        """Features to splats that every codec can render, whatever finite numbers a network answers.

        Args:
            features: float [image, gaussian, feature].
            clamp: whether to hold colours in [0, 1] (``bounded``) and features in their range (``minmax``); off for a
                loss in image space, whose gradient would vanish there. Covariance and opacity are always valid.

        Returns:
            float32 [image, gaussian, parameter] in ``layout``; differentiable.
        """
        values = features.float().clamp(-_LARGEST_FEATURE, _LARGEST_FEATURE)
        if clamp and self.normalisation == "minmax":
            values = values.clamp(-1, 1)
        values = values * self.scale + self.mean
        position = values[..., :2] if self.anchors is None else values[..., :2] + self.anchors
        sigma_x, sigma_y, rho = from_numbers(self.covariance, values[..., 2:5])
        colours = values[..., 5 : 5 + self.layout.channels]
        if clamp and self.colours == "bounded":
            colours = colours.clamp(0, 1)
        columns = {"sigma_x": sigma_x, "sigma_y": sigma_y, "rho": rho, "x": position[..., 0], "y": position[..., 1]}
        columns |= dict(zip(self.layout.names[self.layout.colour_slice], colours.unbind(-1), strict=True))
        if self.layout.has_alpha:
            columns["alpha"] = torch.sigmoid(values[..., -1])
        return torch.stack([columns[name] for name in self.layout.names], dim=-1)

    def config(self) -> dict[str, Any]:
        """Plain values from which ``from_config`` rebuilds this representation."""
        return {
            "kind": "splats",
            "layout": self.layout.name,
            "gaussians": self.gaussians,
            "colours": self.colours,
            "covariance": self.covariance,
            "normalisation": self.normalisation,
            "anchored": self.anchors is not None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Mean [slot or 1, feature], scale [1, feature] and anchors [gaussian, 2] where there are any."""
        return {name: value.detach().clone() for name, value in self.named_buffers()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> SplatRepresentation:
        """The representation that ``config()`` and ``tensors()`` describe.

        Raises:
            CheckpointError: an entry is missing or of the wrong shape.
        """
        try:
            result = cls(
                layout=config["layout"],
                gaussians=config["gaussians"],
                anchors=tensors["anchors"].cpu() if config["anchored"] else None,
                colours=config["colours"],
                covariance=config["covariance"],
                normalisation=config["normalisation"],
            )
            result.load_state_dict(dict(tensors))
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"A representation of splats that cannot be read: {error}") from error
        return result
