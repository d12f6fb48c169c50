from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from data_schemas.errors import DownloadError
from data_schemas.files import CACHE_VARIABLE, cache_folder
from pipeline.sources.download import RemoteFile, fetch
from tests.pipeline.mirrors import Mirror

CONTENT = np.random.default_rng(0).integers(0, 256, 700_000, dtype=np.uint8).tobytes()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


@pytest.mark.parametrize("checksum", [MD5, SHA256, None])
def test_a_good_file_arrives_once_and_progress_is_told(mirror: Mirror, tmp_path: Path, checksum: str | None) -> None:
    mirror.content["a.bin"] = CONTENT
    told: list[tuple[str, int, int | None]] = []
    remote = RemoteFile("set/a.bin", (mirror.url("a.bin"),), checksum)
    path = fetch(remote, tmp_path, progress=lambda *step: told.append(step))
    assert path == tmp_path / "set" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert told[-1] == ("set/a.bin", len(CONTENT), len(CONTENT))
    assert [have for _, have, _ in told] == sorted(have for _, have, _ in told)
    fetch(remote, tmp_path)
    assert len(mirror.requests) == 1
    assert names(tmp_path) == ["a.bin"]


def test_a_damaged_file_in_the_cache_is_fetched_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    (tmp_path / "a.bin").write_bytes(b"damaged")
    assert fetch(RemoteFile("a.bin", (mirror.url("a.bin"),), MD5), tmp_path).read_bytes() == CONTENT


def test_wrong_checksum_is_removed_and_the_next_mirror_serves(
    mirror: Mirror, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.content.update({"wrong": b"x" * 1000, "right": CONTENT})
    path = fetch(RemoteFile("a.bin", (mirror.url("wrong"), mirror.url("right")), SHA256), tmp_path)
    assert path.read_bytes() == CONTENT
    assert "wrong checksum" in caplog.text
    assert names(tmp_path) == ["a.bin"]


def test_wrong_checksum_everywhere_leaves_no_file(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content.update({"one": b"1", "two": b"2"})
    with pytest.raises(DownloadError, match="wrong checksum") as caught:
        fetch(RemoteFile("a.bin", (mirror.url("one"), mirror.url("two")), SHA256), tmp_path)
    assert mirror.url("one") in str(caught.value)
    assert mirror.url("two") in str(caught.value)
    assert SHA256 in str(caught.value)
    assert names(tmp_path) == []


def test_a_cut_connection_goes_on_where_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    mirror.cuts["a.bin"] = [300_000, 600_000]
    path = fetch(RemoteFile("a.bin", (mirror.url("a.bin"),), SHA256), tmp_path, pause=0)
    assert path.read_bytes() == CONTENT
    asked = [asked for _, asked in mirror.requests]
    assert asked[0] == ""
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in asked[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 300_000 < starts[1] <= 600_000


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    mirror.cuts["a.bin"] = [300_000]
    remote = RemoteFile("a.bin", (mirror.url("a.bin"),), SHA256)
    with pytest.raises(DownloadError, match="cut"):
        fetch(remote, tmp_path, attempts=1)
    assert names(tmp_path) == ["a.bin.part"]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert mirror.requests[-1][1].startswith("bytes=")
    assert names(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_starts_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    mirror.cuts["a.bin"] = [300_000]
    mirror.ranges = False
    assert fetch(RemoteFile("a.bin", (mirror.url("a.bin"),), MD5), tmp_path, pause=0).read_bytes() == CONTENT


def test_the_half_of_a_bad_mirror_does_not_spoil_the_good_one(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content.update({"bad": bytes(len(CONTENT)), "good": CONTENT})
    mirror.cuts["bad"] = [300_000] * 4
    path = fetch(RemoteFile("a.bin", (mirror.url("bad"), mirror.url("good")), MD5), tmp_path, pause=0, attempts=2)
    assert path.read_bytes() == CONTENT


def test_a_half_longer_than_the_file_is_thrown_away(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(RemoteFile("a.bin", (mirror.url("a.bin"),), MD5), tmp_path, pause=0).read_bytes() == CONTENT


def test_without_checksum_an_old_half_is_not_continued(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    (tmp_path / "a.bin.part").write_bytes(bytes(1000))
    assert fetch(RemoteFile("a.bin", (mirror.url("a.bin"),), None), tmp_path).read_bytes() == CONTENT


def test_missing_file_is_not_asked_for_twice(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["right"] = CONTENT
    path = fetch(RemoteFile("a.bin", (mirror.url("missing"), mirror.url("right")), MD5), tmp_path, pause=0)
    assert path.read_bytes() == CONTENT
    assert [name for name, _ in mirror.requests] == ["missing", "right"]
    with pytest.raises(DownloadError, match="HTTP 404") as caught:
        fetch(RemoteFile("b.bin", (mirror.url("missing"),), MD5), tmp_path, pause=0)
    assert "--data-dir" in str(caught.value)


def test_a_busy_server_is_asked_again(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="HTTP 503"):
        fetch(RemoteFile("a.bin", (mirror.url("busy"),), MD5), tmp_path, pause=0, attempts=3)
    assert len(mirror.requests) == 3


def test_no_network_names_every_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    urls = ("http://127.0.0.1:9/one", "http://127.0.0.1:9/two")
    with pytest.raises(DownloadError, match="connection failed") as caught:
        fetch(RemoteFile("a.bin", urls, MD5), tmp_path, pause=0, attempts=2)
    assert all(url in str(caught.value) for url in urls)
    assert names(tmp_path) == []


def test_an_endless_file_is_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content["a.bin"] = CONTENT
    with pytest.raises(DownloadError, match="more than 1000 bytes"):
        fetch(RemoteFile("a.bin", (mirror.url("a.bin"),), MD5, most_bytes=1000), tmp_path, pause=0)
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DownloadError, match="could not be written") as caught:
        fetch(RemoteFile("a.bin", ("http://127.0.0.1:9/a",), MD5), tmp_path / "file")
    assert CACHE_VARIABLE in str(caught.value)


def test_the_cache_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert "splatspace" in str(cache_folder())
