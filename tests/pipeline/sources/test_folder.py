from __future__ import annotations

import logging
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipeline.sources import open_source
from pipeline.sources.image_files import natural_key


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def zip_folder(root, path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, f"{root.name}/{file.relative_to(root).as_posix()}")
    return path


@pytest.fixture(params=["folder", "zip"])
def place(request, tmp_path):
    """Makes files and gives the path to open: a folder, or a zip of it."""

    def make(files):
        root = tmp_path / "set"
        root.mkdir(exist_ok=True)
        write(root, files)
        return root if request.param == "folder" else zip_folder(root, tmp_path / "set.zip")

    return make


def test_every_format_is_read(place, encoded, picture, keeps_contract, pixels_of):
    image = picture(3)
    kinds = {"png": "PNG", "bmp": "BMP", "tif": "TIFF", "TIFF": "TIFF", "webp": "WEBP", "jpg": "JPEG", "gif": "GIF"}
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
    files = {
        f"{n}.{suffix}": encoded(image, kind, **options.get(kind, {})) for n, (suffix, kind) in enumerate(kinds.items())
    }
    source = open_source(place(files))
    keeps_contract(source)
    assert len(source) == len(kinds)
    for name, pixels in zip(source.identifiers(), pixels_of(source, range(len(source))), strict=True):
        difference = np.abs(pixels.astype(int) - image).mean()
        assert difference < 25 if name.endswith(("jpg", "gif")) else difference == 0, name


def test_nested_folders_become_labels_in_natural_order(place, encoded, picture, keeps_contract):
    names = ["class 10/1.png", "class 2/10.png", "class 2/9.png", "class 2/deep/1.png", "loose.png"]
    source = open_source(place({name: encoded(picture(n)) for n, name in enumerate(names)}))
    keeps_contract(source)
    assert [name.removeprefix("set/") for name in source.identifiers()] == [
        "class 2/9.png",
        "class 2/10.png",
        "class 2/deep/1.png",
        "class 10/1.png",
        "loose.png",
    ]
    assert source.record.label_names == ("class 2", "class 2/deep", "class 10")
    assert [image.label for image in source.read(range(5))] == [0, 0, 1, 2, -1]


def test_one_folder_gives_no_labels(place, encoded, picture):
    source = open_source(place({f"all/of/them/{n}.png": encoded(picture(n)) for n in range(3)}))
    assert source.record.label_names == ()
    assert [image.label for image in source.read(range(3))] == [-1] * 3


@pytest.mark.parametrize(
    ("endings", "kind"), [(("jpg", "jpg", "jfif"), "JPEG"), (("jpg", "jfif", "jfif"), "JPEG"), (("", "", "x"), "PNG")]
)
def test_every_image_has_its_label_whatever_it_is_called(place, encoded, picture, endings, kind):
    names = [f"{name}/{n}.{end}".rstrip(".") for name, end in zip("cdf", endings, strict=True) for n in (0, 1)]
    source = open_source(place({name: encoded(picture(3), kind) for name in names} | {"e/notes.txt": b"text"}))
    assert source.record.label_names == ("c", "d", "f")
    assert [image.label for image in source.read(range(6))] == [0, 0, 1, 1, 2, 2]
    assert source.record.left_out == 1


def test_images_that_are_not_read_keep_their_class(place, encoded, picture):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    source = open_source(place({"a/1.png": encoded(picture()), "b/1.heic": heic, "c/1.png": encoded(picture())}))
    assert source.record.label_names == ("a", "b", "c")
    assert [(image.label, bool(image.failure)) for image in source.read(range(3))] == [
        (0, False),
        (1, True),
        (2, False),
    ]


def test_grey_only_when_all_are_grey(place, encoded, picture, pixels_of):
    grey = picture()[..., 0]
    grey_palette = Image.fromarray(grey).convert("P")
    files = {
        "a.png": encoded(grey),
        "b.png": encoded(Image.fromarray(grey).convert("LA")),
        "c.png": encoded(Image.fromarray(grey).convert("1")),
        "d.png": encoded(grey_palette),
        "e.png": encoded(Image.fromarray(grey.astype(np.uint16) * 257)),
    }
    source = open_source(place(files))
    assert source.image_shape == (12, 12, 1)
    for pixels in pixels_of(source, (0, 1, 3, 4)):
        np.testing.assert_array_equal(pixels[..., 0], grey)
    source = open_source(place({**files, "f.png": encoded(picture(1))}))
    assert source.image_shape == (12, 12, 3)
    np.testing.assert_array_equal(source.read([0])[0].pixels, np.repeat(grey[..., None], 3, axis=2))


