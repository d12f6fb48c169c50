"""The members of a zip that may be read: no path escapes, no links, no bombs. Nothing is ever unpacked to disk."""

from __future__ import annotations

import io
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from data_schemas.errors import ArchiveError, ImageError

MOST_MEMBER_BYTES = 256 << 20
"""Most bytes of one member after unpacking: an uncompressed image of MAX_IMAGE_PIXELS fits."""

MOST_RATIO = 500
"""Greatest ratio of unpacked to packed bytes, for members above SMALL_MEMBER_BYTES."""

SMALL_MEMBER_BYTES = 8 << 20

MOST_MEMBERS = 10_000_000


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
