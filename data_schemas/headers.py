"""Headers as JSON: reading, writing, checking, and comparing them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from data_schemas.errors import StoreError, StoreMismatchError
from data_schemas.locations import Location
from data_schemas.records import SCHEMA_VERSION, StoreHeader
from data_schemas.splats import CODECS, layout_named

SCHEMA_NAME = "splatspace"
"""Attribute ``schema`` of every store: what tells ours from others."""

FIXED_FIELDS = ("layout", "gaussians", "height", "width", "channels", "dtype", "images", "block_rows")
"""Fields that decide the shapes on disk; ``set_header`` cannot change them."""


def header_to_json(header: StoreHeader) -> dict[str, Any]:
    """The header as JSON types.

    Raises:
        StoreError: ``settings`` holds what JSON cannot (NaN, infinity, objects).
    """
    try:
        content = header.model_dump(mode="json")
        # The dump above writes NaN as null, which would be another setting when read again.
        json.dumps([header.settings, header.anchors], allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"The header cannot be written as JSON: {error}",
            allowed="strings, finite numbers, booleans, lists and dictionaries in settings",
        ) from error
    return content


def header_from_json(content: Any, path: Location) -> StoreHeader:
    """A header from JSON types, fully checked.

    Raises:
        StoreError: newer version, unknown codec or layout, or a field that is missing or wrong.
    """
    if not isinstance(content, Mapping):
        raise StoreError(
            f"{path}: the header is a {type(content).__name__}",
            allowed="a JSON object",
            next_step="restore the store from a copy",
        )
    require_known_version(content.get("schema_version"), path)
    codec = content.get("codec")
    if codec not in CODECS:
        raise StoreMismatchError(
            f"{path}: unknown codec {codec!r}",
            allowed=", ".join(CODECS),
            next_step="install a newer SplatSpace if a newer one wrote this store",
        )
    try:
        header = StoreHeader.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
        raise StoreError(
            f"{path}: the header is not valid ({faults})", next_step="restore the store from a copy"
        ) from error
    check_header(header)
    return header


def check_header(header: StoreHeader) -> None:
    """Checks what the fields' own types cannot.

    Raises:
        StoreMismatchError: unknown layout, channels that are not the layout's, anchors that are not K, or neither
            Gaussians nor images.
    """
    layout = layout_named(header.layout)
    if header.channels != layout.channels:
        raise StoreMismatchError(
            f"{header.channels} channels with layout {header.layout!r}", allowed=f"{layout.channels} channels"
        )
    if not header.gaussians and not header.images:
        raise StoreMismatchError("A store without Gaussians and without images", allowed="one of them, or both")
    if header.anchors is not None and len(header.anchors) != header.gaussians:
        raise StoreMismatchError(
            f"{len(header.anchors)} anchors for {header.gaussians} Gaussians",
            allowed=f"{header.gaussians} anchors or none",
        )


def require_known_version(version: Any, path: Location) -> None:
    """Refuses a store that a newer SplatSpace wrote.

    Raises:
        StoreError: no version, or one greater than ``SCHEMA_VERSION``.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise StoreError(
            f"{path}: schema_version {version!r}",
            allowed=f"1 to {SCHEMA_VERSION}",
            next_step="restore the store from a copy",
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path}: schema_version {version} is newer than this program",
            allowed=f"up to {SCHEMA_VERSION}",
            next_step="install a newer SplatSpace",
        )


def attributes(header: StoreHeader) -> dict[str, str | int]:
    """Top-level attributes for people and other programs; the full header stands beside them.

    Returns:
        Strings and integers only, equal in both formats.
    """
    content = header_to_json(header)
    keys = (
        "schema_version",
        "codec",
        "layout",
        "gaussians",
        "height",
        "width",
        "channels",
        "dtype",
        "images",
        "colours",
        "start",
        "engine",
        "seed",
        "block_rows",
        "created",
        "updated",
    )
    shown: dict[str, str | int] = {"schema": SCHEMA_NAME}
    for key in keys:
        value = content[key]
        shown[key] = int(value) if isinstance(value, bool) else "" if value is None else value
    shown.update(source=header.source.name, source_split=header.source.split, source_digest=header.source.digest)
    return shown


def require_identity(header: StoreHeader, wanted: StoreHeader) -> None:
    """Checks that rows made for ``wanted`` may enter a store with ``header``.

    Args:
        header: of the store.
        wanted: what the job would write.

    Raises:
        StoreMismatchError: names each differing field with both values.
    """
    stored = header_to_json(header.model_copy(update={"runs": ()}))
    asked = header_to_json(wanted.model_copy(update={"runs": ()}))
    faults: list[str] = []
    for key in header.identity():
        faults.extend(_differences(key, stored[key], asked[key]))
    faults.extend(_differences("background", stored["source"]["background"], asked["source"]["background"]))
    if faults:
        raise StoreMismatchError(
            "The store was made with other settings: " + "; ".join(faults),
            allowed="rows that share codec, layout, K, size, dtype, colours, start, engine, settings, seed and "
            "background",
            next_step="choose another output path, or use the stored settings",
        )


def require_parameter_names(stored: Sequence[str], header: StoreHeader, path: Location) -> None:
    """Checks the coordinate ``parameter`` against the layout.

    Raises:
        StoreError: the names or their order differ.
    """
    names = header.splat_layout.names
    if tuple(stored) != names:
        raise StoreError(
            f"{path}: the coordinate 'parameter' is {list(stored)}",
            allowed=", ".join(names),
            next_step="restore the store from a copy",
        )


def require_same_shapes(header: StoreHeader, wanted: StoreHeader) -> None:
    """Refuses a new header that would change shapes on disk.

    Raises:
        StoreMismatchError: names each differing field.
    """
    faults = [
        f"{key}: {getattr(header, key)!r} stored, {getattr(wanted, key)!r} wanted"
        for key in FIXED_FIELDS
        if getattr(header, key) != getattr(wanted, key)
    ]
    if faults:
        raise StoreMismatchError(
            "A header that does not fit the stored arrays: " + "; ".join(faults), next_step="create a new store"
        )


def _differences(key: str, stored: Any, wanted: Any) -> list[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        faults: list[str] = []
        for inner in sorted(stored.keys() | wanted.keys()):
            faults.extend(_differences(f"{key}.{inner}", stored.get(inner, "(absent)"), wanted.get(inner, "(absent)")))
        return faults
    return [] if stored == wanted else [f"{key}: {stored!r} stored, {wanted!r} wanted"]
