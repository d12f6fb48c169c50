"""What the tests of the sources share: the contract that each must keep, and makers of files."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_schemas.errors import SourceError
from pipeline.sources.base import ImageSource

Check = Callable[[ImageSource], None]


@pytest.fixture
def keeps_contract() -> Check:
    """Checks what ``ImageSource`` promises, reading out of order, twice, and from several threads."""

    def check(source: ImageSource) -> None:
        names = list(source.identifiers())
        assert len(names) == len(source) == len(set(names)) > 0
        assert all(name and name == name.strip() and not name.startswith("/") for name in names)
        assert source.record.name
        assert source.record.digest.split(":")[0] in ("sha256", "blake2b")
        assert source.read([]) == []
        indices = [len(source) - 1, 0, len(source) // 2, 0]
        first = source.read(indices)
        with ThreadPoolExecutor(4) as threads:
            again = list(threads.map(lambda index: source.read([index])[0], indices * 4))
        for at, image in enumerate(again):
            one = first[at % len(indices)]
            assert (image.identifier, image.label, image.failure) == (one.identifier, one.label, one.failure)
            assert image.identifier == names[indices[at % len(indices)]]
            assert -1 <= image.label < max(1, len(source.record.label_names) or 1 << 31)
            if image.pixels is None:
                assert image.failure
                assert one.pixels is None
                continue
            assert image.failure == ""
            assert image.pixels.dtype == np.uint8
            assert image.pixels.shape == source.image_shape
            assert source.image_shape[2] in (1, 3)
            np.testing.assert_array_equal(image.pixels, one.pixels)
        if first[0].pixels is not None:
            before = first[0].pixels.copy()
            first[0].pixels[:] = 7  # what a caller does with its copy changes nothing
            np.testing.assert_array_equal(source.read(indices[:1])[0].pixels, before)

    return check


@pytest.fixture
def pixels_of() -> Callable[[ImageSource, Iterable[int]], np.ndarray]:
    """Pixels of images that must be readable: uint8 [image, height, width, channel]."""

    def read(source: ImageSource, indices: Iterable[int]) -> np.ndarray:
        found = []
        for image in source.read(list(indices)):
            assert image.pixels is not None, image.failure
            found.append(image.pixels)
        return np.stack(found)

    return read


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    """Makes a distinct smooth image: uint8 [height, width, 3]."""

    def make(seed: int = 0, height: int = 12, width: int = 12) -> np.ndarray:
        y, x = np.mgrid[0:height, 0:width]
        channels = [(x * 9 + seed * 31) % 256, (y * 11 + seed * 17) % 256, (x + y + seed * 5) % 256]
        return np.stack(channels, axis=-1).astype(np.uint8)

    return make


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Bytes of an image file: (array or PIL image, format, options)."""

    def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
        stream = io.BytesIO()
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(stream, kind, **options)
        return stream.getvalue()

    return encode


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Bytes of a PNG made by hand: (rows of raw bytes, width, bits, colour type, chunks around the pixels)."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make(
        rows: Iterable[bytes],
        width: int,
        *,
        bits: int = 8,
        colour_type: int = 0,
        before: Iterable[tuple[bytes, bytes]] = (),
        after: Iterable[tuple[bytes, bytes]] = (),
    ) -> bytes:
        rows = list(rows)
        header = struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
        chunks = [(b"IHDR", header), *before, (b"IDAT", pixels), *after, (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*item) for item in chunks)

    return make


@pytest.fixture
def tiff() -> Callable[..., bytes]:
    """Bytes of a TIFF of one strip a plane made by hand: (tags, strips, byte order); values are shorts or longs."""

    def make(tags: dict[int, int | tuple[int, ...]], strips: Iterable[bytes], order: str = "<") -> bytes:
        strips = list(strips)
        data = b"".join(strips)
        starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
        tags = {**tags, 273: tuple(starts), 279: tuple(map(len, strips))}
        place = 8 + len(data)
        entries, beyond = b"", b""
        for tag, value in sorted(tags.items()):
            values = value if isinstance(value, tuple) else (value,)
            packed = struct.pack(f"{order}{len(values)}I", *values)
            if len(packed) > 4:
                beyond += packed
                packed = struct.pack(f"{order}I", place + 2 + 12 * len(tags) + 4 + len(beyond) - len(packed))
            entries += struct.pack(f"{order}HHI", tag, 4, len(values)) + packed
        head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, place)
        return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond

    return make


@pytest.fixture
def write_idx() -> Callable[..., None]:
    """Writes an idx file of unsigned bytes, gzipped where the name says so."""

    def write(path: Path, array: np.ndarray, *, magic: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim if magic is None else magic, *array.shape)
        data = header + array.astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)

    return write


@pytest.fixture
def write_zip() -> Callable[..., Path]:
    """Writes a zip of (name, bytes) pairs."""

    def write(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)
        return path

    return write


@pytest.fixture
def refused() -> Callable[[Callable[[], object]], SourceError]:
    """Runs a call that must end in a SourceError and gives the error."""

    def run(call: Callable[[], object]) -> SourceError:
        with pytest.raises(SourceError) as caught:
            call()
        return caught.value

    return run
