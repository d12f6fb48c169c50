from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from data_schemas.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.sprite_sheets import (
    ACTION_NAMES,
    CHARACTERS,
    POSES,
    SHEET_SHA256,
    SpriteSheets,
    find_changed_sheets,
    halve,
)
from pipeline.sources.sprites import characters_of


def parts(character):
    return character // 216, character // 36 % 6, character // 6 % 6, character % 6


@pytest.fixture(scope="module")
def sheets():
    """Sheets of the right size whose every cell differs, with holes and translucent pixels."""
    result = {}
    for seed, name in enumerate(SHEET_SHA256):
        random = np.random.default_rng(seed)
        rgba = np.kron(random.integers(0, 256, (168, 104, 4), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        alpha = random.choice(np.array([0, 0, 0, 255, 255, 83, 230, 253], np.uint8), (168, 104))
        rgba[..., 3] = np.kron(alpha, np.ones((8, 8), np.uint8))
        rgba[::3, ::5, 0] ^= 0x55  # neighbours inside a 2x2 box differ
        stream = io.BytesIO()
        Image.fromarray(rgba).save(stream, "PNG", compress_level=0)
        result[name] = stream.getvalue()
    return result


@pytest.fixture(scope="module")
def sheet_folder(sheets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheets")
    for name, data in sheets.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def composed_by_pillow(sheets, pose, character):
    body, bottom, top, hair = parts(character)
    frame = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    for name in (f"body/{body}", f"bottomwear/{bottom}", f"topwear/{top}", f"hair/{hair}", "shoes/1"):
        box = (64 * pose.column, 64 * pose.row, 64 * pose.column + 64, 64 * pose.row + 64)
        frame.alpha_composite(Image.open(io.BytesIO(sheets[f"{name}.png"])).convert("RGBA").crop(box))
    return np.asarray(frame)[..., :3]


def test_the_poses_are_the_published_63():
    assert len(POSES) == len({pose.name for pose in POSES}) == 63
    assert len(ACTION_NAMES) == 9
    assert (POSES[0].name, POSES[6].name, POSES[28].name, POSES[62].name) == (
        "spellcard/left/0",
        "spellcard/left/7",
        "walk/left/0",
        "slash/right/5",
    )
    assert (POSES[6].row, POSES[6].column) == (1, 6)
    assert (POSES[28].row, POSES[28].column) == (9, 8)
    assert (POSES[62].row, POSES[62].column) == (15, 5)


@pytest.mark.slow
def test_frames_are_composed_as_pillow_composes(sheets):
    made = SpriteSheets(sheets)
    characters = np.array([0, 17, 1295, 216, 17, 430])
    for number in (0, 28, 62):
        frames = made.compose(number, characters)
        for frame, character in zip(frames, characters, strict=True):
            np.testing.assert_array_equal(frame, composed_by_pillow(sheets, POSES[number], character))


@pytest.mark.slow
def test_the_quick_half_equals_the_plain_one(sheets):
    made = SpriteSheets(sheets)
    characters = np.arange(0, CHARACTERS, 37)
    full = made.compose(30, characters)
    np.testing.assert_array_equal(made.compose(30, characters, half=True), halve(full))
    boxes = full.astype(float).reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(halve(full), np.floor(boxes + 0.5))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("sprites", 32), ("sprites64", 64)])
def test_the_whole_set_from_a_folder(sheet_folder, keeps_contract, name, size, caplog):
    source = open_source(name, data_dir=sheet_folder)
    keeps_contract(source)
    assert len(source) == 81_648
    assert source.image_shape == (size, size, 3)
    assert "not the official ones" in caplog.text
    assert source.identifiers()[28 * 1296 + 17] == "walk/left/0/0017"
    image = source.read([28 * 1296 + 17])[0]
    assert ACTION_NAMES[image.label] == "walk left"
    assert "CC-BY-SA 3.0" in source.record.licence
    assert "GPL 3.0" in source.record.licence
    assert "Liberated Pixel Cup" in source.record.attribution


@pytest.mark.slow
def test_reads_across_poses_in_any_order(sheet_folder, sheets):
    source = open_source("sprites64", data_dir=sheet_folder)
    numbers = [62 * 1296 + 5, 3, 62 * 1296 + 4, 28 * 1296, 3]
    for number, image in zip(numbers, source.read(numbers), strict=True):
        expected = composed_by_pillow(sheets, POSES[number // 1296], number % 1296)
        np.testing.assert_array_equal(image.pixels, expected)


@pytest.mark.slow
def test_a_zip_gives_the_same_as_the_folder(sheet_folder, sheets, write_zip, tmp_path):
    path = write_zip(tmp_path / "lpc_sheets.zip", [(f"LPC/{name}", data) for name, data in sheets.items()])
    folder = open_source("sprites", data_dir=sheet_folder)
    for place in (tmp_path, path):
        zipped = open_source("sprites", data_dir=place)
        assert zipped.record == folder.record
        np.testing.assert_array_equal(zipped.read([4000])[0].pixels, folder.read([4000])[0].pixels)


def test_characters_are_divided_1000_to_296_and_every_part_is_on_both_sides():
    train, test = characters_of("train"), characters_of("test")
    assert (len(train), len(test)) == (1000, 296)
    assert sorted([*train, *test]) == list(range(1296)) == list(characters_of("all"))
    for side, position in itertools.product((train, test), range(4)):
        assert {parts(character)[position] for character in side} == set(range(6))


@pytest.mark.slow
def test_splits_keep_the_identifiers(sheet_folder):
    whole = open_source("sprites", data_dir=sheet_folder)
    test = open_source("sprites", data_dir=sheet_folder, split="test")
    train = open_source("sprites", data_dir=sheet_folder, split="train")
    assert len(test) == 63 * 296
    assert set(test.identifiers()) | set(train.identifiers()) == set(whole.identifiers())
    assert not set(test.identifiers()) & set(train.identifiers())
    at = list(whole.identifiers()).index(test.identifiers()[500])
    np.testing.assert_array_equal(test.read([500])[0].pixels, whole.read([at])[0].pixels)


def test_composed_frames_give_a_part_of_the_set(tmp_path, encoded, picture, write_zip, keeps_contract):
    names = [
        f"frames/{pose.action}/{pose.direction}_{code}_{pose.frame}.png"
        for pose in POSES[:2]
        for code in ("0153", "5554")
    ]
    frames = [(name, encoded(picture(seed, 64, 64))) for seed, name in enumerate(names)]
    write_zip(tmp_path / "frames64.zip", [*frames, ("frames/readme.txt", b"x")])
    source = open_source("sprites", data_dir=tmp_path)
    keeps_contract(source)
    assert "(4 of 81648 images)" in source.record.name
    assert list(source.identifiers())[:2] == ["spellcard/left/0/0069", "spellcard/left/0/1294"]
    np.testing.assert_array_equal(source.read([0])[0].pixels, halve(picture(0, 64, 64)[None])[0])
    folder = tmp_path / "unpacked"
    for name, data in frames:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / names[1]).write_bytes(b"broken")
    (folder / names[2]).write_bytes(encoded(picture(0, 8, 8)))
    images = open_source("sprites64", data_dir=folder).read(range(4))
    np.testing.assert_array_equal(images[0].pixels, picture(0, 64, 64))
    assert "no image" in images[1].failure
    assert "8 x 8" in images[2].failure


def test_the_ready_array_is_checked(tmp_path, refused, monkeypatch):
    path = tmp_path / "sprites32_box.npz"
    poses = np.array([pose.name for pose in POSES])
    np.savez(path, images=np.zeros((63, 32, 32, 3), np.uint8), poses=poses)
    error = refused(lambda: open_source("sprites", data_dir=tmp_path))
    assert "[63, 32, 32, 3]" in error.got
    assert "sprites instead of sprites64" in refused(lambda: open_source("sprites64", data_dir=tmp_path)).next_step
    monkeypatch.setattr("pipeline.sources.sprites.CHARACTERS", 1)
    assert open_source("sprites", data_dir=tmp_path).read([0])[0].pixels is not None
    path.write_bytes(path.read_bytes()[:500])
    assert "damaged" in refused(lambda: open_source("sprites", data_dir=tmp_path)).got


@pytest.mark.slow
def test_an_incomplete_set_of_sheets_is_no_set(sheets, tmp_path, write_zip, refused):
    write_zip(tmp_path / "lpc_sheets.zip", list(sheets.items())[:-1])
    assert "no Sprites" in refused(lambda: open_source("sprites", data_dir=tmp_path)).got


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"", b"no png", "small"])
def test_a_damaged_sheet_is_named(sheets, data, encoded, picture, refused):
    changed = dict(sheets)
    changed["hair/3.png"] = encoded(picture()) if data == "small" else data
    assert "hair/3.png" in refused(lambda: SpriteSheets(changed)).got
    assert "hair/3.png" in find_changed_sheets(changed)


