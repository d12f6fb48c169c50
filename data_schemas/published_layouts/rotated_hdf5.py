"""HDF5 files of the rotated layout: ``/W/sprite_{i}`` or ``/W/img_{i}``, each a group of five tables.

The rotated layout: two principal deviations in pixels, an angle, opacity, three colours and a centre, activated.

Centres: pixel coordinate 0.5 * side * x + 0.5 * side. The public rasteriser of these files has the centre of pixel j
at coordinate j, half a pixel from a store's, whose x covers the image from edge to edge.

A 2D covariance as (sigma_x, sigma_y, rho), and as two principal deviations and an angle.

The first is unique and is what a store holds. The second has twins (swap the axes and turn by a quarter), so its
inverse picks one: the greater deviation first, the angle in [0, pi).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.published_layouts.hdf5_groups import (
    GroupSink,
    attribute,
    numbers,
    open_file,
    plain_attribute,
    read_record,
    subgroup,
    table,
)
from data_schemas.published_layouts.options import AngleSense, ConversionOptions, PixelCentre, usual_image_size
from data_schemas.published_layouts.record import KeyedSource, header_of_published
from data_schemas.published_layouts.rows import (
    PublishedImage,
    Survey,
    UnreadableImageError,
    class_label,
    in_published_order,
    usual_count,
)
from data_schemas.records import StoreHeader
from data_schemas.splats import RGB, Layout

Floats = NDArray[np.float64]

LEAST_SIGMA = 1e-6
GREATEST_RHO = 0.999999

LAYOUT_NAME = "hdf5-rotated"
FIELDS = {"scaling": 2, "rotation": 1, "opacity": 1, "features": 3, "xyz": 2}
IMAGE_SIZES = {150: (32, 32), 200: (32, 32), 500: (64, 64)}


def from_principal(major: Floats, minor: Floats, angle: Floats) -> tuple[Floats, Floats, Floats]:
    """S = R diag(major^2, minor^2) R^T with R = [[cos, -sin], [sin, cos]].

    Args:
        major: [...] deviation along the direction (cos angle, sin angle).
        minor: [...] deviation across it, in the same unit.
        angle: [...] radians, any.

    Returns:
        sigma_x, sigma_y, rho; rho is 0 where a deviation vanishes, and in [-1, 1].
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    # hypot, not squares: they leave the range of a float long before the deviations do.
    sigma_x = np.hypot(cosine * major, sine * minor)
    sigma_y = np.hypot(sine * major, cosine * minor)
    # The correlation is the cosine between the rows of R diag(major, minor): every factor is at most 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (cosine * major / sigma_x) * (sine * major / sigma_y) - (sine * minor / sigma_x) * (
            cosine * minor / sigma_y
        )
    return sigma_x, sigma_y, np.clip(np.where(np.isfinite(rho), rho, 0.0), -1.0, 1.0)


def to_principal(sigma_x: Floats, sigma_y: Floats, rho: Floats) -> tuple[Floats, Floats, Floats]:
    """Inverse of ``from_principal``.

    Args:
        sigma_x: [...] deviation, >= 0.
        sigma_y: [...] deviation, >= 0, in the same unit.
        rho: [...] correlation in [-1, 1].

    Returns:
        major >= minor >= 0 and the angle in [0, pi).
    """
    scale = np.maximum(np.maximum(sigma_x, sigma_y), np.finfo(np.float64).tiny)
    across, down = sigma_x / scale, sigma_y / scale
    cross = 2 * rho * across * down
    difference = (across - down) * (across + down)
    major = np.sqrt((across**2 + down**2 + np.hypot(difference, cross)) / 2)
    # The smaller eigenvalue from the determinant: a difference of near-equal numbers would lose it.
    with np.errstate(invalid="ignore"):
        minor = np.where(major > 0, across * down * np.sqrt((1 - rho) * (1 + rho)) / np.where(major > 0, major, 1), 0.0)
    angle = np.mod(0.5 * np.arctan2(cross, difference), np.pi)
    # A tiny negative angle becomes pi itself in floating point.
    angle = np.where(angle >= np.pi, 0.0, angle)
    return major * scale, minor * scale, angle


