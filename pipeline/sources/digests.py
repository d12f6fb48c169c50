"""Digests of source files, so that a store says from exactly what it was made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of_files(paths: Iterable[Path]) -> str:
    """``sha256:...`` of one file; of several, the SHA-256 of their sorted names and digests."""
    digests = {path: _sha256(path) for path in paths}
    if len(digests) == 1:
        return "sha256:" + next(iter(digests.values()))
    lines = sorted(f"{path.name} {digest}\n" for path, digest in digests.items())
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_of_listing(entries: Iterable[tuple[str, int]]) -> str:
    """``blake2b:...`` of sorted (name, bytes) pairs: a cheap digest of a folder of many files.

    It tells an added, removed, renamed or resized file; pixels are told apart by each row's content hash.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, size in sorted(entries):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return "blake2b:" + digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
