"""Chosen members of a tar, read into memory; an archive with a name that leaves its folder is refused whole."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from data_schemas.errors import ArchiveError
from pipeline.sources.zip_members import unsafe_name

MOST_UNPACKED_BYTES = 4 << 30
"""All members together; a tar cannot be searched without unpacking it."""


def read_tar_members(path: Path, wanted: Collection[str], most_bytes: int) -> dict[str, bytes]:
    """Members of a tar (plain, gz, bz2, xz) whose last name is among ``wanted``.

    Args:
        path: the archive.
        wanted: file names without folders.
        most_bytes: of one member.

    Returns:
        Bytes by file name.

    Raises:
        ArchiveError: damaged, cut short, unsafe or oversized.
    """
    found: dict[str, bytes] = {}
    unpacked = 0
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                reason = unsafe_name(member.name) or (
                    f"a link to {member.linkname!r}" if member.issym() or member.islnk() else ""
                )
                if reason:
                    raise ArchiveError(
                        f"{path} holds the member {member.name!r}, {reason}",
                        allowed="files with relative paths inside the archive",
                        next_step="do not trust this archive; download the official one",
                    )
                unpacked += member.size
                if unpacked > MOST_UNPACKED_BYTES:
                    raise ArchiveError(f"{path} unpacks to more than {MOST_UNPACKED_BYTES:,} bytes")
                name = PurePosixPath(member.name).name
                if name not in wanted or not member.isfile():
                    continue
                if member.size > most_bytes:
                    raise ArchiveError(
                        f"{path}: {member.name} has {member.size:,} bytes", allowed=f"up to {most_bytes:,}"
                    )
                stream = archive.extractfile(member)
                if name in found or stream is None:
                    raise ArchiveError(f"{path} holds {name} twice", allowed="every name once")
                found[name] = stream.read()
                if len(found[name]) != member.size:
                    raise ArchiveError(
                        f"{path} is cut short inside {member.name}", next_step="copy or download it again"
                    )
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(
            f"{path} cannot be read as a tar; it is damaged or cut short ({error})",
            next_step="copy or download it again",
        ) from error
    return found