def keep_invertible(sigma: Floats, rho: Floats) -> tuple[Floats, Floats]:
    """Moves degenerate values to the nearest ones that a renderer can divide by.

    Args:
        sigma: [...] in normalised units.
        rho: [...] in [-1, 1].

    Returns:
        sigma >= LEAST_SIGMA and |rho| <= GREATEST_RHO.
    """
    return np.maximum(sigma, LEAST_SIGMA), np.clip(rho, -GREATEST_RHO, GREATEST_RHO)


def _offset(pixel_centre: PixelCentre) -> float:
    """Pixels from the published coordinate of a pixel's centre to j + 0.5."""
    return 0.5 if pixel_centre == "integer" else 0.0


def to_splats(
    fields: dict[str, Floats], height: int, width: int, *, pixel_centre: PixelCentre, angle: AngleSense
) -> Floats:
    """Columns of a store from one published image.

    Args:
        fields: ``scaling`` [K, 2] pixels, ``rotation`` [K, 1] radians, ``opacity`` [K, 1], ``features`` [K, 3],
            ``xyz`` [K, 2].
        height: of the image in pixels.
        width: of the image in pixels.
        pixel_centre: where the rasteriser has the centre of pixel j.
        angle: in which sense a rotation turns.

    Returns:
        float64 [K, 8] in layout ``rgb``, the opacity multiplied into the colours.

    Raises:
        UnreadableImageError: a number is not finite or a deviation is negative.
    """
    if not all(np.all(np.isfinite(values)) for values in fields.values()):
        raise UnreadableImageError("values that are not finite")
    scaling = fields["scaling"]
    if np.any(scaling < 0):
        raise UnreadableImageError("negative deviations")
    turn = fields["rotation"][:, 0] * (-1.0 if angle == "up" else 1.0)
    sigma_x, sigma_y, rho = from_principal(scaling[:, 0], scaling[:, 1], turn)
    splats = np.empty((len(scaling), RGB.width))
    sigmas = np.stack([sigma_x * 2 / width, sigma_y * 2 / height], axis=1)
    splats[:, :2], splats[:, 2:3] = keep_invertible(sigmas, rho[:, None])
    splats[:, RGB.colour_slice] = fields["features"] * fields["opacity"]
    splats[:, -2] = fields["xyz"][:, 0] + 2 * _offset(pixel_centre) / width
    splats[:, -1] = fields["xyz"][:, 1] + 2 * _offset(pixel_centre) / height
    return splats


def from_splats(
    splats: Floats, layout: Layout, height: int, width: int, *, pixel_centre: PixelCentre, angle: AngleSense
) -> dict[str, Floats]:
    """The published fields of one image: the inverse of ``to_splats``; grey becomes three equal colours.

    Args:
        splats: float64 [K, parameter] in ``layout``, without alpha.
        layout: the columns of ``splats``.
        height: of the image in pixels.
        width: of the image in pixels.
        pixel_centre: where the rasteriser has the centre of pixel j.
        angle: in which sense a rotation turns.
    """
    major, minor, turn = to_principal(splats[:, 0] * width / 2, splats[:, 1] * height / 2, splats[:, 2])
    if angle == "up":
        turn = np.mod(-turn, np.pi)
        turn = np.where(turn >= np.pi, 0.0, turn)
    centres = splats[:, -2:] - 2 * _offset(pixel_centre) / np.array([width, height])
    colours = splats[:, layout.colour_slice]
    return {
        "scaling": np.stack([major, minor], axis=1),
        "rotation": turn[:, None],
        "opacity": np.ones((len(splats), 1)),
        "features": np.repeat(colours, 3, axis=1) if layout.channels == 1 else colours,
        "xyz": centres,
    }


