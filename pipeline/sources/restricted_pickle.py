"""Loads the pickles in which CIFAR-10 is published, and nothing that a pickle could do besides."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import SourceError


def load_restricted(data: bytes, name: str) -> dict[str, Any]:
    """A dictionary of numbers, strings, lists and numpy arrays of plain numbers; no other class is ever called.

    Args:
        data: a pickle, of Python 2 or 3.
        name: what an error message calls it.

    Raises:
        SourceError: the pickle asks for anything else, is damaged or cut short, or is no dictionary.
    """
    try:
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except SourceError as error:
        raise SourceError(f"{name}: {error.got}", allowed=error.allowed, next_step=error.next_step) from None
    # A damaged pickle may raise any error at all, MemoryError for an absurd length among them.
    except Exception as error:
        raise SourceError(
            f"{name} is damaged or cut short ({type(error).__name__}: {error})", next_step="download it again"
        ) from error
    if not isinstance(loaded, dict):
        raise SourceError(f"{name} holds a {type(loaded).__name__}", allowed="a dictionary, as CIFAR-10 is published")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in loaded.items()}


_ARRAY_CLASS = object()
"""Stands for ``numpy.ndarray`` inside a pickle; cannot be called, so no array of a pickle's choice is made."""


def _empty_array(kind: object, shape: object, code: object) -> NDArray[Any]:
    """Stands in for numpy's own function, which would allocate whatever shape a pickle names."""
    if kind is not _ARRAY_CLASS or shape != (0,):
        raise SourceError("A pickle asks for an array in an unusual way", allowed="arrays as numpy pickles them")
    return np.ndarray((0,), dtype=np.uint8)


def _plain_dtype(text: str, *_: object) -> np.dtype[Any]:
    dtype = np.dtype(text)
    if dtype.kind not in "buif":
        raise SourceError(f"A pickle asks for an array of {text!r}", allowed="arrays of plain numbers")
    return dtype


def _latin1_bytes(text: object, encoding: object) -> bytes:
    """Stands in for ``_codecs.encode``, by which Python 3 writes bytes into a pickle of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise SourceError("A pickle asks for another encoding than latin1", allowed="bytes as Python pickles them")
    return text.encode("latin1")


_ALLOWED = {
    ("_codecs", "encode"): _latin1_bytes,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _ARRAY_CLASS,
    ("numpy", "dtype"): _plain_dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise SourceError(
                f"A pickle asks for {module}.{name}, which is never loaded",
                allowed="numbers, strings, lists, dictionaries and numpy arrays",
                next_step="do not trust this file; download the official one",
            ) from None
