import json
import os
import pickle
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from data_schemas.errors import JobError, SplatSpaceError, StoreError
from data_schemas.published_layouts import ConversionOptions
from pipeline.cli import app
from pipeline.convert.convert import convert


def save(folder, index, content):
    folder.mkdir(exist_ok=True)
    path = folder / f"gaussian_representation_{index}.pt"
    torch.save(content, path)
    return path


def good(gaussians=70):
    return {"W": torch.zeros(gaussians, 7), "label": 3, "loss_history": []}


@pytest.fixture
def folder(tmp_path):
    for index in range(4):
        save(tmp_path / "mnist", index, good())
    return tmp_path / "mnist"


class Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def failure_of(folder, tmp_path, options=None):
    summary = convert(folder, tmp_path / "s.zarr", options=options)
    assert summary.rows == summary.done + len(summary.failed)
    return dict(summary.failed)


def test_a_truncated_file_is_named(folder, tmp_path):
    path = folder / "gaussian_representation_2.pt"
    path.write_bytes(path.read_bytes()[:-200])
    assert failure_of(folder, tmp_path).keys() == {"gaussian_representation_2"}


def test_an_empty_file_is_named(folder, tmp_path):
    (folder / "gaussian_representation_9.pt").write_bytes(b"")
    assert failure_of(folder, tmp_path).keys() == {"gaussian_representation_9"}


@pytest.mark.slow
@pytest.mark.parametrize("plain", [True, False])
def test_a_file_that_would_run_code_is_refused(folder, tmp_path, plain):
    trap = tmp_path / "trap"
    path = folder / "gaussian_representation_1.pt"
    if plain:
        path.write_bytes(pickle.dumps({"W": Payload(str(trap))}))
    else:
        torch.save({"W": torch.zeros(70, 7), "label": Payload(str(trap))}, path)
    failed = failure_of(folder, tmp_path)
    assert failed.keys() == {"gaussian_representation_1"}
    assert "refused" in failed["gaussian_representation_1"]
    assert not trap.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"V": torch.zeros(70, 7)}, "'W'"),
        ([1, 2], "'W'"),
        ({"W": [1.0]}, "'W'"),
        ({"W": torch.zeros(70, 8)}, "70, 8"),
        ({"W": torch.zeros(70, 9)}, "70 x 9"),
        ({"W": torch.zeros(7)}, r"\(7,\)"),
        ({"W": torch.zeros(70, 7, dtype=torch.int64)}, "int64"),
        ({"W": torch.full((70, 7), torch.nan)}, "not finite"),
        ({"W": torch.full((70, 7), torch.inf)}, "not finite"),
        ({"W": torch.zeros(69, 7)}, "69 x 7"),
    ],
)
def test_a_file_with_something_else_is_named_with_the_reason(folder, tmp_path, content, reason):
    save(folder, 7, content)
    failed = failure_of(folder, tmp_path)
    assert failed.keys() == {"gaussian_representation_7"}
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(failed["gaussian_representation_7"])


