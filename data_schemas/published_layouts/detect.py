"""Which layout a path holds, by its content."""

from __future__ import annotations

from pathlib import Path

import h5py

from data_schemas.errors import StoreError
from data_schemas.published_layouts import columnar_hdf5, rotated_hdf5, stamp_hdf5
from data_schemas.published_layouts.hdf5_groups import child, open_file, subgroup
from data_schemas.published_layouts.rows import UnreadableImageError

ZARR = "zarr"
HDF5 = "hdf5"
TORCH_FOLDER = "torch-folder"

TORCH_SUFFIXES = (".pt", ".pth")
TORCH_FILE_PATTERN = "gaussian_representation_*.pt"

MEANINGS = {
    ZARR: "a SplatSpace store in a .zarr folder",
    HDF5: "a SplatSpace store in a .h5 file",
    TORCH_FOLDER: "a folder of gaussian_representation_{i}.pt with W [K, 7], or one such .pt",
    rotated_hdf5.LAYOUT_NAME: "HDF5 groups W/sprite_{i} or W/img_{i} of scaling, rotation, opacity, features, xyz",
    stamp_hdf5.LAYOUT_NAME: "HDF5 groups {key}/W or W/{key}/W of raw numbers [K, 9]",
    columnar_hdf5.LAYOUT_NAME: "an HDF5 table W [N, K, F] with labels, psnr, done",
}
LAYOUT_NAMES = tuple(MEANINGS)

_MOST_GROUPS_LOOKED_AT = 100


def describe_layouts() -> str:
    """The layouts with what they are, for messages."""
    return "; ".join(f"{name} ({meaning})" for name, meaning in MEANINGS.items())


def detect_layout(path: Path) -> str:
    """The layout of what is at a path.

    Args:
        path: file or folder.

    Returns:
        One of ``LAYOUT_NAMES``.

    Raises:
        StoreError: nothing there, or nothing that is known.
    """
    if path.is_dir():
        if (path / "zarr.json").is_file():
            return ZARR
        if next(path.glob(TORCH_FILE_PATTERN), None) is not None:
            return TORCH_FOLDER
        if next(path.iterdir(), None) is None:
            raise StoreError(f"{path} is an empty folder", allowed=describe_layouts())
        raise StoreError(f"{path} is a folder of an unknown kind", allowed=describe_layouts())
    if not path.exists():
        raise StoreError(f"{path} does not exist", next_step="check the path")
    if path.suffix.lower() in TORCH_SUFFIXES and not h5py.is_hdf5(path):
        return TORCH_FOLDER
    if not h5py.is_hdf5(path):
        raise StoreError(f"{path} is not an HDF5 file", allowed=describe_layouts())
    with open_file(path) as file:
        found = _detect_in_file(file)
    if found is None:
        raise StoreError(f"{path} is an HDF5 file of an unknown kind", allowed=describe_layouts())
    return found


def _detect_in_file(file: h5py.File) -> str | None:
    if "state" in file and ("splats" in file or "image" in file):
        return HDF5
    try:
        published = child(file, "W")
    except UnreadableImageError:
        published = None
    if isinstance(published, h5py.Dataset):
        return columnar_hdf5.LAYOUT_NAME if published.ndim == 3 else None
    group = published if isinstance(published, h5py.Group) else file
    for number, key in enumerate(group):
        if number == _MOST_GROUPS_LOOKED_AT:
            break
        try:
            members = subgroup(group, key)
        except UnreadableImageError:
            continue
        if group is not file and any(name in members for name in rotated_hdf5.FIELDS):
            return rotated_hdf5.LAYOUT_NAME
        if "W" in members:
            return stamp_hdf5.LAYOUT_NAME
    return None
