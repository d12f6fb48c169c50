"""What is inside an HDF5 store file: datasets, dimension scales, attributes, and the checks on opening one.

Only structures that HDF5 checksums are relied on: file format 1.10 (checksummed metadata), fletcher32 on every dataset
with numbers or text, fixed-length strings (variable-length ones live in a heap without checksums).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.headers import (
    SCHEMA_NAME,
    attributes,
    header_from_json,
    header_to_json,
    require_known_version,
    require_parameter_names,
)
from data_schemas.records import StoreHeader
from data_schemas.stores.arrays import ArraySpec, array_attributes, array_specs

FORMAT = ("v110", "v110")
"""HDF5 1.10 and later read it; the first format whose metadata carries checksums throughout."""

HEADER_PATH = "metadata/header"
_NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable."
# Measured on float16 splats: level 4 saves 1 % over level 1 and writes 30 % slower; lzf saves 1 % in all.
_FILTERS: dict[str, Any] = {"shuffle": True, "compression": "gzip", "compression_opts": 1, "fletcher32": True}


def create_arrays(
    file: h5py.File, header: StoreHeader, rows: int, widths: Mapping[str, int]
) -> dict[str, h5py.Dataset]:
    """Makes the arrays of a store, all rows EMPTY.

    Args:
        file: open for writing.
        header: decides shapes and dtypes.
        rows: length of the first dimension.
        widths: array name to the bytes of its longest text.
    """
    made: dict[str, h5py.Dataset] = {}
    for name, spec in array_specs(header).items():
        dtype = h5py.string_dtype("utf-8", max(1, widths.get(name, 1))) if spec.is_text else np.dtype(spec.dtype)
        made[name] = file.create_dataset(
            name,
            shape=(rows, *spec.tail),
            maxshape=(None, *spec.tail),
            chunks=(spec.chunk_rows, *spec.tail),
            dtype=dtype,
            fillvalue=None if spec.is_text else spec.fill,
            **_FILTERS,
        )
    return made


def create_store_file(
    file: h5py.File, header: StoreHeader, store_id: str, rows: int, widths: Mapping[str, int]
) -> dict[str, h5py.Dataset]:
    """Makes a whole store file: arrays, dimension scales that netCDF programs understand, attributes, header."""
    arrays = create_arrays(file, header, rows, widths)
    layout, specs = header.splat_layout, array_specs(header)
    names = [name.encode() for name in layout.names]
    text = h5py.string_dtype("utf-8", max(map(len, names)))
    file.create_dataset("parameter", data=np.array(names, dtype=text), chunks=(len(names),), fletcher32=True)
    _text_attribute(file["parameter"], "_Encoding", "utf-8")
    _text_attribute(file["parameter"], "long_name", "column of splats")
    sizes = {dim: size for spec in specs.values() for dim, size in zip(spec.dims, (rows, *spec.tail), strict=True)}
    for number, (dim, size) in enumerate(sizes.items()):
        if dim not in file:
            growing = {"maxshape": (None,), "chunks": (header.block_rows,)} if dim == "image" else {}
            file.create_dataset(dim, shape=(size,), dtype=">f4", **growing)
        scale = cast(h5py.Dataset, file[dim])
        scale.make_scale(dim if dim in specs or dim == "parameter" else f"{_NO_VARIABLE}{size:>10}")
        scale.attrs.create("_Netcdf4Dimid", np.int32(number))
    order = list(sizes)
    for name, spec in specs.items():
        if name in sizes:  # pixels: the array 'image' is itself the scale of the dimension 'image'
            arrays[name].attrs.create("_Netcdf4Coordinates", np.array([order.index(d) for d in spec.dims], np.int32))
        else:
            for axis, dim in enumerate(spec.dims):
                arrays[name].dims[axis].attach_scale(file[dim])
        for key, value in array_attributes(spec, layout).items():
            _text_attribute(arrays[name], key, value)
        if spec.is_text:
            _text_attribute(arrays[name], "_Encoding", "utf-8")
    for key, value in {**attributes(header), "store_id": store_id}.items():
        _attribute(file, key, value)
    content = np.frombuffer(json.dumps(header_to_json(header), ensure_ascii=False).encode(), np.uint8)
    file.create_dataset(HEADER_PATH, data=content, chunks=(min(len(content), 65536),), **_FILTERS)
    return arrays


def mark_block(file: h5py.File, store_id: str, block: int) -> None:
    """Says of a journal file which store and which block it belongs to."""
    _text_attribute(file, "store_id", store_id)
    file.attrs.create("block", np.int64(block))


def block_of(file: h5py.File) -> int:
    """Which block a journal file says it holds."""
    return int(np.asarray(file.attrs["block"]))


def read_header(file: h5py.File, path: Path) -> StoreHeader:
    """The header of a store file.

    Raises:
        StoreError: not ours, newer, or not valid.
    """
    if _text(file.attrs.get("schema")) != SCHEMA_NAME:
        raise StoreError(
            f"{path} is not a SplatSpace store",
            allowed="a store made by 'splatspace encode'",
            next_step="choose another path, or 'splatspace convert' it first",
        )
    version = file.attrs.get("schema_version")
    require_known_version(int(version) if isinstance(version, np.integer) else version, path)
    content = np.asarray(cast(h5py.Dataset, file[HEADER_PATH])[()], np.uint8).tobytes()
    return header_from_json(json.loads(content), path)


def store_id_of(file: h5py.File) -> str:
    """The random name that ties a journal to its store."""
    return _text(file.attrs.get("store_id"))


def require_arrays(file: h5py.File, header: StoreHeader, path: Path) -> dict[str, h5py.Dataset]:
    """The arrays of a store file, checked against the header.

    Raises:
        StoreError: an array is missing, or its shape, dtype or dimensions differ.
    """
    specs = array_specs(header)
    found: dict[str, h5py.Dataset] = {}
    for name, spec in specs.items():
        array = file.get(name)
        if not isinstance(array, h5py.Dataset):
            raise StoreError(
                f"{path}: array {name!r} is missing",
                allowed=", ".join(specs),
                next_step="restore the store from a copy",
            )
        right = array.dtype.kind == "S" if spec.is_text else array.dtype == np.dtype(spec.dtype)
        if not right or array.shape[1:] != spec.tail or not array.fletcher32 or array.chunks is None:
            raise StoreError(
                f"{path}: array {name!r} is {array.dtype} [rows, {array.shape[1:]}]",
                allowed=f"{spec.dtype} [rows, {spec.tail}], chunked, with fletcher32",
                next_step="restore the store from a copy",
            )
        found[name] = array
    require_parameter_names(decode_text(np.asarray(cast(h5py.Dataset, file["parameter"])[()])).tolist(), header, path)
    lengths = {name: array.shape[0] for name, array in found.items()}
    if len(set(lengths.values())) != 1:
        raise StoreError(
            f"{path}: arrays of different lengths {lengths}",
            allowed="one length",
            next_step="restore the store from a copy",
        )
    return found


def require_dimensions(file: h5py.File, header: StoreHeader, path: Path) -> None:
    """Checks the links from arrays to dimension scales, the one thing that HDF5 keeps without a checksum.

    Raises:
        StoreError: an array has lost a dimension.
    """
    for name, spec in array_specs(header).items():
        if name in spec.dims:
            continue
        array = cast(h5py.Dataset, file[name])
        got = [_scale_name(array, axis) for axis in range(array.ndim)]
        if got != [f"/{dim}" for dim in spec.dims]:
            raise StoreError(
                f"{path}: array {name!r} has dimensions {got}",
                allowed=", ".join(spec.dims),
                next_step="restore the store from a copy",
            )


def decode_text(values: NDArray[Any]) -> NDArray[np.object_]:
    """Fixed-length UTF-8 as an object array of str."""
    out = np.empty(len(values), dtype=object)
    out[:] = [value.decode("utf-8") for value in values.tolist()]
    return out


def encode_text(values: NDArray[np.object_], width: int = 0) -> NDArray[Any]:
    """Strings as fixed-length UTF-8, as wide as the longest (at least ``width``, at least 1 byte)."""
    encoded = [value.encode("utf-8") for value in values.tolist()]
    width = max([1, width, *map(len, encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def text_width(spec: ArraySpec, array: h5py.Dataset) -> int:
    """Bytes of the widest text that a dataset can hold; 0 for numbers."""
    return array.dtype.itemsize if spec.is_text else 0


def _scale_name(array: h5py.Dataset, axis: int) -> str:
    scales = array.dims[axis]
    return str(scales[0].name) if len(scales) else ""


def _attribute(owner: Any, key: str, value: str | int) -> None:
    if isinstance(value, str):
        _text_attribute(owner, key, value)
    else:
        owner.attrs.create(key, np.int64(value))


def _text_attribute(owner: Any, key: str, value: str) -> None:
    encoded = value.encode("utf-8")
    owner.attrs.create(key, np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded)))))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
