"""A trained network in one file: safetensors, with the whole configuration in the header.

The header's metadata has one entry, ``splatspace``: JSON with ``version``, ``config`` (whatever the run needs to sample
again) and ``digest``, a BLAKE2b of all tensors. Tensors of the network are named ``model.``..., others ``extra.``... .
Files are replaced whole: whoever is killed while writing leaves the one before.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from data_schemas.errors import CheckpointError
from data_schemas.files import write_file

CHECKPOINT_VERSION = 1
_ENTRY = "splatspace"
_MODEL, _EXTRA = "model.", "extra."
_LARGEST_HEADER = 100 * 1024 * 1024
"""The format's own bound."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        config: plain values as they were saved.
        model: weights and buffers of the network by name, on the CPU.
        tensors: whatever else was saved, on the CPU.
    """

    config: dict[str, Any]
    model: dict[str, Tensor]
    tensors: dict[str, Tensor]

    def load_into(self, model: nn.Module) -> None:
        """Puts the weights into a network.

        Raises:
            CheckpointError: another network.
        """
        try:
            model.load_state_dict(self.model)
        except RuntimeError as error:
            raise CheckpointError(
                f"Weights of another network: {error}", next_step="build the model that the checkpoint's config names"
            ) from error


def save_checkpoint(
    path: Path,
    model: nn.Module | Mapping[str, Tensor],
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
    """Writes a checkpoint at once; the one before stays until the new one is whole.

    Args:
        path: the file; its folder exists.
        model: a network, or its state by name.
        config: plain values (JSON).
        tensors: more tensors by name.

    Raises:
        CheckpointError: it cannot be written, or ``config`` holds something that JSON cannot; nothing was changed.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    named = {_MODEL + name: value for name, value in state.items()}
    named |= {_EXTRA + name: value for name, value in (tensors or {}).items()}
    # Copies: tied weights would share memory, which the format refuses.
    held = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in sorted(named.items())}
    try:
        text = json.dumps(
            {"version": CHECKPOINT_VERSION, "config": dict(config), "digest": _digest(held)}, allow_nan=False
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"A configuration that JSON cannot hold: {error}") from error
    try:
        write_file(path, save(held, metadata={_ENTRY: text}))
    except OSError as error:
        raise CheckpointError(
            f"Could not write {path}: {error.strerror or error}; what was there before is still there",
            allowed="free space in a folder that you may write",
            next_step="free some space or choose another folder, and run the same command again",
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint and checks every byte of it.

    Args:
        path: written by ``save_checkpoint``.

    Raises:
        CheckpointError: missing, cut short, damaged, of another program or of a newer version.
    """
    data = _read(path)
    header = _header(path, data)
    try:
        named = load(data)
    except SafetensorError as error:
        raise _broken(path, f"cannot be read: {error}") from error
    if _digest(named) != header.get("digest"):
        raise _broken(path, "is damaged: its tensors are not those that were written")
    model = {name.removeprefix(_MODEL): value for name, value in named.items() if name.startswith(_MODEL)}
    extra = {name.removeprefix(_EXTRA): value for name, value in named.items() if name.startswith(_EXTRA)}
    return Checkpoint(header["config"], model, extra)


def read_config(path: Path) -> dict[str, Any]:
    """The configuration alone, without reading the tensors.

    Raises:
        CheckpointError: missing, cut short inside the header, of another program or of a newer version.
    """
    return _header(path, _read(path, header_only=True))["config"]


def _broken(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {what}",
        allowed="a whole checkpoint of SplatSpace",
        next_step="use another checkpoint, or train again with --resume from the last one that is whole",
    )


def _read(path: Path, *, header_only: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            if not header_only:
                return file.read()
            start = file.read(8)
            size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            return start + file.read(min(size, _LARGEST_HEADER))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"There is no checkpoint at {path}", next_step="give the folder of a run, or train one: splatspace train"
        ) from error
    except OSError as error:
        raise CheckpointError(f"Could not read {path}: {error.strerror or error}") from error


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """The content of the one metadata entry; the format puts its JSON after a length of eight bytes."""
    if len(data) < 8:
        raise _broken(path, f"is cut short: {len(data)} bytes")
    size = struct.unpack("<Q", data[:8])[0]
    if size > _LARGEST_HEADER:
        raise _broken(path, "is no safetensors file")
    if len(data) < 8 + size:
        raise _broken(path, "is cut short inside its header")
    try:
        outer = json.loads(data[8 : 8 + size])
        header = json.loads(outer["__metadata__"][_ENTRY])
        version, config = header["version"], header["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise _broken(path, "was not written by SplatSpace") from error
    if not isinstance(config, dict) or not isinstance(version, int):
        raise _broken(path, "was not written by SplatSpace")
    if version > CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint version {version}",
            allowed=f"up to {CHECKPOINT_VERSION}",
            next_step="install a newer SplatSpace",
        )
    return header


def _digest(named: Mapping[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(named):
        value = named[name].contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data if value.numel() else b"")
    return "blake2b:" + digest.hexdigest()