def test_other_files_are_left_out_and_counted(place, encoded, picture, caplog):
    caplog.set_level(logging.INFO, "splatspace.sources")
    files = {
        "1.png": encoded(picture()),
        "notes.txt": b"hello",
        "table.csv": b"",
        ".hidden.png": b"",
        "x/.DS_Store": b"",
    }
    assert len(open_source(place(files))) == 1
    assert "4 files are left out: no images 2" in caplog.text
    assert "notes.txt" in caplog.text
    assert "hidden 2" in caplog.text


def test_the_content_decides_not_the_name(place, encoded, picture, caplog):
    files = {
        "a.png": encoded(picture(), "JPEG"),
        "b.jpg": encoded(picture()),
        "c": encoded(picture()),
        "d.txt": b"text",
    }
    source = open_source(place(files))
    assert len(source) == 3
    assert all(image.pixels is not None for image in source.read(range(3)))
    assert "3 images have another format than their names say" in caplog.text
    assert "a.png is JPEG" in caplog.text


def test_one_bad_image_among_many_is_named(place, encoded, picture, caplog):
    files = {f"{n}.png": encoded(picture(n)) for n in range(40)}
    files["17.png"] = b""
    files["23.png"] = files["23.png"][: len(files["23.png"]) // 2]
    source = open_source(place(files))
    assert len(source) == 40
    images = source.read(range(40))
    failed = {image.identifier.split("/")[-1]: image.failure for image in images if image.failure}
    assert set(failed) == {"17.png", "23.png"}
    assert "0 bytes" in failed["17.png"]
    assert "cannot be decoded" in failed["23.png"]
    assert all((image.pixels is None) == bool(image.failure) for image in images)
    assert "17.png" in caplog.text


def test_mixed_sizes_are_listed(place, encoded, picture, refused):
    files = {f"{n}.png": encoded(picture(n)) for n in range(3)}
    files |= {"tall.png": encoded(picture(0, 20, 10)), "wide.png": encoded(picture(0, 10, 20))}
    path = place(files)
    error = refused(lambda: open_source(path))
    assert "3 sizes" in error.got
    assert "12 x 12: 3 (such as" in error.got
    assert "10 x 20: 1" in error.got
    assert "tall.png" in error.got
    assert "--size 16" in error.next_step
    assert open_source(path, size=8).image_shape == (8, 8, 3)


def test_size_cuts_a_centred_square_and_resizes(place, encoded, pixels_of):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = (200, 100, 50)
    source = open_source(place({"a.png": encoded(wide), "b.png": encoded(wide.transpose(1, 0, 2))}), size=8)
    assert pixels_of(source, [0, 1]).shape == (2, 8, 8, 3)
    assert (pixels_of(source, [0, 1]) == (200, 100, 50)).all()
    assert pixels_of(open_source(place({"a.png": encoded(wide)}), size=64), [0]).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"hello"}, {".hidden.png": b"x"}])
def test_no_images(place, files, refused):
    path = place(files)
    error = refused(lambda: open_source(path))
    assert "holds no images" in error.got
    assert str(path) in error.got
    assert "PNG" in error.allowed


def test_only_unreadable_images(place, refused):
    error = refused(lambda: open_source(place({"a.png": b"", "b.jpg": b"broken"})))
    assert "no readable image" in error.got
    assert "a.png" in error.got
    assert "b.jpg" in error.got


def test_the_digest_follows_the_files(place, encoded, picture):
    files = {f"{n}.png": encoded(picture(n)) for n in range(3)}
    first = open_source(place(files)).record
    assert first == open_source(place(files)).record
    assert first.digest != open_source(place({**files, "3.png": encoded(picture(3, 12, 12))})).record.digest


def test_links_that_leave_the_folder_are_not_followed(tmp_path, encoded, picture, caplog):
    outside, root = tmp_path / "outside", tmp_path / "set"
    write(outside, {"secret.png": encoded(picture(9))})
    write(root, {"1.png": encoded(picture(1))})
    (root / "2.png").symlink_to(root / "1.png")
    (root / "3.png").symlink_to(outside / "secret.png")
    (root / "4.png").symlink_to(root / "nothing.png")
    (root / "folder").symlink_to(outside, target_is_directory=True)
    source = open_source(root)
    assert list(source.identifiers()) == ["1.png", "2.png", "3.png", "4.png"]
    images = source.read(range(4))
    np.testing.assert_array_equal(images[1].pixels, picture(1))
    assert "leaves the folder" in images[2].failure
    assert "link to nothing" in images[3].failure
    assert "linked folders" in caplog.text
    assert "4.png" in caplog.text


