"""What the published files leave open, as options with the defaults of the published decoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from data_schemas.errors import JobError

AlphaUse = Literal["ignored", "folded"]
StampMatch = Literal["fitted", "centres"]
PixelCentre = Literal["integer", "half"]
AngleSense = Literal["up", "down"]
Saturation = Literal["clamp", "soft"]

MAX_KERNEL_SIZE = 1025


@dataclass(frozen=True)
class ConversionOptions:
    """How published numbers are read and written.

    A file that SplatSpace wrote carries a record of the conventions; on reading, the record decides and these
    options do not.

    Attributes:
        image_size: (height, width) in pixels of layouts that do not say it; None: by the number of Gaussians.
        gaussians: how many each image must have; None: as many as most images of the source have.
        kernel_size: side of the stamp in pixels; None: 17 on reading (18 or 25 for the old HDF5 layout, the file's
            own where it says one), and on writing the published size, or the smallest odd one that holds every
            Gaussian.
        alpha: whether the opacity of stamp layouts is ``ignored`` (as the published samplers do) or ``folded`` into
            the colour (as the published fit does).
        stamp: ``fitted`` reads each Gaussian as the one nearest to what the published renderer draws of it,
            ``centres`` takes centre and covariance as written.
        pixel_centre: where the rasteriser of the rotated layout has the centre of pixel j: at ``integer`` j, as the
            public one, or at ``half``, j + 0.5.
        angle: in which sense a rotation turns on the screen: ``up`` (from +x to up, as the public rasteriser draws) or
            ``down`` (from +x to down, as its repaired fork draws).
        saturation: how sums of a columnar file become pixels: ``clamp`` or ``soft`` (1 - exp(-sum), not
            convertible); None: clamp for grey, soft for RGB, as published.
        key_prefix: name of the groups that the rotated layout gets: ``sprite`` or ``img``.
    """

    image_size: tuple[int, int] | None = None
    gaussians: int | None = None
    kernel_size: int | None = None
    alpha: AlphaUse = "ignored"
    stamp: StampMatch = "fitted"
    pixel_centre: PixelCentre = "integer"
    angle: AngleSense = "up"
    saturation: Saturation | None = None
    key_prefix: Literal["sprite", "img"] = "img"

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            JobError: a value outside its range.
        """
        if self.image_size is not None and not all(1 <= side <= 16_384 for side in self.image_size):
            raise JobError(f"image size {self.image_size}", allowed="sides of 1 to 16,384 pixels")
        if self.gaussians is not None and not 1 <= self.gaussians <= 100_000:
            raise JobError(f"{self.gaussians} Gaussians per image", allowed="1 to 100,000")
        if self.kernel_size is not None and not 2 <= self.kernel_size <= MAX_KERNEL_SIZE:
            raise JobError(f"kernel size {self.kernel_size}", allowed=f"2 to {MAX_KERNEL_SIZE} pixels")
        choices = {
            "alpha": get_args(AlphaUse),
            "stamp": get_args(StampMatch),
            "pixel_centre": get_args(PixelCentre),
            "angle": get_args(AngleSense),
            "saturation": (None, *get_args(Saturation)),
            "key_prefix": ("sprite", "img"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise JobError(f"{name} {getattr(self, name)!r}", allowed=", ".join(str(one) for one in allowed))


def usual_image_size(
    gaussians: int, table: dict[int, tuple[int, int]], asked: tuple[int, int] | None
) -> tuple[int, int]:
    """The size asked for, or the size of the published data set with that many Gaussians per image.

    Args:
        gaussians: K of the source.
        table: (height, width) by K.
        asked: (height, width) from the options.

    Raises:
        JobError: neither says it.
    """
    size = asked or table.get(gaussians)
    if size is None:
        known = ", ".join(f"K={count}: {height}x{width}" for count, (height, width) in sorted(table.items()))
        raise JobError(
            f"This layout does not say how large its images are, and K={gaussians} is not a published number",
            allowed=known,
            next_step="give the size, for example --size 32",
        )
    return size
