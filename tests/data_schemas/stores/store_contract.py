"""What every store must do; each backend inherits these tests and says how to damage its own files."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_schemas import files as durable_files
from data_schemas.errors import StoreCorruptError, StoreError, StoreLockedError, StoreMismatchError
from data_schemas.records import RowBlock, RowState, SourceRecord
from data_schemas.stores.open import create_store, open_store, require_identity, verify_checksums
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows, joined

NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=60)
# The tests are inherited, so several classes run them; without a database no example of one reaches the other.
QUIET = settings(max_examples=15, deadline=None, database=None, suppress_health_check=[HealthCheck.differing_executors])


@contextmanager
def full_disk(limit: int = 64) -> Iterator[None]:
    """No file may grow beyond ``limit`` bytes: the kernel refuses the write itself, in Python and in HDF5 alike."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class StoreContract:
    """Inherit, set ``suffix``, and write ``tamper`` and ``remove_array``."""

    suffix: ClassVar[str]

    def tamper(self, path: Path, change: dict[str, Any]) -> None:
        """Changes fields of the stored header, with right checksums."""
        raise AssertionError("a backend supplies this")

    def remove_array(self, path: Path, name: str) -> None:
        """Takes one array out of a store."""
        raise AssertionError("a backend supplies this")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / f"store{self.suffix}"

    @pytest.fixture
    def filled(self, path: Path) -> tuple[Path, dict[str, np.ndarray]]:
        """A closed store of 40 rows (blocks of 16, 16 and 8) and what is in it."""
        header = example_header()
        blocks = [example_rows(header, count, seed) for seed, count in enumerate((16, 16, 8))]
        with create_store(path, header) as store:
            store.append([name for block in blocks for name in block.source_id])
            for number, block in enumerate(blocks):
                store.write_block(number, block)
        return path, joined(blocks)

    # Round trips -------------------------------------------------------------------------------------------------

    @pytest.mark.slow
    def test_every_array_round_trips(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        with open_store(path) as store:
            assert len(store) == 40
            assert_same(content_of(store), wanted)
            assert verify_checksums(store) == []
            assert store.header.anchors == example_header().anchors
            assert store.header.source.name == "Bäume 🌳"
            assert all(size > 0 for size in store.nbytes_stored.values())
            assert set(store.nbytes_stored) == set(store.arrays)

    def test_written_rows_are_readable_at_once_by_writer_and_reader(self, path: Path) -> None:
        header = example_header()
        rows = example_rows(header, 16, 1)
        with create_store(path, header) as writer:
            assert writer.append(list(rows.source_id)) == range(16)
            writer.write_block(0, rows)
            assert_same(content_of(writer), joined([rows]))
            with open_store(path) as reader:
                assert_same(content_of(reader), joined([rows]))
                writer.commit()
                assert_same(content_of(reader), joined([rows]))

    @pytest.mark.slow
    def test_reader_opened_before_more_rows_keeps_working(self, path: Path) -> None:
        header = example_header()
        rows = [example_rows(header, 16, seed) for seed in range(2)]
        with create_store(path, header) as writer:
            writer.append(list(rows[0].source_id))
            writer.write_block(0, rows[0])
            with open_store(path) as reader:
                writer.append(list(rows[1].source_id))
                writer.write_block(1, rows[1])
                writer.commit()
                assert reader.read(["label"], slice(0, 16))["label"].tolist() == rows[0].label.tolist()
            with open_store(path) as reader:
                assert_same(content_of(reader), joined(rows))

    def test_store_without_rows(self, path: Path) -> None:
        create_store(path, example_header()).close()
        with open_store(path, "a") as store:
            assert len(store) == 0
            assert store.append([]) == range(0)
            assert store.read(["splats", "source_id"])["splats"].shape == (0, 3, 8)
            assert verify_checksums(store) == []

    def test_appended_rows_are_empty(self, path: Path) -> None:
        header = example_header()
        with create_store(path, header) as store:
            store.append(["a", "b"])
            store.append(["c"])
        with open_store(path) as store:
            wanted = RowBlock.empty(3, header)
            wanted.source_id[:] = ["a", "b", "c"]
            assert_same(content_of(store), joined([wanted]))

    @pytest.mark.slow
    @pytest.mark.parametrize("first", [5, 16, 20])
    @pytest.mark.parametrize("commit", [False, True])
    def test_growth_keeps_what_was_written(self, path: Path, first: int, commit: bool) -> None:
        header = example_header()
        with create_store(path, header) as store:
            store.append([f"old {i}" for i in range(first)])
            blocks = [example_rows(header, min(16, first - at), at) for at in range(0, first, 16)]
            for number, block in enumerate(blocks):
                store.write_block(number, block)
            if commit:
                store.commit()
            assert store.append([f"new {i}" for i in range(30)]) == range(first, first + 30)
        added = RowBlock.empty(30, header)
        added.source_id[:] = [f"new {i}" for i in range(30)]
        with open_store(path) as store:
            assert_same(content_of(store), joined([*blocks, added]))

    def test_without_images(self, path: Path) -> None:
        header = example_header(images=False, layout="grey_alpha", channels=1, dtype="float32")
        rows = example_rows(header, 4, 3)
        with create_store(path, header) as store:
            assert "image" not in store.arrays
            store.append(list(rows.source_id))
            store.write_block(0, rows)
            assert store.read_block(0).image is None
        with open_store(path) as store:
            assert_same(content_of(store), joined([rows]))

    @pytest.mark.slow
    @QUIET
    @given(names=st.lists(NAMES, min_size=1, max_size=20), reasons=st.lists(NAMES, min_size=1, max_size=20))
    def test_any_unicode_name_round_trips(self, tmp_path_factory: Any, names: list[str], reasons: list[str]) -> None:
        path = tmp_path_factory.mktemp("names") / f"s{self.suffix}"
        header = example_header(block_rows=8)
        with create_store(path, header) as store:
            store.append(names)
            rows = store.read_block(0)
            rows.failure[:] = [reasons[i % len(reasons)] for i in range(len(rows))]
            store.write_block(0, rows)
        with open_store(path) as store:
            got = store.read(["source_id", "failure"])
            assert got["source_id"].tolist() == names
            assert got["failure"].tolist()[: len(rows)] == rows.failure.tolist()

    def test_long_names(self, path: Path) -> None:
        names = ["x" * 1000, "é" * 500, "🌳" * 250, "", " tail ", "a/b\\c\n"]
        with create_store(path, example_header()) as store:
            store.append(names)
            store.commit()
            store.append(["y" * 4096])
        with open_store(path) as store:
            assert store.read(["source_id"])["source_id"].tolist() == [*names, "y" * 4096]

    @pytest.mark.slow
    @QUIET
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("append"), st.integers(0, 12)),
                st.tuples(st.just("write"), st.integers(0, 9)),
                st.tuples(st.just("commit"), st.just(0)),
                st.tuples(st.just("reopen"), st.just(0)),
            ),
            max_size=10,
        )
    )
    def test_any_sequence_of_changes_equals_plain_arrays(self, tmp_path_factory: Any, steps: list[Any]) -> None:
        path = tmp_path_factory.mktemp("steps") / f"s{self.suffix}"
        header = example_header(block_rows=8, gaussians=2, anchors=None, height=2, width=2)
        wanted = joined([RowBlock.empty(0, header)])
        store = create_store(path, header)
        try:
            for seed, (action, number) in enumerate(steps):
                total = len(wanted["state"])
                if action == "append":
                    added = RowBlock.empty(number, header)
                    added.source_id[:] = [f"{seed} {i}" for i in range(number)]
                    store.append(list(added.source_id))
                    wanted = {name: np.concatenate([wanted[name], joined([added])[name]]) for name in wanted}
                elif action == "write" and total:
                    block = number % -(-total // 8)
                    count = min(8, total - block * 8)
                    rows = example_rows(header, count, seed)
                    store.write_block(block, rows)
                    for name in wanted:
                        wanted[name][block * 8 : block * 8 + count] = getattr(rows, name)
                elif action == "commit":
                    store.commit()
                elif action == "reopen":
                    store.close()
                    store = open_store(path, "a")
                assert_same(content_of(store), wanted)
        finally:
            store.close()
        with open_store(path) as store:
            assert_same(content_of(store), wanted)
            assert verify_checksums(store) == []

    # Reading -----------------------------------------------------------------------------------------------------

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "rows",
        [slice(None), slice(3, 20), slice(30, 5), slice(None, None, 7), slice(None, None, -1), [0], [39, 0, 17, 17],
         [-1, -40], [], np.array([5, 4], dtype=np.uint8), range(10, 14)],
    )  # fmt: skip
    def test_rows_in_any_order(self, filled: tuple[Path, dict[str, np.ndarray]], rows: Any) -> None:
        path, wanted = filled
        chosen = rows if isinstance(rows, slice) else np.asarray(rows, dtype=int)
        with open_store(path) as store:
            got = store.read(["splats", "source_id", "psnr"], rows)
        assert_same(got, {name: wanted[name][chosen] for name in got})

    @pytest.mark.slow
    @pytest.mark.parametrize("rows", [[40], [-41], [0.5], [[1]], [True]])
    def test_rows_that_are_not_there(self, filled: tuple[Path, Any], rows: Any) -> None:
        with open_store(filled[0]) as store, pytest.raises(StoreError, match=r"Row"):
            store.read(["psnr"], rows)

    @pytest.mark.slow
    def test_array_that_is_not_there(self, filled: tuple[Path, Any]) -> None:
        with open_store(filled[0]) as store, pytest.raises(StoreError, match=r"no array 'colour'.*splats, image"):
            store.read(["colour"])

    def test_scattered_rows_decode_only_their_chunks(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        header = example_header(block_rows=256)
        with create_store(path, header) as store:
            store.append([str(i) for i in range(256)])
            store.write_block(0, example_rows(header, 256, 0))
        with open_store(path) as store:
            asked: list[tuple[int, int]] = []
            original = store._read_range

            def noted(name: str, start: int, stop: int) -> Any:
                asked.append((start, stop))
                return original(name, start, stop)

            monkeypatch.setattr(store, "_read_range", noted)
            store.read(["splats"], [3, 200, 201])
            assert asked == [(3, 4), (200, 202)]

    @pytest.mark.slow
    def test_closed_store(self, filled: tuple[Path, Any]) -> None:
        store = open_store(filled[0])
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.read(["psnr"])

    # Refusals ----------------------------------------------------------------------------------------------------

    @pytest.mark.slow
    def test_block_that_does_not_fit(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        header = example_header()
        good = example_rows(header, 16, 9)
        with open_store(path, "a") as store:
            with pytest.raises(StoreError, match="Block 3"):
                store.write_block(3, good)
            with pytest.raises(StoreError, match=r"'splats'.*\(8, 3, 8\)"):
                store.write_block(2, good)
            for name, value, message in [
                ("splats", good.splats.astype(np.float32), "float32.*float16"),
                ("image", None, "'image'"),
                ("label", good.label.astype(np.int64), "int64.*int32"),
                ("psnr", good.psnr.tolist(), "list"),
                ("state", np.full(16, 3, np.uint8), "state 3"),
                ("splats", np.full_like(good.splats, np.inf), "NaN or infinity"),
                ("source_id", np.full(16, 7, dtype=object), "int"),
                ("source_id", np.full(16, "a\0b", dtype=object), "U\\+0000"),
                ("source_id", np.full(16, "\udcff", dtype=object), "valid Unicode"),
                ("source_id", np.full(16, "x" * 4097, dtype=object), "4097 bytes"),
            ]:
                with pytest.raises(StoreError, match=message):
                    store.write_block(0, RowBlock(**{**vars(good), name: value}))
            assert_same(content_of(store), wanted)

    def test_failure_reasons_are_kept_whatever_they_hold(self, path: Path) -> None:
        header = example_header()
        with create_store(path, header) as store:
            store.append(["a", "b", "c"])
            rows = store.read_block(0)
            rows.state[:] = RowState.FAILED
            rows.failure[:] = ["a\0b", "name \udcff", "é" * 5000]
            store.write_block(0, rows)
        with open_store(path) as store:
            reasons = store.read(["failure"])["failure"].tolist()
        assert reasons == ["a\\x00b", "name \\udcff", "é" * 2048]

    @pytest.mark.slow
    def test_reader_cannot_write(self, filled: tuple[Path, Any]) -> None:
        with open_store(filled[0]) as store:
            for change in (
                lambda: store.append(["x"]),
                lambda: store.write_block(0, store.read_block(0)),
                lambda: store.set_header(store.header),
                store.commit,
            ):
                with pytest.raises(StoreError, match="open for reading"):
                    change()

    @pytest.mark.slow
    def test_one_writer_at_a_time(self, path: Path) -> None:
        with create_store(path, example_header()):
            with pytest.raises(StoreLockedError, match=rf"process {os.getpid()} on "):
                open_store(path, "a")
            with pytest.raises(StoreLockedError):
                create_store(path, example_header(), overwrite=True)
            code = f"from data_schemas.stores.open import open_store\nopen_store({str(path)!r}, 'a')"
            other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            assert "StoreLockedError" in other.stderr
            assert f"process {os.getpid()}" in other.stderr
            open_store(path).close()
        open_store(path, "a").close()

    @pytest.mark.slow
    def test_lock_is_let_go_when_opening_fails(self, filled: tuple[Path, Any]) -> None:
        self.tamper(filled[0], {"schema_version": 99})
        for _ in range(2):
            with pytest.raises(StoreError, match="newer"):
                open_store(filled[0], "a")

    @pytest.mark.slow
    def test_create_refuses_what_is_there(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        with pytest.raises(StoreError, match="exists already"):
            create_store(path, example_header())
        with open_store(path) as store:
            assert_same(content_of(store), wanted)
        with create_store(path, example_header(gaussians=9, anchors=None), overwrite=True) as store:
            assert len(store) == 0
        with open_store(path) as store:
            assert store.header.gaussians == 9

    def test_create_never_replaces_a_strange_file_or_folder(self, path: Path) -> None:
        strange = path if self.suffix == ".h5" else path / "notes.txt"
        strange.parent.mkdir(exist_ok=True)
        strange.write_text("keep me")
        for overwrite in (False, True):
            with pytest.raises(StoreError, match="not a SplatSpace store"):
                create_store(path, example_header(), overwrite=overwrite)
        with pytest.raises(StoreError):
            open_store(path)
        assert strange.read_text() == "keep me"

    def test_new_store_forgets_the_journal_of_a_deleted_one(self, path: Path) -> None:
        journal = path.with_name(path.name + ".journal")
        journal.mkdir()
        (journal / "block-00000000.h5").write_bytes(b"old")
        (journal / "0.ready").mkdir()
        create_store(path, example_header()).close()
        assert not journal.exists()

    def test_paths_that_cannot_be(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"suffix '.tar'.*\.zarr, \.h5"):
            create_store(tmp_path / "s.tar", example_header())
        with pytest.raises(StoreError, match=r"suffix '.tar'"):
            open_store(tmp_path / "s.tar")
        with pytest.raises(StoreError, match="does not exist"):
            open_store(tmp_path / f"absent{self.suffix}")
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="Could not create"):
            create_store(tmp_path / "file" / f"s{self.suffix}", example_header())
        with pytest.raises(StoreError, match="Mode 'w'"):
            open_store(tmp_path / f"absent{self.suffix}", cast(Any, "w"))

    def test_header_that_cannot_be_stored(self, path: Path) -> None:
        for change, message in [
            ({"settings": {"rate": float("nan")}}, "JSON"),
            ({"settings": {"rate": object()}}, "JSON"),
            ({"layout": "cmyk"}, "layout 'cmyk'"),
            ({"channels": 1}, "1 channels"),
            ({"anchors": ((0.0, 0.0),)}, "1 anchors"),
        ]:
            with pytest.raises(StoreError, match=message):
                create_store(path, example_header(**change))
        assert not path.exists()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema_version": 2}, "newer than this program.*install a newer SplatSpace"),
            ({"schema_version": "1"}, "schema_version '1'"),
            ({"codec": "wavelet/3"}, "unknown codec 'wavelet/3'.*additive/1"),
            ({"layout": "hsv"}, "layout 'hsv'.*rgb"),
            ({"gaussians": 4, "anchors": None}, "array 'splats'"),
            ({"height": 0}, "height"),
            ({"surprise": 1}, "surprise"),
        ],
    )
    def test_stores_that_cannot_be_read(self, filled: tuple[Path, Any], change: dict[str, Any], message: str) -> None:
        self.tamper(filled[0], change)
        with pytest.raises(StoreError, match=message):
            open_store(filled[0])

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["splats", "image", "source_id", "state"])
    def test_missing_array(self, filled: tuple[Path, Any], name: str) -> None:
        self.remove_array(filled[0], name)
        with pytest.raises(StoreError, match=rf"{name}.* missing"):
            open_store(filled[0])

    # Headers -----------------------------------------------------------------------------------------------------

    @pytest.mark.slow
    def test_header_is_replaced(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        changed = example_header(seed=7, source=SourceRecord(name="other", label_names=("cat", "dog") * 5000))
        with open_store(path, "a") as store:
            store.set_header(changed)
            assert store.header == changed
            with open_store(path) as reader:
                assert reader.header == changed
            with pytest.raises(StoreMismatchError, match=r"gaussians: 3 stored, 4 wanted"):
                store.set_header(example_header(gaussians=4, anchors=None))
        with open_store(path) as store:
            assert store.header == changed
            assert_same(content_of(store), wanted)

    def test_identity_names_every_difference(self) -> None:
        header = example_header()
        require_identity(header, example_header(settings={"steps": 40, "rates": (0.1, 0.2), "target_psnr": None}))
        with pytest.raises(StoreMismatchError) as caught:
            require_identity(header, example_header(seed=1, settings={"steps": 50, "rates": [0.1, 0.2]}))
        text = str(caught.value)
        for part in ("seed: 0 stored, 1 wanted", "settings.steps: 40 stored, 50 wanted", "settings.target_psnr: None"):
            assert part in text
        assert "rates" not in text

    def test_rows_are_counted_by_state(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("data_schemas.stores.contract._COUNTED_AT_ONCE", 5)
        with create_store(path, example_header()) as store:
            assert store.count_rows() == {RowState.EMPTY: 0, RowState.DONE: 0, RowState.FAILED: 0}
            assert store.finished_rows().tolist() == []
            store.append([str(number) for number in range(20)])
            store.write_block(0, example_rows(store.header, 16, 0))  # rows 3 and 10 have failed
            assert store.count_rows() == {RowState.EMPTY: 4, RowState.DONE: 14, RowState.FAILED: 2}
            assert store.finished_rows().tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]

    # Faults ------------------------------------------------------------------------------------------------------

    @pytest.mark.slow
    def test_full_disk_keeps_everything(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        rows = example_rows(example_header(), 16, 77)
        with open_store(path, "a") as store:
            with full_disk(), pytest.raises(StoreError, match=r"still there.*free some space"):
                store.write_block(0, rows)
            with full_disk(), pytest.raises(StoreError, match="free some space"):
                store.append(["new"])
            with full_disk(), pytest.raises(StoreError, match="free some space"):
                store.set_header(example_header(seed=3))
            assert_same(content_of(store), wanted)
            store.write_block(0, rows)
        with open_store(path) as store:
            assert_same({k: v[:16] for k, v in content_of(store).items()}, joined([rows]))
            assert_same({k: v[16:] for k, v in content_of(store).items()}, {k: v[16:] for k, v in wanted.items()})
        assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]

    def test_full_disk_while_creating_leaves_nothing(self, path: Path) -> None:
        with full_disk(100), pytest.raises(StoreError, match="free space"):
            create_store(path, example_header())
        assert [p.name for p in path.parent.iterdir()] == [f"{path.name}.lock"]

    @pytest.mark.slow
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_refused_system_calls(
        self, filled: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch, call: str
    ) -> None:
        path, wanted = filled
        other = {k: v.copy() for k, v in wanted.items()}
        rows = example_rows(example_header(), 16, 5)
        for name in other:
            other[name][:16] = getattr(rows, name)

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        store = open_store(path, "a")
        with monkeypatch.context() as patch:
            patch.setattr(durable_files.os, call, refuse)
            with pytest.raises(StoreError, match="No space left"):
                store.write_block(0, rows)
        got = content_of(store)
        # A refused move comes after the change is valid: then it is wholly there, else not at all.
        assert got["label"].tolist() in (wanted["label"].tolist(), other["label"].tolist())
        assert_same(got, wanted if got["label"].tolist() == wanted["label"].tolist() else other)
        store.close()
        with open_store(path) as store:
            assert_same(content_of(store), got)

    @pytest.mark.slow
    def test_read_only_place(self, filled: tuple[Path, Any], path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = sorted(p.name for p in path.parent.rglob("*"))
        with open_store(path) as store:
            content_of(store)
        assert sorted(p.name for p in path.parent.rglob("*")) == before

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr("filelock.FileLock.acquire", refuse)
        for action in (lambda: open_store(path, "a"), lambda: create_store(path.with_name("new" + self.suffix),
                                                                           example_header())):  # fmt: skip
            with pytest.raises(StoreError, match=r"read-only.*choose another path"):
                action()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_read_only_folder_for_real(self, filled: tuple[Path, Any]) -> None:
        filled[0].parent.chmod(0o500)
        try:
            with pytest.raises(StoreError, match="read-only"):
                create_store(filled[0].with_name("new" + self.suffix), example_header())
            open_store(filled[0]).close()
        finally:
            filled[0].parent.chmod(0o700)

    @pytest.mark.slow
    def test_flipped_bits_are_never_numbers(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        files = self.files_to_damage(path)
        per_file = 600 if path.is_file() else 5
        random = np.random.default_rng(0)
        caught = total = 0
        for file in files:
            data = file.read_bytes()
            for place in np.unique(random.integers(0, len(data), per_file)):
                damaged = bytearray(data)
                damaged[place] ^= 1 << int(random.integers(8))
                file.write_bytes(damaged)
                total += 1
                caught += self._is_caught(path, wanted, f"byte {place} of {file}")
            file.write_bytes(data)
        # The rest is unused space between structures and white space in JSON: harmless, and proven equal.
        assert caught > total * 0.6, (caught, total)

    @pytest.mark.slow
    def test_cut_files_are_never_numbers(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        files = self.files_to_damage(path)
        for file in files:
            data = file.read_bytes()
            for length in {0, 3, len(data) // 2, len(data) - 1}:
                file.write_bytes(data[: max(0, length)])
                assert self._is_caught(path, wanted, f"{file.name} cut to {length} bytes"), (file, length)
            file.write_bytes(data)

    @staticmethod
    def files_to_damage(path: Path) -> list[Path]:
        """The file of a store, or its metadata and the files of its first block (the others are alike)."""
        if path.is_file():
            return [path]
        return sorted(p for p in path.rglob("*") if p.is_file() and not {"1", "2"} & set(p.relative_to(path).parts))

    @staticmethod
    def _is_caught(path: Path, wanted: dict[str, np.ndarray], what: str) -> bool:
        fault: StoreError | None = None
        bad: list[int] = []
        got: dict[str, np.ndarray] = {}
        try:
            with open_store(path) as store:
                bad = verify_checksums(store)
                got = content_of(store)
        except StoreError as error:
            fault = error
        if fault is not None:
            assert getattr(fault, "rows", True), f"{what}: corrupt, but no rows are named"
            return True
        assert not bad, what
        assert_same(got, wanted)
        return False

    def test_damage_names_its_rows(self, path: Path) -> None:
        header = example_header(block_rows=256)
        rows = example_rows(header, 256, 0)
        with create_store(path, header) as store:
            store.append(list(rows.source_id))
            store.write_block(0, rows)
        self.damage_splats_chunk(path, 2)
        with open_store(path) as store:
            assert verify_checksums(store) == list(range(128, 192))
            with pytest.raises(StoreCorruptError, match=r"'splats' has bad bytes in rows 128-191") as caught:
                store.read(["splats"], [5, 130])
            assert set(caught.value.rows) == set(range(128, 192))
            got = store.read(["splats"], [0, 127, 192])["splats"]
            assert got.tobytes() == rows.splats[[0, 127, 192]].tobytes()
            assert store.read(["psnr"])["psnr"].tobytes() == rows.psnr.tobytes()

    def damage_splats_chunk(self, path: Path, chunk: int) -> None:
        """Flips a bit in the compressed bytes of one chunk of block 0."""
        raise AssertionError("a backend supplies this")

    # Kills -------------------------------------------------------------------------------------------------------

    @pytest.mark.slow
    @pytest.mark.parametrize("kills", [5, pytest.param(10, marks=pytest.mark.soak)])
    def test_kill_at_any_instant(self, tmp_path: Path, kills: int) -> None:
        """Runs a writer many times, killed by SIGKILL at chosen system calls and at random moments."""
        script = Path(__file__).with_name("killed_writer.py")
        root = Path(__file__).resolve().parents[3]
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path), self.suffix, str(kills)],
            capture_output=True, text=True, check=False, cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        result = json.loads(done.stdout)
        assert result["killed_at_call"] >= kills
        assert result["killed_at_random"] >= kills
        assert result["faults"] == []