def test_a_link_to_itself_fails_alone(tmp_path, encoded, picture, refused):
    write(tmp_path / "set", {"1.png": encoded(picture())})
    (tmp_path / "set" / "2.png").symlink_to("2.png")
    (tmp_path / "set" / "3.png").symlink_to("4.png")
    (tmp_path / "set" / "4.png").symlink_to("3.png")
    (tmp_path / "set" / "folder").symlink_to("folder")
    images = open_source(tmp_path / "set").read(range(4))
    assert [image.failure for image in images] == ["", *["This is a link that leads back to itself."] * 3]
    assert "leads back to itself" in refused(lambda: open_source(tmp_path / "set" / "folder")).got
    assert "home" in refused(lambda: open_source("~nobody-of-this-name/set")).got


def test_linked_folders_and_what_cannot_be_opened_are_counted(tmp_path, encoded, picture, caplog):
    write(tmp_path / "set", {"1.png": encoded(picture())})
    write(tmp_path / "outside", {"2.png": encoded(picture())})
    (tmp_path / "set" / "folder").symlink_to(tmp_path / "outside", target_is_directory=True)
    (tmp_path / "set" / "gone").symlink_to(tmp_path / "nothing")
    source = open_source(tmp_path / "set")
    assert (len(source), source.record.left_out) == (1, 2)
    assert "linked folders, not followed 1 (folder)" in caplog.text
    assert "cannot be opened and have no image's name 1 (gone)" in caplog.text


def test_names_in_messages_are_written_out(tmp_path, encoded, picture, caplog):
    write(tmp_path, {"a\x1b[2J\n.png": b"", "b\u202e.txt": b"text", "c.png": encoded(picture())})
    assert open_source(tmp_path).identifiers()[0] == "a\x1b[2J\n.png"
    assert "a\\x1b[2J\\n.png" in caplog.text
    assert "b\\u202e.txt" in caplog.text
    assert not {"\x1b", "\u202e"} & set(caplog.text)


def test_a_pipe_does_not_block(tmp_path, encoded, picture):
    write(tmp_path, {"1.png": encoded(picture())})
    os.mkfifo(tmp_path / "2.png")
    assert "no regular file" in open_source(tmp_path).read([1])[0].failure


def test_a_name_that_is_no_utf8_gets_one(tmp_path, encoded, picture):
    (tmp_path / os.fsdecode(b"a\xff.png")).write_bytes(encoded(picture()))
    source = open_source(tmp_path)
    assert list(source.identifiers()) == ["a\\xff.png"]
    assert source.read([0])[0].pixels is not None


def test_a_file_that_goes_or_changes_later_fails_by_name(tmp_path, encoded, picture):
    write(tmp_path, {f"{n}.png": encoded(picture(n)) for n in range(3)})
    source = open_source(tmp_path)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").write_bytes(encoded(picture(0, 5, 5)))
    images = source.read(range(3))
    assert images[0].failure == ""
    assert "cannot be read" in images[1].failure
    assert "now 5 x 5" in images[2].failure


def test_natural_order_is_total():
    names = ["a10", "a9", "a09", "b", "a", "A1", "10", "9", "a1b2", "a1b10", "9" * 5000, "x٣", ""]
    ordered = sorted(names, key=natural_key)
    assert ordered.index("a9") < ordered.index("a10")
    assert ordered.index("a1b2") < ordered.index("a1b10")
    assert ordered.index("9") < ordered.index("10") < ordered.index("9" * 5000)
    assert ordered == sorted(reversed(names), key=natural_key)
    assert len({natural_key(name) for name in names}) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_slow_disk_and_a_quick_one_give_the_same(tmp_path, encoded, picture, monkeypatch, seconds):
    write(tmp_path, {f"{n}.png": encoded(picture(n)) if n % 50 else b"" for n in range(200)})
    monkeypatch.setattr("pipeline.sources.image_files._SLOW_SECONDS", seconds)
    source = open_source(tmp_path)
    assert list(source.identifiers()) == [f"{n}.png" for n in range(200)]
    assert [index for index, image in enumerate(source.read(range(200))) if image.failure] == [0, 50, 100, 150]