@pytest.mark.slow
def test_only_two_sizes(sheet_folder, refused):
    error = refused(lambda: open_source("sprites", data_dir=sheet_folder, size=48))
    assert error.allowed == "32 or 64"
    assert open_source("sprites", data_dir=sheet_folder, size=64).image_shape == (64, 64, 3)


@pytest.mark.slow
def test_without_network_the_cache_is_used(sheet_folder, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SPLATSPACE_CACHE", str(tmp_path))
    assert "body/0.png" in refused(lambda: open_source("sprites", download=False)).got
    (tmp_path / "sprites").symlink_to(sheet_folder)
    assert len(open_source("sprites", download=False)) == 81_648


@pytest.mark.slow
def test_the_download_demands_the_official_sheets(monkeypatch, sheet_folder):
    asked = []

    def fetch(remote, **_):
        asked.append(remote)
        if len(asked) == 25:
            raise SourceError("stopped here")

    monkeypatch.setattr("pipeline.sources.sprites.fetch", fetch)
    with pytest.raises(SourceError, match="stopped here"):
        open_source("sprites")
    assert {remote.name for remote in asked} == {f"sprites/{name}" for name in SHEET_SHA256}
    assert all(remote.checksum == "sha256:" + SHEET_SHA256[remote.name[8:]] for remote in asked)


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_sample_equals_the_published_array_and_frames(shared_data):
    folder = shared_data / "sprites"
    source = open_source("sprites64", data_dir=folder / "lpc_sheets.zip")
    frames = open_source("sprites64", data_dir=folder / "frames64_60chars.zip")
    assert len(frames) == 3780
    position = {name: at for at, name in enumerate(source.identifiers())}
    chosen = range(0, 3780, 61)
    composed = source.read([position[frames.identifiers()[at]] for at in chosen])
    for one, other in zip(frames.read(chosen), composed, strict=True):
        assert (one.identifier, one.label) == (other.identifier, other.label)
        np.testing.assert_array_equal(one.pixels, other.pixels)


@pytest.mark.shared_data
@pytest.mark.slow
def test_all_81648_equal_the_published_array(shared_data, caplog):
    composed = open_source("sprites", data_dir=shared_data)
    ready = open_source("sprites", data_dir=shared_data / "sprites" / "sprites32_box.npz")
    assert "not the official ones" not in caplog.text
    assert list(composed.identifiers()) == list(ready.identifiers())
    for start in range(0, 81_648, 2592):
        indices = range(start, min(start + 2592, 81_648))
        for one, other in zip(composed.read(indices), ready.read(indices), strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
