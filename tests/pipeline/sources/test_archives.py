from __future__ import annotations

import stat
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import ArchiveError, ImageError
from pipeline.sources import open_source
from pipeline.sources.archives import SafeZip, plain_name, unsafe_name


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/etc/a.png", "C:/a.png", "c:a.png", "..", "a/..", "//host/share/a.png"]
)
def test_names_that_leave_the_archive_are_refused(tmp_path, write_zip, encoded, picture, name):
    path = write_zip(tmp_path / "a.zip", [("good.png", encoded(picture())), (name, encoded(picture()))])
    with pytest.raises(ArchiveError, match="holds the member") as caught:
        open_source(path)
    assert repr(name) in caught.value.got
    assert not any(file.suffix == ".png" for file in tmp_path.rglob("*"))


def renamed(path, before, after):
    """The zip with other names of the same length, which Python's own writer would have changed."""
    path.write_bytes(path.read_bytes().replace(before, after))
    return path


@pytest.mark.parametrize("name", [b"..\\..\\QQ.png", b"\\\\host\\Q.png", b"C:\\QQQQQ.png", b".\\..\\QQQ.png"])
def test_backslashes_that_leave_the_archive_are_refused(tmp_path, write_zip, encoded, picture, name):
    path = write_zip(tmp_path / "a.zip", [("dir/QQQQ.png", encoded(picture()))])
    with pytest.raises(ArchiveError, match="holds the member"):
        open_source(renamed(path, b"dir/QQQQ.png", name))


def test_members_with_backslashes_and_dots_are_read(tmp_path, write_zip, encoded, picture):
    members = [(name, encoded(picture(n))) for n, name in enumerate(["a/1.png", "./b/2.png", "c|d|3.png", ".|c|4.png"])]
    path = write_zip(tmp_path / "a.zip", [("e|", b""), ("./", b""), *members, (".|.hidden.png", b"")])
    data = path.read_bytes()
    for name in (b"c|d|3.png", b".|c|4.png", b"e|", b".|.hidden.png"):
        data = data.replace(name, name.replace(b"|", b"\\"))
    path.write_bytes(data)
    source = open_source(path)
    assert list(source.identifiers()) == ["a/1.png", "b/2.png", "c/4.png", "c/d/3.png"]
    assert source.record.label_names == ("a", "b", "c", "c/d")
    assert source.record.left_out == 1
    for image, seed in zip(source.read(range(4)), (0, 1, 3, 2), strict=True):
        np.testing.assert_array_equal(image.pixels, picture(seed))


def test_names_that_are_one_after_all_are_refused(tmp_path, write_zip):
    path = write_zip(tmp_path / "a.zip", [("d/a.png", b"1"), ("./d/a.png", b"2")])
    with pytest.raises(ArchiveError, match="twice"):
        open_source(path)


@pytest.mark.slow
@given(st.text(alphabet=st.sampled_from("./\\:ab\0C"), max_size=12))
def test_a_name_that_passes_stays_inside(given_name):
    name = plain_name(given_name)
    if unsafe_name(name) == "":
        path = PurePosixPath(name)
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert "\\" not in name
        assert "\0" not in name
        depth = 0
        for part in path.parts:
            depth += 1 if part != ".." else -1
            assert depth > 0


@pytest.mark.slow
@given(st.lists(st.text(alphabet="abc .-_é", min_size=1, max_size=5).filter(lambda part: part != ".."), min_size=1))
def test_plain_names_pass(parts):
    assert unsafe_name("/".join(parts)) == ""


def test_links_are_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="link"):
        open_source(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path, write_zip):
    path = write_zip(tmp_path / "a.zip", [("a.png", b"1"), ("a.png", b"2")])
    with pytest.raises(ArchiveError, match="twice"):
        open_source(path)


def test_an_encrypted_archive_is_refused(tmp_path, write_zip):
    path = write_zip(tmp_path / "a.zip", [("a.png", b"1")])
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        open_source(path)


@pytest.mark.parametrize("data", [b"", b"no zip", None])
def test_what_is_no_zip(tmp_path, write_zip, data):
    path = write_zip(tmp_path / "a.zip", [(f"{n}.png", bytes(1000)) for n in range(20)])
    path.write_bytes(path.read_bytes()[:-300] if data is None else data)
    with pytest.raises(ArchiveError, match="no zip or is cut short"):
        open_source(path)


@pytest.mark.slow
def test_a_bomb_is_not_unpacked_but_named(tmp_path, write_zip, encoded, picture):
    path = write_zip(tmp_path / "a.zip", [("bomb.png", bytes(20 << 20)), ("good.png", encoded(picture()))])
    source = open_source(path)
    bomb, good = source.read([0, 1])
    assert "decompression bomb" in bomb.failure
    assert good.failure == ""


def test_a_member_that_is_too_large_is_named(tmp_path, write_zip, encoded, picture, monkeypatch):
    monkeypatch.setattr("pipeline.sources.archives.MOST_MEMBER_BYTES", 1000)
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    path = write_zip(tmp_path / "a.zip", [("big.png", encoded(noise)), ("good.png", encoded(picture()))])
    big, good = open_source(path).read([0, 1])
    assert "more than 1,000" in big.failure
    assert good.failure == ""


def test_damaged_bytes_of_one_member_fail_alone(tmp_path, write_zip, encoded, picture):
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    path = write_zip(tmp_path / "a.zip", [("bad.png", encoded(noise)), ("good.png", encoded(picture()))])
    data = bytearray(path.read_bytes())
    data[200] ^= 0xFF
    path.write_bytes(data)
    bad, good = open_source(path).read([0, 1])
    assert "damaged" in bad.failure
    assert good.failure == ""


def test_a_directory_that_lies_about_a_size_is_noticed(tmp_path, write_zip):
    path = write_zip(tmp_path / "a.zip", [("a.png", bytes(range(256)) * 8)])
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    archive = SafeZip(path)
    with pytest.raises(ImageError, match=r"damaged|gives"):
        archive.read(archive.members[0])
