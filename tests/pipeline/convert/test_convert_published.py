import h5py
import numpy as np
import pytest
import torch

from benchmarks.convert import render_stamps
from data_schemas.errors import JobError, StoreError
from data_schemas.published_layouts import ConversionOptions, detect_layout
from data_schemas.records import RowState, SourceRecord
from data_schemas.splats import GREY
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from encoders.render import render
from pipeline.convert.convert import convert
from pipeline.sources.base import SourceImage

TARGETS = {
    "torch-folder": "published",
    "hdf5-rotated": "published.h5",
    "hdf5-stamp": "published.h5",
    "hdf5-columnar": "published.h5",
}


def contents(path):
    """Every data set of an HDF5 file by its name."""
    found = {}

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def quality(header, rows, images):
    done = rows["state"] == RowState.DONE
    frame = {"codec": header.codec, "height": header.height, "width": header.width, "workers": 1}
    decoded = decode(rows["splats"][done], layout=header.splat_layout, **frame)
    return psnr(to_uint8(decoded), images[done])


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("channels", "alpha", "dtype"), [(1, False, "float32"), (3, False, "float16"), (3, True, "float16")]
)
def test_round_trip_keeps_the_decoded_image(make_store, read_rows, tmp_path, target, channels, alpha, dtype):
    source = make_store(channels=channels, alpha=alpha, dtype=dtype)
    published = tmp_path / TARGETS[target]
    there = convert(source, published, target_layout=target)
    assert detect_layout(published) == target
    back = convert(published, tmp_path / "back.h5")
    assert back.source_layout == target
    old_header, old = read_rows(source)
    new_header, new = read_rows(tmp_path / "back.h5")
    difference = quality(new_header, new, old["image"]) - quality(old_header, old, old["image"])
    assert np.abs(difference).max() < 0.01
    for name in ("source_id", "label", "state", "failure"):
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)
    changed = {"images", "layout", "dtype"} if alpha else {"images"}
    kept = set(type(old_header).model_fields) - changed
    assert {name: getattr(new_header, name) for name in kept} == {name: getattr(old_header, name) for name in kept}
    assert not new_header.images
    for summary in (there, back):
        assert (summary.rows, summary.done, summary.empty) == (10, 8, 1)
        assert summary.failed == [("folder/image 5.png", "the file is cut short")]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["hdf5-rotated", "hdf5-columnar"])