def test_an_enormous_file_is_not_opened(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.convert.torch_folder.MAX_FILE_BYTES", 4000)
    save(folder, 5, {**good(), "loss_history": [0.5] * 5000})
    assert "more than 4000" in failure_of(folder, tmp_path)["gaussian_representation_5"]


def test_mixed_numbers_of_gaussians_are_counted_by_name(folder, read_rows, tmp_path, caplog):
    for index in (10, 11):
        save(folder, index, good(50))
    failed = failure_of(folder, tmp_path)
    assert failed.keys() == {"gaussian_representation_10", "gaussian_representation_11"}
    rows = read_rows(tmp_path / "s.zarr")[1]
    assert rows["state"].tolist() == [1, 1, 1, 1, 2, 2]
    assert "50 x 7" in rows["failure"][4]
    assert "gaussian_representation_10" in caplog.text


def test_the_number_of_gaussians_can_be_asked_for(folder, tmp_path):
    save(folder, 10, good(50))
    options = ConversionOptions(gaussians=50, image_size=(28, 28))
    assert len(failure_of(folder, tmp_path, options)) == 4


def test_a_source_of_which_nothing_is_usable_makes_no_store(tmp_path):
    save(tmp_path / "mnist", 0, {"W": torch.full((70, 7), torch.nan)})
    with pytest.raises(StoreError, match="None of the 1 images"):
        convert(tmp_path / "mnist", tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_an_unknown_size_is_asked_for(tmp_path):
    save(tmp_path / "mnist", 0, good(71))
    with pytest.raises(JobError, match="--size"):
        convert(tmp_path / "mnist", tmp_path / "s.zarr")


@pytest.mark.parametrize("kind", ["empty", "photos", "absent", "text", "hdf5"])
def test_unknown_sources_say_what_is_supported(tmp_path, kind):
    source = tmp_path / "source"
    if kind in ("empty", "photos"):
        source.mkdir()
    if kind == "photos":
        (source / "cat.png").write_bytes(b"cat")
    if kind == "text":
        source.write_text("Gaussians")
    if kind == "hdf5":
        with h5py.File(source, "w") as file:
            file["numbers"] = [1, 2]
    with pytest.raises(StoreError, match="does not exist" if kind == "absent" else "hdf5-columnar"):
        convert(source, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("source_layout", ["torch-folder", "hdf5-rotated", "hdf5-stamp", "hdf5-columnar", "zarr"])
def test_a_source_of_another_layout_than_said(folder, tmp_path, source_layout):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["W"] = 1.0
    (tmp_path / "empty").mkdir()
    source = tmp_path / ("empty" if source_layout == "torch-folder" else "x.h5")
    with pytest.raises(SplatSpaceError):
        convert(source, tmp_path / "s.zarr", source_layout=source_layout)
    assert not (tmp_path / "s.zarr").exists()


def rotated(path, images=3, gaussians=150):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for index in range(images):
            group = file.create_group(f"W/img_{index}")
            for name, width in {"scaling": 2, "rotation": 1, "opacity": 1, "features": 3, "xyz": 2}.items():
                group[name] = rng.uniform(0.1, 0.9, (gaussians, width)).astype(np.float32)
    return path


def test_a_truncated_hdf5_file(tmp_path):
    path = rotated(tmp_path / "r.h5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(StoreError, match="HDF5"):
        convert(path, tmp_path / "s.zarr")


@pytest.mark.slow
def test_broken_groups_are_named(read_rows, tmp_path):
    path = rotated(tmp_path / "r.h5", images=8)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["scaling"] = np.ones((150, 2))
    with h5py.File(path, "a") as file:
        del file["W/img_1/xyz"]
        del file["W/img_2/scaling"]
        file["W/img_2/scaling"] = np.ones((149, 2))
        for name, value in (("W/img_3/features", np.nan), ("W/img_4/scaling", -1)):
            table = file[name]
            assert isinstance(table, h5py.Dataset)
            table[0, 0] = value
        del file["W/img_5/scaling"]
        file["W/img_5/scaling"] = h5py.ExternalLink(str(secret), "scaling")
        del file["W/img_6/scaling"]
        file["W/img_6/scaling"] = np.array([[b"x", b"y"]] * 150)
        file["W/notes"] = "a data set among the groups"
    failed = dict(convert(path, tmp_path / "s.zarr").failed)
    assert failed.keys() == {f"img_{index}" for index in range(1, 7)} | {"notes"}
    assert "elsewhere" in failed["img_5"]
    assert "149" in failed["img_2"]
    assert read_rows(tmp_path / "s.zarr")[1]["state"].tolist() == [1, 2, 2, 2, 2, 2, 2, 1, 2]


def test_data_kept_in_another_file_is_not_read(tmp_path):
    path = rotated(tmp_path / "r.h5")
    (tmp_path / "secret").write_bytes(np.ones((150, 2), np.float64).tobytes())
    with h5py.File(path, "a") as file:
        del file["W/img_0/scaling"]
        file.create_dataset("W/img_0/scaling", (150, 2), "f8", external=[(str(tmp_path / "secret"), 0, 2400)])
    assert "another file" in dict(convert(path, tmp_path / "s.zarr").failed)["img_0"]


def test_a_table_that_claims_to_be_enormous_is_not_read(tmp_path):
    path = rotated(tmp_path / "r.h5")
    with h5py.File(path, "a") as file:
        del file["W/img_0/scaling"]
        file.create_dataset("W/img_0/scaling", (10**12, 2), "f4", chunks=(1024, 2))
    assert "shape" in dict(convert(path, tmp_path / "s.zarr").failed)["img_0"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("W", np.zeros((3, 70, 5), np.float32)),
        ("W", np.zeros((0, 70, 7), np.float32)),
        ("labels", np.zeros(4, np.uint8)),
        ("psnr", np.array([b"a", b"b", b"c"])),
    ],
)
def test_columnar_files_that_do_not_fit(tmp_path, name, value):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["W"] = np.full((3, 70, 7), 0.5, np.float32)
        if name in file:
            del file[name]
        file[name] = value
    with pytest.raises(StoreError, match=name):
        convert(tmp_path / "c.h5", tmp_path / "s.zarr")


def test_columnar_nan_rows_are_named(tmp_path):
    values = np.full((3, 70, 7), 0.5, np.float32)
    values[1, 5, 5] = np.nan
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["W"] = values
    assert convert(tmp_path / "c.h5", tmp_path / "s.zarr").failed == [("image_1", "values that are not finite")]


@pytest.fixture
def written_folder(make_store, tmp_path):
    convert(make_store(), tmp_path / "folder")
    return tmp_path / "folder"


@pytest.mark.slow
def test_an_entry_that_was_lost_after_writing_is_named(written_folder, tmp_path):
    (written_folder / "gaussian_representation_3.pt").unlink()
    summary = convert(written_folder, tmp_path / "s.zarr")
    assert (summary.rows, summary.done) == (10, 7)
    assert ("row 3", "its entry is missing from the source") in summary.failed


def changed_record(folder, change):
    path = folder / "splatspace.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("header"),
        lambda record: record.update(record_version=99),
        lambda record: record.update(rows=10**15),
        lambda record: record.update(rows=4),
        lambda record: record["header"].update(gaussians=10**9, anchors=None),
        lambda record: record["header"].update(block_rows=10**9),
        lambda record: record["header"].update(channels=3),
        lambda record: record["absent"].append(record["absent"][0]),
    ],
)
def test_a_damaged_record_is_an_error(written_folder, tmp_path, change):
    changed_record(written_folder, change)
    with pytest.raises(StoreError, match=r"record of conventions|channels"):
        convert(written_folder, tmp_path / "s.zarr")


def test_an_unknown_entry_beside_a_record_is_an_error(written_folder, tmp_path):
    save(written_folder, 10, good())
    with pytest.raises(StoreError, match="does not know"):
        convert(written_folder, tmp_path / "s.zarr")


SMALL_DISK = """
import resource, sys
from data_schemas.errors import StoreError
from pipeline.convert.convert import convert

source, target, layout, size = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), resource.RLIM_INFINITY))
try:
    convert(source, target, target_layout=layout)
except StoreError as error:
    sys.exit(f"refused: {error}")
"""
"""No file may grow beyond so many bytes: the system then fails writes as on a full disk.

In a process of its own: HDF5 keeps what it could not write, and tries again whenever it closes something.
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "size"),
    [
        ("torch-folder", 1500),
        pytest.param("hdf5-rotated", 1500, marks=pytest.mark.soak),
        ("hdf5-rotated", 12000),
        ("hdf5-stamp", 5000),
        ("hdf5-columnar", 1500),
        pytest.param("hdf5-columnar", 6000, marks=pytest.mark.soak),
    ],
)
def test_a_full_disk_leaves_nothing(make_store, tmp_path, target, size):
    source = make_store()
    before = {path.name for path in tmp_path.iterdir()}
    name = tmp_path / ("p" if target == "torch-folder" else "p.h5")
    run = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, source, name, target, str(size)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1, run.stderr
    assert re.search(r"refused: .*too large.*free", run.stderr, re.DOTALL), run.stderr
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_one_torch_file_of_any_name_is_one_image(read_rows, tmp_path):
    content = good()
    content["W"][:, 4] = 0.5
    torch.save(content, tmp_path / "single.pt")
    summary = convert(tmp_path / "single.pt", tmp_path / "s.zarr")
    assert (summary.source_layout, summary.done, summary.failed) == ("torch-folder", 1, [])
    header, rows = read_rows(tmp_path / "s.zarr")
    assert (header.gaussians, header.height, rows["label"].tolist()) == (70, 28, [3])
    assert rows["source_id"].tolist() == ["single"]
    save(tmp_path / "mnist", 0, content)
    convert(tmp_path / "mnist", tmp_path / "folder.zarr")
    np.testing.assert_array_equal(read_rows(tmp_path / "folder.zarr")[1]["splats"], rows["splats"])


def test_a_torch_file_of_something_else_says_what_it_is(tmp_path):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "network.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK")
    for name, reason in (("network", "no dictionary with a tensor 'W'"), ("cut", "cut.pt: ")):
        with pytest.raises(StoreError, match=reason):
            convert(tmp_path / f"{name}.pt", tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_one_file_of_a_folder_with_a_record_is_not_taken_alone(written_folder, tmp_path):
    one = next(written_folder.glob("*.pt"))
    with pytest.raises(StoreError, match=f"Next: convert {re.escape(str(written_folder))}"):
        convert(one, tmp_path / "s.zarr")


LABELS = {
    "cat": "'cat'", "3": 3, 2.0: 2, 2.5: "2.5", -1: -1, -2: "-2", 2**31: "2147483648", None: -1, float("nan"): "nan",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["torch-folder", "hdf5-stamp"])
def test_labels_that_are_no_class_numbers_are_named(layout, read_rows, tmp_path):
    source = tmp_path / ("source" if layout == "torch-folder" else "source.h5")
    for index, label in enumerate(LABELS):
        if layout == "torch-folder":
            save(source, index, {**good(), "label": label})
        else:
            with h5py.File(source, "a") as file:
                file[f"{index}/W"] = np.zeros((70, 7), np.float32)
                if label is not None:
                    file[str(index)].attrs["label"] = label
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["convert", str(source), str(tmp_path / "s.zarr"), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    told = {name.rpartition("_")[2]: label for name, label in summary["unread_labels"]}
    assert told == {str(i): label for i, label in enumerate(LABELS.values()) if isinstance(label, str)}
    assert "5 labels are no class numbers" in result.stderr
    assert "'cat'" in result.stderr
    wanted = [label if isinstance(label, int) else -1 for label in LABELS.values()]
    assert read_rows(tmp_path / "s.zarr")[1]["label"].tolist() == wanted


def test_links_to_themselves_are_errors_with_words(folder, tmp_path):
    (tmp_path / "loop.zarr").symlink_to("loop.zarr")
    for source, target in ((folder, tmp_path / "loop.zarr"), (tmp_path / "loop.zarr", tmp_path / "new.zarr")):
        with pytest.raises(StoreError, match="leads back to itself"):
            convert(source, target)
    assert not (tmp_path / "new.zarr").exists()
