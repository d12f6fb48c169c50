"""Stores on a stand-in for the hub: pushed in one commit, refused where they must be, and read again."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from data_schemas.errors import CheckpointError, HubError, JobError, StoreCorruptError, StoreError, StoreLockedError
from data_schemas.records import RowState, SourceRecord
from data_schemas.stores.open import create_store, open_store
from pipeline.hub.push import PushSummary, push
from pipeline.info import store_info
from pipeline.report.build import assemble
from pipeline.report.predictability import PredictabilityResult
from pipeline.report.statistics import read_rows
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows
from tests.hub_stand_in import HubStandIn
from tests.pipeline.hub.cards_read import fields_of, splatspace

DATA = "hf://datasets/user/arrays"
WHO = SourceRecord(name="arrays", split="test", licence="CC-BY-4.0", attribution="Somebody, 2020")


def fill(path: Path, *, images: int = 40, source: SourceRecord = WHO) -> Path:
    """A store of finished, failed and unfinished rows."""
    header = example_header(source=source)
    with create_store(path, header) as store:
        rows = example_rows(header, images, 0)
        store.append([*rows.source_id, "not yet"])
        for block in range(images // 16):
            part = example_rows(header, 16, block, list(rows.source_id[block * 16 : block * 16 + 16]))
            store.write_block(block, part)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("made") / "arrays.zarr")


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(made, tmp_path / "arrays.zarr")


def test_a_store_is_pushed_in_one_commit_and_read_again(hub: HubStandIn, store: Path) -> None:
    (store.parent / "arrays.attribution.txt").write_text("by somebody")
    (store / ".DS_Store").touch()
    found = push(store, DATA)
    sent = hub.files("user/arrays", "dataset")
    own = {f"arrays.zarr/{file.relative_to(store).as_posix()}": file.read_bytes()
           for file in store.rglob("*") if file.is_file() and file.name != ".DS_Store"}  # fmt: skip
    assert sent == {**own, "README.md": found.card.encode(), "arrays.attribution.txt": b"by somebody"}
    assert found.files == {name: len(data) for name, data in sent.items()}
    assert [len(messages) for messages in hub.commits.values()] == [2]
    assert found.commit == "https://hub.example/user/arrays/commit/2"
    assert any(".DS_Store" in note for note in found.notes)
    with open_store(DATA) as remote, open_store(store) as local:
        assert_same(content_of(remote), content_of(local))
    assert str(store_info(DATA).path) == f"{DATA}/arrays.zarr"
    with open_store(store, "a"):
        pass  # its lock is free again


def test_the_card_says_what_the_store_is(hub: HubStandIn, store: Path) -> None:
    card = push(store, DATA).card
    fields = fields_of(card)
    assert fields["license"] == "cc-by-4.0"
    assert fields["pretty_name"] == "arrays as 2D Gaussians"
    assert fields["size_categories"] == ["n<1K"]
    assert {"splatspace", "zarr"} <= set(fields["tags"])
    with open_store(store) as opened:
        counts = opened.count_rows()
        assert f"41: {counts[RowState.DONE]} done, {counts[RowState.FAILED]} failed, 9 not encoded" in card
    for said in (
        "| Gaussians an image (K) | 3 |", "additive/1", "Somebody, 2020", "Licence of the source: CC-BY-4.0",
        f'open_store("{DATA}/arrays.zarr")', f'open_zarr("{DATA}/arrays.zarr", consolidated=False)',
        f"PSNR of the mean error | {store_info(store).psnr:.2f} dB",
    ):  # fmt: skip
        assert said in card
    assert hub.commits


def test_figures_are_those_of_a_report_of_this_state_only(hub: HubStandIn, store: Path) -> None:
    folder = store.with_name("arrays-report")
    with open_store(store) as opened:
        report = assemble(opened, read_rows(opened), PredictabilityResult(None, "not asked for"), [], "")
    folder.mkdir()
    for name, text in (("report.json", report.model_dump_json()), ("report.html", "<p>"), ("panel.png", "pixels")):
        (folder / name).write_text(text)
    found = push(store, DATA)
    assert f"| PSNR, 1st percentile | {report.quality.p1:.2f} dB |" in found.card
    assert {"arrays-report/report.html", "arrays-report/report.json", "arrays-report/panel.png"} <= set(found.files)
    assert "![Images and their splats](arrays-report/panel.png)" in found.card
    with open_store(store, "a") as opened:
        opened.append(["one more"])
    later = push(store, DATA, overwrite=True)
    assert "percentile" not in later.card
    assert any("No report of this state" in note for note in later.notes)
    # What belongs to the state before goes with the same commit.
    assert {"arrays-report/panel.png", "arrays-report/report.html"} <= set(later.removed)
    assert not [name for name in hub.files("user/arrays", "dataset") if "report" in name]


def test_names_and_licences_end_neither_the_yaml_nor_the_text(hub: HubStandIn, tmp_path: Path) -> None:
    evil = "x\n---\nlicense: mit\n# <script>alert(1)</script> [a](b) | `c` \x1b[2J \u202e"
    path = fill(
        tmp_path / "arrays.zarr", images=16, source=SourceRecord(name=evil, licence=evil, attribution=evil, digest=evil)
    )
    card = push(path, DATA).card
    fields = fields_of(card)
    assert fields["license"] == "other"
    assert fields["pretty_name"].startswith("x")
    assert set(fields) == {"license", "license_name", "pretty_name", "tags", "size_categories", "viewer"}
    body = card.split("---\n", 2)[2]
    assert "<script>" not in body
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert [line for line in body.splitlines() if line.startswith("#")][1:] == [
        "## Where the images come from",
        "## Use",
    ]
    assert hub.commits


@pytest.mark.parametrize("licence", ["", "none stated by the authors (CC BY-SA 3.0 according to others)"])
def test_a_source_without_a_licence_needs_a_word_of_the_user(hub: HubStandIn, tmp_path: Path, licence: str) -> None:
    path = fill(tmp_path / "arrays.zarr", images=16, source=SourceRecord(name="arrays", licence=licence))
    with pytest.raises(JobError, match=r"arrays states no licence.*Next: .*--licence-ok"):
        push(path, DATA)
    assert hub.commits == {}
    found = push(path, DATA, licence_ok=True)
    assert fields_of(found.card)["license"] == "unknown"
    assert "No licence is stated for the source images" in found.card
    assert "you answer for it" in found.notes[0]


def test_a_dry_run_sends_nothing_and_needs_no_library(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    found = push(store, DATA, dry_run=True)
    assert found.commit is None
    assert found.files["arrays.zarr/zarr.json"] == (store / "zarr.json").stat().st_size
    with pytest.raises(JobError, match=r"huggingface_hub.*splatspace\[hub\]"):
        push(store, DATA)


def test_a_store_that_is_written_is_not_pushed(hub: HubStandIn, store: Path) -> None:
    with open_store(store, "a"), pytest.raises(StoreLockedError, match="being written"):
        push(store, DATA)
    assert hub.commits == {}


def test_a_damaged_store_is_not_pushed(hub: HubStandIn, store: Path) -> None:
    shard = store / "splats" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreCorruptError, match="16 rows are damaged, row 16"):
        push(store, DATA)
    assert hub.commits == {}


def test_a_store_without_finished_images_is_not_pushed(hub: HubStandIn, tmp_path: Path) -> None:
    with create_store(tmp_path / "new.zarr", example_header(source=WHO)) as new:
        pass
    with pytest.raises(StoreError, match="holds no images"):
        push(tmp_path / "new.zarr", DATA)
    with open_store(tmp_path / "new.zarr", "a") as new:
        new.append(["a"])
    with pytest.raises(StoreError, match="holds no finished image"):
        push(tmp_path / "new.zarr", DATA)
    with pytest.raises(StoreError, match="does not exist"):
        push(tmp_path / "absent.zarr", DATA)
    assert hub.commits == {}


@pytest.mark.parametrize(
    ("what", "url", "message"),
    [
        ("arrays.zarr", "hf://user/arrays", r"is a store, .*Next: push to hf://datasets/user/arrays"),
        ("run", "hf://datasets/user/arrays", r"is a run, .*Next: push to hf://user/arrays"),
        ("arrays.zarr", f"{DATA}@v1", "names a revision"),
        ("arrays.zarr", f"{DATA}/arrays.zarr", "names a place in"),
        ("arrays.zarr", "s3://bucket/arrays", "names no repository"),
        ("memory://arrays.zarr", DATA, "is not on this machine"),
        (DATA, DATA, "is not on this machine"),
        ("run", "hf://user/arrays", "is no store and no run"),
    ],
)
def test_what_goes_nowhere_is_refused(
    hub: HubStandIn, store: Path, monkeypatch: pytest.MonkeyPatch, what: str, url: str, message: str
) -> None:
    monkeypatch.chdir(store.parent)
    with pytest.raises((HubError, JobError, CheckpointError), match=message):
        push(what, url)
    assert hub.commits == {}


@pytest.mark.slow
def test_what_is_there_is_replaced_only_where_asked_for(hub: HubStandIn, store: Path, tmp_path: Path) -> None:
    push(store, DATA)
    folder = hub.folder("user/arrays", "dataset")
    (folder / "notes.txt").write_text("by hand")
    smaller = fill(tmp_path / "other" / "arrays.zarr", images=16)
    with pytest.raises(HubError, match=r"holds something already.*--overwrite"):
        push(smaller, DATA)
    found = push(smaller, DATA, overwrite=True)
    assert "arrays.zarr/splats/c/1/0/0" in found.removed
    with open_store(DATA) as remote, open_store(smaller) as local:
        assert_same(content_of(remote), content_of(local))
    sent = hub.files("user/arrays", "dataset")
    assert sent.pop("notes.txt") == b"by hand"
    assert set(sent) == set(found.files)
    assert len(hub.commits[folder]) == 3


def test_a_public_repository_does_not_become_private(hub: HubStandIn, store: Path) -> None:
    hub.create_repo("user/arrays", repo_type="dataset", private=None, exist_ok=True)
    with pytest.raises(HubError, match="exists and is public"):
        push(store, DATA, private=True)
    push(store, DATA)
    push(store, "hf://datasets/user/mine", private=True)
    assert hub.private == {hub.folder("user/mine", "dataset")}


def test_a_commit_that_fails_leaves_nothing_and_can_be_made_again(hub: HubStandIn, store: Path) -> None:
    hub.failing = ConnectionError("cut\nhalfway")
    with pytest.raises(HubError, match=r"Could not push to .*: ConnectionError: cut.*run the same command again"):
        push(store, DATA)
    assert hub.files("user/arrays", "dataset") == {}
    hub.failing = None
    push(store, DATA)
    assert "README.md" in hub.files("user/arrays", "dataset")


@pytest.mark.slow
def test_faults_of_the_hub_say_what_to_do(hub: HubStandIn, store: Path) -> None:
    hub.token = None
    with pytest.raises(HubError, match=r"No token.*hf auth login"):
        push(store, DATA)
    assert hub.commits == {}
    hub.token = "hf_token"
    for fault, message in (
        (hub.errors.HfHubHTTPError("403 Forbidden", 403), r"token that may write to user/arrays"),
        (hub.errors.HfHubHTTPError("412 the branch has moved", 412), "one who changes a repository at a time"),
        (hub.errors.OfflineModeIsEnabled("offline mode is enabled"), "HF_HUB_OFFLINE"),
        (hub.errors.GatedRepoError("403 gated", 403), "ask for access"),
        (hub.errors.RepositoryNotFoundError("401 not found", 401), "check the names in the URL"),
    ):
        hub.failing = fault
        with pytest.raises(HubError, match=message):
            push(store, DATA)


def test_an_hdf5_store_is_pushed_as_its_file(hub: HubStandIn, tmp_path: Path) -> None:
    path = fill(tmp_path / "arrays.h5", images=16)
    card = push(path, DATA).card
    assert hub.files("user/arrays", "dataset")["arrays.h5"] == path.read_bytes()
    assert 'hf download user/arrays "arrays.h5" --repo-type dataset' in card
    assert "hdf5" in fields_of(card)["tags"]


@pytest.mark.slow
def test_the_command(hub: HubStandIn, store: Path) -> None:
    dry = splatspace("push", store, DATA, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert re.search(r"bytes  arrays\.zarr/ \(\d+ files\)\n", dry.stdout)
    assert "# arrays as 2D Gaussians" in dry.stdout
    assert "would push" in dry.stdout
    assert hub.commits == {}
    sent = splatspace("push", store, DATA, "--json")
    content = json.loads(sent.stdout)
    assert content["commit"] == "https://hub.example/user/arrays/commit/2"
    assert content["files"] == {name: len(data) for name, data in hub.files("user/arrays", "dataset").items()}
    assert "No report of this state" in sent.stderr
    again = splatspace("push", store, DATA, "--json")
    assert again.exit_code == 1
    assert "holds something already" in json.loads(again.stdout)["error"]
    assert splatspace("info", DATA).exit_code == 0


def test_a_summary_counts_bytes() -> None:
    assert PushSummary(DATA, "dataset", {"a": 2, "b": 3}, (), "", ()).bytes == 5