def test_signed_colours_survive(make_store, read_rows, tmp_path, target):
    source = make_store(channels=3, signed=True)
    convert(source, tmp_path / "p.h5", target_layout=target)
    convert(tmp_path / "p.h5", tmp_path / "back.zarr")
    old, new = read_rows(source)[1], read_rows(tmp_path / "back.zarr")[1]
    np.testing.assert_allclose(new["splats"], old["splats"], atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torch-folder", "hdf5-stamp"])
def test_colours_that_stamps_clamp_are_refused(make_store, tmp_path, target):
    with pytest.raises(StoreError, match="8 images have colours outside"):
        convert(make_store(signed=True), tmp_path / TARGETS[target], target_layout=target)
    assert not (tmp_path / TARGETS[target]).exists()


@pytest.mark.slow
def test_gaussians_wider_than_the_image_get_larger_stamps(make_store, read_rows, tmp_path):
    source = make_store(widest=1.5)
    summary = convert(source, tmp_path / "folder")
    assert any("larger than the image" in note for note in summary.notes)
    convert(tmp_path / "folder", tmp_path / "back.zarr")
    old, new = read_rows(source)[1], read_rows(tmp_path / "back.zarr")[1]
    np.testing.assert_allclose(new["splats"], old["splats"], atol=5e-6)


@pytest.mark.slow
def test_other_codecs_have_no_published_layout(make_store, tmp_path):
    with pytest.raises(StoreError, match="normalised/1"):
        convert(make_store(codec="normalised/1"), tmp_path / "folder")


@pytest.mark.slow
def test_between_published_layouts(make_store, read_rows, tmp_path):
    source = make_store(channels=3)
    convert(source, tmp_path / "a.h5", target_layout="hdf5-rotated")
    convert(tmp_path / "a.h5", tmp_path / "b.h5", target_layout="hdf5-columnar")
    convert(tmp_path / "b.h5", tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "back.zarr")
    old, new = read_rows(source)[1], read_rows(tmp_path / "back.zarr")[1]
    np.testing.assert_allclose(new["splats"], old["splats"], atol=5e-6)
    np.testing.assert_array_equal(new["state"], old["state"])


def test_the_folder_has_the_published_form(make_store, tmp_path):
    convert(make_store(), tmp_path / "folder")
    names = {file.name for file in (tmp_path / "folder").glob("*.pt")}
    assert names == {f"gaussian_representation_{row}.pt" for row in (0, 1, 2, 3, 4, 7, 8, 9)}
    content = torch.load(tmp_path / "folder" / "gaussian_representation_9.pt", weights_only=True)
    assert content["W"].shape == (24, 7)
    assert content["W"].dtype == torch.float32
    assert isinstance(content["label"], int)
    assert content["loss_history"] == []
    assert torch.all(torch.sigmoid(content["W"][:, 3]) == 1)


@pytest.mark.slow
def test_the_rotated_file_has_the_published_form(make_store, tmp_path):
    options = ConversionOptions(key_prefix="sprite")
    convert(make_store(channels=3), tmp_path / "p.h5", target_layout="hdf5-rotated", options=options)
    content = contents(tmp_path / "p.h5")
    shapes = {name.removeprefix("W/"): array.shape for name, array in content.items() if name.startswith("W/")}
    fields = {"scaling": 2, "rotation": 1, "opacity": 1, "features": 3, "xyz": 2}
    assert shapes == {
        f"sprite_{row}/{name}": (24, width) for row in (0, 1, 2, 3, 4, 7, 8, 9) for name, width in fields.items()
    }
    assert np.all(content["W/sprite_0/opacity"] == 1)
    assert np.all((content["W/sprite_0/rotation"] >= 0) & (content["W/sprite_0/rotation"] < 2 * np.pi))


@pytest.mark.slow
def test_the_columnar_file_has_the_published_form(make_store, read_rows, tmp_path):
    source = make_store()
    convert(source, tmp_path / "p.h5", target_layout="hdf5-columnar")
    rows = read_rows(source)[1]
    content = contents(tmp_path / "p.h5")
    assert content["W"].shape == (10, 24, 7)
    np.testing.assert_array_equal(content["psnr"], rows["psnr"])
    np.testing.assert_array_equal(content["done"], rows["state"] == RowState.DONE)
    np.testing.assert_array_equal(content["orig_index"][:3], [0, 1, 2])
    assert content["labels"][9] == rows["label"][9]
    with h5py.File(tmp_path / "p.h5") as file:
        assert file.attrs["K"] == 24
        assert file.attrs["mean_psnr"] == pytest.approx(np.nanmean(rows["psnr"]))
    convert(tmp_path / "p.h5", tmp_path / "back.zarr")
    np.testing.assert_array_equal(read_rows(tmp_path / "back.zarr")[1]["psnr"], rows["psnr"])


def raw_gaussians(seed, gaussians=70, columns=7):
    """Raw numbers in the ranges that published files show."""
    rng = torch.Generator().manual_seed(seed)
    raw = torch.rand(gaussians, columns, generator=rng)
    raw[:, :2] = raw[:, :2] * 5 - 1
    raw[:, 2] = torch.randn(gaussians, generator=rng) * 0.7
    raw[:, 3] = raw[:, 3] * 4 - 1
    raw[:, 4:-2] = raw[:, 4:-2] * 0.5 - 0.1
    raw[:, -2:] = raw[:, -2:] * 2.4 - 1.2
    return raw


@pytest.fixture
def published_folder(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for index in (0, 2, 10):
        content = {"W": raw_gaussians(index), "label": index % 10, "loss_history": [0.5, 0.25]}
        torch.save(content, folder / f"gaussian_representation_{index}.pt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kernel_size", "alpha"), [(17, "ignored"), (9, "folded"), (18, "ignored")])
def test_a_published_folder_decodes_to_what_its_renderer_draws(
    published_folder, read_rows, tmp_path, kernel_size, alpha
):
    errors = {}
    for stamp in ("fitted", "centres"):
        options = ConversionOptions(kernel_size=kernel_size, alpha=alpha, stamp=stamp)
        convert(published_folder, tmp_path / f"{stamp}.zarr", options=options)
        header, rows = read_rows(tmp_path / f"{stamp}.zarr")
        assert (header.gaussians, header.height, header.width, header.layout) == (70, 28, 28, "grey")
        assert rows["source_id"].tolist() == [f"gaussian_representation_{index}" for index in (0, 2, 10)]
        assert rows["label"].tolist() == [0, 2, 0]
        assert rows["steps"].tolist() == [2, 2, 2]
        assert np.all(np.isnan(rows["psnr"]))
        assert not rows["content_hash"].any()
        drawn = torch.stack([
            render_stamps(raw_gaussians(index).double(), 28, 28, kernel_size, fold_alpha=alpha == "folded")
            for index in (0, 2, 10)
        ])  # fmt: skip
        decoded = render(torch.from_numpy(rows["splats"]).double(), GREY, "additive/1", 28, 28)
        errors[stamp] = float(torch.mean((decoded - drawn) ** 2))
    assert -10 * np.log10(errors["fitted"]) > 42
    assert errors["fitted"] < errors["centres"] / 4


@pytest.mark.slow
def test_the_published_default_is_the_sampler_that_ignores_alpha(published_folder, read_rows, tmp_path):
    convert(published_folder, tmp_path / "default.zarr")
    convert(published_folder, tmp_path / "explicit.zarr", options=ConversionOptions(kernel_size=17, alpha="ignored"))
    first, second = (read_rows(tmp_path / f"{name}.zarr")[1]["splats"] for name in ("default", "explicit"))
    np.testing.assert_array_equal(first, second)


class Pictures:
    """Source images in memory; the second cannot be read."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.record = SourceRecord(name="pictures", split="test")
        self.image_shape = pixels.shape[1:]

    def __len__(self):
        return len(self.pixels)

    def identifiers(self):
        return [f"image {index}" for index in range(len(self))]

    def read(self, indices):
        return [
            SourceImage(f"image {index}", None if index == 1 else self.pixels[index], 5, "cut short" * (index == 1))
            for index in indices
        ]


@pytest.mark.slow
def test_source_images_give_quality_and_identity(published_folder, read_rows, tmp_path):
    drawn = torch.stack([render_stamps(raw_gaussians(index).double(), 28, 28, 17) for index in (0, 2, 10)])
    pictures = Pictures(to_uint8(drawn.numpy()))
    summary = convert(published_folder, tmp_path / "s.zarr", images=pictures)
    header, rows = read_rows(tmp_path / "s.zarr")
    assert header.images
    assert header.source.name == "pictures"
    assert summary.failed == [("image 1", "its source image cannot be read: cut short")]
    assert rows["label"].tolist() == [0, 2, 0]
    np.testing.assert_array_equal(rows["image"][2], pictures.pixels[2])
    assert np.all(rows["psnr"][[0, 2]] > 40)
    np.testing.assert_allclose(rows["psnr"][[0, 2]], quality(header, rows, rows["image"]))
    assert rows["content_hash"][0].any()


def test_other_source_images_are_refused(published_folder, tmp_path):
    with pytest.raises(JobError, match="4 source images"):
        convert(published_folder, tmp_path / "s.zarr", images=Pictures(np.zeros((4, 28, 28, 1), np.uint8)))
    with pytest.raises(JobError, match=r"\(32, 32, 1\)"):
        convert(published_folder, tmp_path / "s.zarr", images=Pictures(np.zeros((3, 32, 32, 1), np.uint8)))
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("form", ["{key}", "W/{key}"])
def test_old_hdf5_files_of_raw_numbers(read_rows, tmp_path, form):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        for index in (0, 1, 11, 2):
            group = file.create_group(form.format(key=f"sprite_{index}"))
            group["W"] = raw_gaussians(index, 200, 9).numpy()
    convert(tmp_path / "old.h5", tmp_path / "s.zarr", options=ConversionOptions(stamp="centres"))
    header, rows = read_rows(tmp_path / "s.zarr")
    assert (header.height, header.layout, header.colours) == (32, "rgb", "bounded")
    assert rows["source_id"].tolist() == ["sprite_0", "sprite_1", "sprite_2", "sprite_11"]


def columnar(path, columns, gaussians=70, **attributes):
    values = np.full((3, gaussians, columns), 0.4, np.float32)
    values[..., -2:] = np.linspace(-0.8, 0.8, gaussians)[None, :, None]
    with h5py.File(path, "w") as file:
        file["W"] = values
        file["labels"] = np.array([1, 2, 3], np.uint8)
        file["psnr"] = np.array([40, 41, np.inf], np.float32)
        file["done"] = np.array([True, False, True])
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize("columns", [6, 7])
def test_columnar_files_of_others(read_rows, tmp_path, columns):
    summary = convert(columnar(tmp_path / "c.h5", columns, kernel_size=11), tmp_path / "s.zarr")
    header, rows = read_rows(tmp_path / "s.zarr")
    assert (header.height, header.width, header.channels) == (28, 28, 1)
    assert summary.failed == [("image_1", "the file marks it as not encoded")]
    assert rows["label"].tolist() == [1, 2, 3]
    np.testing.assert_array_equal(rows["psnr"], np.array([40, np.nan, np.inf], np.float32))


@pytest.mark.slow
def test_columnar_stamps_say_their_size(read_rows, tmp_path):
    for name, size in (("a", 11), ("b", 21)):
        convert(columnar(tmp_path / f"{name}.h5", 7, kernel_size=size), tmp_path / f"{name}.zarr",
                options=ConversionOptions(stamp="centres"))  # fmt: skip
    small, large = (read_rows(tmp_path / f"{name}.zarr")[1]["splats"][0, 0, 0] for name in "ab")
    assert large == pytest.approx(2 * small)


def test_columnar_rgb_is_refused_unless_its_sums_are_clamped(read_rows, tmp_path):
    source = columnar(tmp_path / "c.h5", 9, gaussians=50)
    with pytest.raises(StoreError, match="--saturation clamp"):
        convert(source, tmp_path / "s.zarr")
    options = ConversionOptions(saturation="clamp", image_size=(32, 32))
    convert(source, tmp_path / "s.zarr", options=options)
    header, rows = read_rows(tmp_path / "s.zarr")
    assert header.layout == "rgb"
    # One unit of deviation is (32 - 1) / 10 pixels.
    np.testing.assert_allclose(rows["splats"][0, :, 0], 0.4 * 3.1 * 2 / 32, rtol=1e-6)