class RotatedSource(KeyedSource):
    """Reads a file of the rotated layout."""

    def __init__(self, path: Path, options: ConversionOptions) -> None:
        """Opens a file.

        Args:
            path: the HDF5 file.
            options: what the file does not say.

        Raises:
            StoreError: not such a file, or nothing in it can be read.
            JobError: the image size is neither given nor known.
        """
        self._file = open_file(path)
        try:
            self._images: h5py.Group = subgroup(self._file, "W")
            self._record = read_record(self._file)
            keys = in_published_order(str(key) for key in self._images)
            self.pixel_centre: PixelCentre = self._record.pixel_centre if self._record else options.pixel_centre
            self.angle: AngleSense = self._record.angle if self._record else options.angle
            super().__init__(keys, self._record, self._header(path, keys, options))
        except UnreadableImageError as error:
            self._file.close()
            raise StoreError(f"{path} has no images in this layout: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def _header(self, path: Path, keys: list[str], options: ConversionOptions) -> StoreHeader:
        if self._record is not None:
            return self._record.restored_header()
        gaussians = usual_count((self._count(key) for key in keys), options.gaussians)
        height, width = usual_image_size(gaussians, IMAGE_SIZES, options.image_size)
        return header_of_published(
            path.name, layout=LAYOUT_NAME, gaussians=gaussians, height=height, width=width, channels=3, bounded=False
        )

    def _count(self, key: str) -> int | None:
        try:
            return table(subgroup(self._images, key), "scaling", 2).shape[0]
        except UnreadableImageError:
            return None

    def image(self, key: str) -> PublishedImage:
        """Reads one image; what is wrong with it becomes its failure."""
        image = PublishedImage(key)
        try:
            group = subgroup(self._images, key)
            image.source_id = attribute(group, "source_id", key) if self._record else key
            image.label, image.unread_label = class_label(plain_attribute(group, "label"))
            tables = {name: table(group, name, width) for name, width in FIELDS.items()}
            counts = {dataset.shape[0] for dataset in tables.values()}
            if counts != {self.header.gaussians}:
                found = ", ".join(f"{name} {dataset.shape[0]}" for name, dataset in tables.items())
                raise UnreadableImageError(f"Gaussians: {found}; the store has {self.header.gaussians} per image")
            splats = to_splats(
                {name: numbers(dataset) for name, dataset in tables.items()},
                self.header.height,
                self.header.width,
                pixel_centre=self.pixel_centre,
                angle=self.angle,
            )
            grey = self.header.channels == 1
            image.splats = splats[:, [0, 1, 2, 3, 6, 7]] if grey else splats
        except UnreadableImageError as error:
            image.failure = str(error)
        return image

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class RotatedSink(GroupSink):
    """Writes a file of the rotated layout; rows without Gaussians are named in its record."""

    def __init__(self, path: Path, header: StoreHeader, rows: int, found: Survey, options: ConversionOptions) -> None:
        """Creates a file.

        Args:
            path: the HDF5 file to create.
            header: of the rows that will come.
            rows: how many.
            found: what was seen of them; this layout can hold any.
            options: key prefix and conventions.
        """
        notes: list[str] = []
        if found.outside_centres:
            notes.append(
                f"{found.outside_centres} images have centres outside the frame; "
                "programs that undo a tanh of the published centres will move those to its edge"
            )
        self._options = options
        conventions = {"layout": LAYOUT_NAME, "pixel_centre": options.pixel_centre, "angle": options.angle}
        super().__init__(path, header, rows, options.key_prefix, conventions, notes)

    def tables(self, splats: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The five tables of one image."""
        fields = from_splats(
            splats,
            layout,
            self._header.height,
            self._header.width,
            pixel_centre=self._options.pixel_centre,
            angle=self._options.angle,
        )
        return {name: field.astype(np.float32) for name, field in fields.items()}
