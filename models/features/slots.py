"""What a network says of each slot, as splats: how far its Gaussian is from the usual one, in units of its spread.

A store with slot identity keeps the Gaussian of index i at about the same place in every image, and often far from the
anchor that it was assigned to. Its mean over the images is therefore where a network begins, and its spread over them
is the unit of what the network says: 0 draws the mean Gaussians, 1 is as far as images usually are from them. Numbers
have no bounds: logarithm of the sigmas, inverse hyperbolic tangent of rho, log-odds of colours.

Which token of an image answers for which slot: every anchor belongs to the patch that it lies in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_schemas.errors import JobError
from data_schemas.splats import ColourRange, Layout

FARTHEST = 6.0
"""Spreads that a number can leave its mean."""

LARGEST_RHO = 0.98
SMALLEST_SIGMA = 1e-3
"""Normalised units; the logarithm of a stored sigma of 0 would be infinite."""

COLOUR_EDGE = 0.01
"""Colours nearer to 0 or 1 count as so near: their log-odds would be infinite."""

RHO_EDGE = 0.95
SMALLEST_SPREAD = 0.02
"""Of a number that is the same in all images."""

FIRST_SIGMA = 0.5
"""Spacings of the anchors, where nothing is known: neighbours overlap, and their gradients reach each other."""

FIRST_COLOUR = 0.15
"""Intensity where nothing is known: sums of overlapping neighbours are then a dark grey."""


@dataclass(frozen=True)
class SlotStatistics:
    """The usual Gaussian of every slot.

    Attributes:
        mean: float32 [gaussian, number], of the unbounded numbers: log sigma x and y, rho, colours, x, y.
        spread: float32 of the same shape, their standard deviations.
    """

    mean: Tensor
    spread: Tensor

    @property
    def centres(self) -> tuple[tuple[float, float], ...]:
        """Mean (x, y) of every slot."""
        return tuple((float(x), float(y)) for x, y in self.mean[:, -2:])


def slot_statistics(portions: Iterable[Tensor], layout: Layout, colours: ColourRange) -> SlotStatistics:
    """Mean and standard deviation of every slot's numbers.

    Args:
        portions: splats [image, gaussian, parameter], at least one image in all.
        layout: their columns.
        colours: whether they lie in [0, 1].
    """
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for splats in portions:
        numbers = remove_bounds(splats, layout, colours).double()
        count += len(numbers)
        total = total + numbers.sum(dim=0)
        squares = squares + numbers.square().sum(dim=0)
    mean = total / count
    spread = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(SMALLEST_SPREAD)
    return SlotStatistics(mean.float(), spread.float())


def usual_slots(anchors: Tensor, spacing: float, channels: int, colours: ColourRange) -> SlotStatistics:
    """Round, dark, overlapping Gaussians at the anchors: where no store says what is usual.

    Args:
        anchors: float32 [gaussian, 2], (x, y).
        spacing: of the anchors in normalised units, the unit of a place.
        channels: colours of a Gaussian.
        colours: whether they lie in [0, 1].
    """
    colour = math.log(FIRST_COLOUR / (1 - FIRST_COLOUR)) if colours == "bounded" else FIRST_COLOUR
    place = anchors.device  # networks that are only counted have none
    first = torch.tensor([math.log(FIRST_SIGMA * spacing)] * 2 + [0.0] + [colour] * channels, device=place)
    mean = torch.cat([first.expand(len(anchors), -1), anchors.float()], dim=1)
    unit = torch.tensor([1.0] * (3 + channels) + [spacing] * 2, device=place)
    return SlotStatistics(mean, unit.expand_as(mean).clone())


def remove_bounds(splats: Tensor, layout: Layout, colours: ColourRange) -> Tensor:
    """Splats as numbers without bounds; an alpha is left out.

    Args:
        splats: [image, gaussian, parameter] in ``layout``.
        layout: their columns.
        colours: whether they lie in [0, 1].

    Returns:
        float32 [image, gaussian, number]: log sigma x and y, rho, colours, x, y.
    """
    values = splats.float()
    sigmas = values[..., :2].clamp_min(SMALLEST_SIGMA).log()
    rho = (values[..., [layout.index("rho")]] / LARGEST_RHO).clamp(-RHO_EDGE, RHO_EDGE).atanh()
    colour = values[..., layout.colour_slice]
    if colours == "bounded":
        colour = colour.clamp(COLOUR_EDGE, 1 - COLOUR_EDGE).logit()
    return torch.cat([sigmas, rho, colour, values[..., -2:]], dim=-1)


class SlotNumbers(nn.Module):
    """Numbers of a network as splats.

    Args:
        statistics: of every slot.
        layout: columns of the splats.
        colours: whether they lie in [0, 1].
    """

    def __init__(self, statistics: SlotStatistics, layout: Layout, colours: ColourRange) -> None:
        super().__init__()
        self.layout = layout
        self.colours: ColourRange = colours
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", statistics.mean.clone())
        self.register_buffer("spread", statistics.spread.clone())

    def take(self, statistics: SlotStatistics) -> None:
        """Begins at the usual Gaussians of a store from now on."""
        self.mean.copy_(statistics.mean)
        self.spread.copy_(statistics.spread)

    def splats(self, numbers: Tensor) -> Tensor:
        """Numbers without bounds -> splats that can be drawn.

        Args:
            numbers: [image, gaussian, number], 0 for the mean, held within ``FARTHEST`` spreads of it.

        Returns:
            float32 [image, gaussian, parameter] in the columns of the layout; an alpha is 1.
        """
        values = self.mean + self.spread * FARTHEST * torch.tanh(numbers.float() / FARTHEST)
        colour = values[..., 3:-2]
        if self.colours == "bounded":
            colour = torch.sigmoid(colour)
        rho = LARGEST_RHO * torch.tanh(values[..., 2:3])
        opacity = [torch.ones_like(rho)] if self.layout.has_alpha else []
        return torch.cat([values[..., :2].exp(), rho, *opacity, colour, values[..., -2:]], dim=-1)


@dataclass(frozen=True)
class SlotPlaces:
    """K slots spread over the tokens of an image.

    Attributes:
        anchors: float32 [gaussian, 2], (x, y) in [-1, 1].
        token: int64 [gaussian], the token that answers for a slot.
        inner: int64 [gaussian], the number of the slot among those of its token.
        most: slots of the token that has most.
    """

    anchors: Tensor
    token: Tensor
    inner: Tensor
    most: int

    @property
    def flat(self) -> Tensor:
        """int64 [gaussian]: where a slot lies among ``tokens * most`` answers."""
        return self.token * self.most + self.inner

    @property
    def spacing(self) -> float:
        """Side of the square that a slot has for itself, in normalised units (the image is 2 wide)."""
        return 2 / math.sqrt(len(self.anchors))


def places_of(anchors: tuple[tuple[float, float], ...] | None, *, height: int, width: int, patch: int) -> SlotPlaces:
    """Gives each anchor the patch that it lies in.

    Args:
        anchors: K points (x, y) in [-1, 1].
        height: rows of the image in pixels.
        width: columns of the image in pixels.
        patch: side of a patch in pixels; the last patches of an axis may hang over the edge.

    Returns:
        The places, slot by slot in the order of the anchors.

    Raises:
        JobError: no anchors, or fewer anchors than patches: some tokens would have nothing to say.
    """
    rows, columns = math.ceil(height / patch), math.ceil(width / patch)
    if not anchors:
        raise JobError("a generator of splats by their rendering without anchors", allowed="K anchors")
    if len(anchors) < rows * columns:
        raise JobError(
            f"{len(anchors)} Gaussians for {rows * columns} patches of {patch} pixels",
            allowed=f"{rows * columns} Gaussians or more, or larger patches",
            next_step="encode with more --gaussians, or train with larger patches",
        )
    points = torch.tensor(anchors, dtype=torch.float32, device="cpu")
    column = ((points[:, 0] + 1) / 2 * width / patch).floor().long().clamp(0, columns - 1)
    row = ((points[:, 1] + 1) / 2 * height / patch).floor().long().clamp(0, rows - 1)
    token = row * columns + column
    counts = [0] * (rows * columns)
    inner = []
    for number in token.tolist():
        inner.append(counts[number])
        counts[number] += 1
    return SlotPlaces(points, token, torch.tensor(inner, device="cpu"), max(counts))
