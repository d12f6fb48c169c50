"""What every generator is: a network that reads noisy data, a time and a label, and what it is built for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from data_schemas.errors import JobError
from data_schemas.splats import ColourRange
from models.names import DataKind

LARGEST_SIZE = 1_000_000
"""Of anything in the data of a network: more than any store holds, and far less than what would fill a memory."""


@dataclass(frozen=True)
class DataSpec:
    """The shape of the data that a network is built for; it travels in the checkpoint.

    Attributes:
        kind: ``splats`` (sets [image, gaussian, feature]) or ``pixels`` ([image, channel, row, column]).
        gaussians: K; for pixel models only a hint, so that they can be sized like a splat model of that K (0: none).
        features: F, numbers per Gaussian after the representation (0 for pixels).
        groups: G, groups of features that may carry different noise levels (geometry, colour); 1 for pixels.
        height: rows of the image in pixels.
        width: columns of the image in pixels.
        channels: colours of the image.
        classes: number of labels, 0 where nothing is conditioned; index ``classes`` means "no label".
        anchors: K points (x, y) in [-1, 1]; None where the index of a Gaussian means nothing.
        layout: columns of the Gaussians that a network of pixels answers with; empty for all others.
        colours: ``bounded`` where those Gaussians have colours in [0, 1], ``signed`` where they may have any.
    """

    kind: DataKind
    gaussians: int = 0
    features: int = 0
    groups: int = 2
    height: int = 32
    width: int = 32
    channels: int = 3
    classes: int = 0
    anchors: tuple[tuple[float, float], ...] | None = None
    layout: str = ""
    colours: ColourRange = "bounded"

    def __post_init__(self) -> None:
        """Refuses a shape that no network can have.

        Raises:
            JobError: a size below one or above ``LARGEST_SIZE``, or anchors that are not K.
        """
        sizes = {"groups": self.groups, "height": self.height, "width": self.width, "channels": self.channels}
        if self.kind == "splats":
            sizes |= {"gaussians": self.gaussians, "features": self.features}
        for name, size in sizes.items():
            if not 1 <= size <= LARGEST_SIZE:
                raise JobError(f"{name} = {size} in the data of a model", allowed=f"1 to {LARGEST_SIZE:,}")
        if not (0 <= self.gaussians <= LARGEST_SIZE and 0 <= self.classes <= LARGEST_SIZE):
            raise JobError(f"gaussians = {self.gaussians}, classes = {self.classes}", allowed=f"0 to {LARGEST_SIZE:,}")
        if self.anchors is not None and len(self.anchors) != self.gaussians:
            raise JobError(
                f"{len(self.anchors)} anchors for {self.gaussians} Gaussians", allowed=f"{self.gaussians} or none"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the header of a checkpoint; :meth:`from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """The specification that :meth:`to_dict` wrote (also after a passage through JSON)."""
        anchors = values.get("anchors")
        points = None if anchors is None else tuple((float(x), float(y)) for x, y in anchors)
        return cls(**{**values, "anchors": points})


class Denoiser(nn.Module, ABC):
    """A network that looks at noisy data and says something about the clean one (what, an objective decides).

    Times are 1 for clean data and 0 for pure noise, in every model and every objective.

    Attributes:
        spec: the data that it is built for.
        takes_labels: whether it can be conditioned on a class at all.
    """

    takes_labels: ClassVar[bool] = True

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        if spec.classes and not self.takes_labels:
            raise JobError(
                f"{type(self).__name__} cannot be conditioned on labels, and the data has {spec.classes} classes",
                allowed="data without labels (classes = 0)",
                next_step="train it without labels (--no-classes), or choose a model that takes them",
            )
        self.spec = spec

    @abstractmethod
    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """Predicts for one batch.

        Args:
            noisy: float [batch, gaussian, feature] for splats, [batch, channel, row, column] for pixels.
            time: float [batch] in [0, 1]; for splats also [batch, gaussian, group].
            label: int64 [batch], ``classes`` meaning "no label"; None: no label anywhere.

        Returns:
            As ``noisy``: the same shape and dtype.
        """

    def penalty(self) -> Tensor | None:
        """What the network adds to the loss of every step, whatever the data; None for nothing."""
        return None
