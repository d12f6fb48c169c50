"""The members of zips and tars that may be read, and digests of source files.

No path escapes, no links, no bombs; nothing is ever unpacked to disk. A tar with a name that leaves its folder is
refused whole. Digests say from exactly what a store was made.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from data_schemas.errors import ArchiveError, ImageError

MOST_MEMBER_BYTES = 256 << 20
"""Most bytes of one member after unpacking: an uncompressed image of MAX_IMAGE_PIXELS fits."""

MOST_RATIO = 500
"""Greatest ratio of unpacked to packed bytes, for members above SMALL_MEMBER_BYTES."""

SMALL_MEMBER_BYTES = 8 << 20

MOST_MEMBERS = 10_000_000

MOST_UNPACKED_BYTES = 4 << 30
"""All members together; a tar cannot be searched without unpacking it."""


@dataclass(frozen=True)
class ZipMember:
    """One file inside a zip.

    Attributes:
        name: relative path with ``/``, without ``.`` and ``..``.
        info: the entry of the zip's directory.
        refusal: why it is not unpacked ("" where it may be).
    """

    name: str
    info: zipfile.ZipInfo
    refusal: str = ""


class SafeZip:
    """A zip opened for reading; members are read into memory, from any thread.

    Args:
        path: the zip.

    Raises:
        ArchiveError: it is no zip, is cut short, or a member's name would leave a folder, is a link, is
            encrypted or occurs twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            raise ArchiveError(
                f"{path} is no zip or is cut short ({error})",
                allowed="a complete .zip",
                next_step="copy or download it again",
            ) from error
        infos = self._zip.infolist()
        if len(infos) > MOST_MEMBERS:
            raise ArchiveError(f"{path} lists {len(infos):,} members", allowed=f"up to {MOST_MEMBERS:,}")
        self.members: tuple[ZipMember, ...] = tuple(self._checked(info) for info in infos if not _is_folder(info))
        seen: set[str] = set()
        for member in self.members:
            if member.name in seen:
                raise ArchiveError(
                    f"{path} holds {member.name!r} twice", allowed="every name once", next_step="pack the folder again"
                )
            seen.add(member.name)

    def read(self, member: ZipMember) -> bytes:
        """The unpacked bytes.

        Raises:
            ImageError: the member is refused, damaged or cut short.
        """
        if member.refusal:
            raise ImageError(member.refusal)
        try:
            with self._zip.open(member.info) as stream:
                # One more than announced: a directory that lies about the size must not fill the memory.
                data = stream.read(member.info.file_size + 1)
        # zlib.error, lzma.LZMAError, BadZipFile (wrong CRC), NotImplementedError (method), EOFError, OSError:
        # each compressor has its own way of saying that the bytes are damaged.
        except Exception as error:
            raise ImageError(f"The archive's bytes are damaged ({type(error).__name__}: {error})") from error
        if len(data) != member.info.file_size:
            raise ImageError(f"The archive gives {len(data)} bytes", allowed=f"the announced {member.info.file_size}")
        return data

    def open(self, member: ZipMember) -> io.BytesIO:
        """The unpacked bytes as a stream; same errors as ``read``."""
        return io.BytesIO(self.read(member))

    def _checked(self, info: zipfile.ZipInfo) -> ZipMember:
        name = plain_name(info.filename)
        reason = unsafe_name(name) or unsafe_name(plain_name(getattr(info, "orig_filename", info.filename)))
        if reason:
            raise ArchiveError(
                f"{self.path} holds the member {info.filename!r}, {reason}",
                allowed="relative paths inside the archive",
                next_step="do not trust this archive; pack the folder again",
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(
                f"{self.path} holds the link {name!r}",
                allowed="files and folders",
                next_step="pack the folder again with links followed",
            )
        if info.flag_bits & 0x1:
            raise ArchiveError(
                f"{self.path} is encrypted (member {name!r})",
                allowed="an archive without password",
                next_step="unpack it and give the folder",
            )
        refusal = ""
        if info.file_size > MOST_MEMBER_BYTES:
            refusal = f"It unpacks to {info.file_size:,} bytes, more than {MOST_MEMBER_BYTES:,}: not unpacked"
        elif info.file_size > SMALL_MEMBER_BYTES and info.file_size > MOST_RATIO * max(info.compress_size, 1):
            refusal = (
                f"It unpacks {info.compress_size:,} bytes to {info.file_size:,}, more than {MOST_RATIO} times: "
                "taken for a decompression bomb and not unpacked"
            )
        return ZipMember(name, info, refusal)


def plain_name(name: str) -> str:
    """A member's name as a relative path: ``/`` for backslashes (Windows packs so), without ``./``.

    It may still be unsafe: an absolute path stays one, and ``..`` stays.
    """
    first, *others = name.replace("\\", "/").split("/")
    kept = [part for part in others if part not in ("", ".")]
    return "/".join(kept if first == "." else [first, *kept])


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.is_dir() or (info.filename.endswith("\\") and info.file_size == 0)


def unsafe_name(name: str) -> str:
    """Why a member's name may not be used, or "" where it is a plain relative path."""
    if not name or "\0" in name:
        return "an empty name or one with a NUL"
    if "\\" in name:
        return "a name with a backslash"
    if name.startswith("/") or PureWindowsPath(name).drive:
        return "an absolute path"
    if ".." in name.split("/"):
        return "a path that leaves the archive"
    return ""


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
