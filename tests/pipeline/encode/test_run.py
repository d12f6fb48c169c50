"""What a run does with new, done, changed, removed, repeated and broken images."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_schemas.errors import SourceError, StoppedError, StoreMismatchError
from data_schemas.records import RowState, content_hash
from data_schemas.stores.contract import ARRAYS
from data_schemas.stores.open import open_store
from encoders.decode import decode, to_uint8
from encoders.quality import psnr, ssim
from pipeline.encode.plan import survey
from pipeline.encode.records import EncodeProgress
from pipeline.encode.run import encode
from tests.pipeline.encode.fakes import GAUSSIANS, ArrayImages, SamplingEncoder, job_for, pictures, run


@pytest.fixture(params=["zarr", "h5"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"store.{request.param}"


def rows_of(path: Path) -> dict[str, NDArray[Any]]:
    with open_store(path) as store:
        return store.read([name for name in ARRAYS if name in store.arrays])


def assert_same_rows(first: Path, second: Path) -> None:
    left, right = rows_of(first), rows_of(second)
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name, strict=True)


@pytest.mark.slow
def test_every_image_gets_k_gaussians_and_its_record(out: Path) -> None:
    images = pictures(10)
    summary = run(out, ArrayImages(images))
    assert (summary.fitted, summary.kept, summary.failed, summary.rows_done) == (10, 0, (), 10)
    rows = rows_of(out)
    assert rows["splats"].shape == (10, GAUSSIANS, 8)
    assert (rows["state"] == RowState.DONE).all()
    assert list(rows["source_id"]) == [f"image-{i:04d}" for i in range(10)]
    assert list(rows["label"]) == [i % 3 for i in range(10)]
    np.testing.assert_array_equal(rows["image"], images)
    np.testing.assert_array_equal(rows["content_hash"], [content_hash(image) for image in images])
    with open_store(out) as store:
        header = store.header
    decoded = to_uint8(decode(rows["splats"], layout=header.splat_layout, codec=header.codec, height=8, width=8))
    np.testing.assert_array_equal(rows["psnr"], psnr(decoded, images))
    np.testing.assert_array_equal(rows["ssim"], ssim(decoded, images))
    assert summary.psnr == pytest.approx(-10 * np.log10(np.mean(10 ** (-rows["psnr"].astype(float) / 10))), abs=1e-4)
    assert header.anchors is not None
    assert len(header.anchors) == GAUSSIANS
    assert header.settings["recipe"] == {"sigma": 0.2}
    assert len(header.runs) == 1
    record = header.runs[0]
    assert (record.images, record.failed, record.engine) == (10, 0, "sampling")
    assert record.core_seconds == pytest.approx(0.01)
    assert record.versions["numpy"] == np.__version__


@pytest.mark.parametrize(("limit", "said"), [(None, []), (3, []), (4, ["limit 4 is more than "])])
def test_a_limit_above_the_number_of_images_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limit: int | None, said: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, logger="splatspace"):
        job = job_for(tmp_path / "store.h5", limit=limit)
        found = survey(job, source=ArrayImages(pictures(3)), encoder=SamplingEncoder(), write=False)
    assert found.plan.images == 3
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(said)
    for message, beginning in zip(messages, said, strict=True):
        assert message.startswith(beginning)
        assert message.endswith("all of its 3 images are encoded")


@pytest.mark.slow
def test_running_again_fits_and_writes_nothing(out: Path) -> None:
    source = ArrayImages(pictures(10))
    run(out, source)
    before, encoder = rows_of(out), SamplingEncoder()
    summary = run(out, source, encoder)
    assert encoder.fitted == 0
    assert (summary.kept, summary.fitted, summary.rows_done) == (10, 0, 10)
    for name, values in rows_of(out).items():
        np.testing.assert_array_equal(values, before[name])
    with open_store(out) as store:
        assert len(store.header.runs) == 1


@pytest.mark.slow
def test_limit_then_no_limit_equals_one_run(out: Path, tmp_path: Path) -> None:
    source = ArrayImages(pictures(11))
    first = run(out, source, limit=5)
    assert (first.images, first.rows) == (5, 5)
    second = run(out, source)
    assert (second.kept, second.fitted, second.rows) == (5, 6, 11)
    whole = tmp_path / f"whole{out.suffix}"
    run(whole, source)
    assert_same_rows(out, whole)
    third = run(out, source, limit=3)
    assert (third.images, third.kept, third.rows_done) == (3, 3, 11)


@pytest.mark.slow
def test_changed_content_is_fitted_again_in_place(out: Path, tmp_path: Path) -> None:
    source = ArrayImages(pictures(9))
    run(out, source)
    source.pixels["image-0005"] = pictures(1, seed=9)[0]
    encoder = SamplingEncoder()
    summary = run(out, source, encoder)
    assert (summary.changed, summary.fitted, summary.kept, encoder.fitted) == (1, 1, 8, 1)
    whole = tmp_path / f"whole{out.suffix}"
    run(whole, source)
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_swapped_contents_are_copied_or_fitted_right(out: Path, tmp_path: Path) -> None:
    source = ArrayImages(pictures(9))
    run(out, source)
    a, b = source.pixels["image-0001"], source.pixels["image-0007"]
    source.pixels["image-0001"], source.pixels["image-0007"] = b, a
    summary = run(out, source)
    assert summary.changed == 2
    whole = tmp_path / f"whole{out.suffix}"
    run(whole, source)
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_removed_images_keep_their_rows(out: Path) -> None:
    source = ArrayImages(pictures(9))
    run(out, source)
    before = rows_of(out)
    del source.pixels["image-0002"], source.pixels["image-0008"]
    summary = run(out, source)
    assert (summary.removed, summary.kept, summary.images, summary.rows, summary.rows_done) == (2, 7, 7, 9, 9)
    for name, values in rows_of(out).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.slow
def test_identical_images_are_fitted_once(out: Path) -> None:
    images = pictures(12)
    images[2] = images[1]  # in one block
    images[9] = images[1]  # in another block
    images[6] = images[4]  # in the block that may still be on its way to the disk
    encoder = SamplingEncoder()
    summary = run(out, ArrayImages(images), encoder)
    assert (summary.fitted, summary.reused, encoder.fitted) == (9, 3, 9)
    rows = rows_of(out)
    assert (rows["state"] == RowState.DONE).all()
    for copy, original in ((2, 1), (9, 1), (6, 4)):
        for name in ("splats", "psnr", "ssim", "steps", "dead", "image", "content_hash"):
            np.testing.assert_array_equal(rows[name][copy], rows[name][original])
        assert rows["label"][copy] == copy % 3


@pytest.mark.slow
def test_an_image_added_under_a_new_name_is_copied(out: Path) -> None:
    source = ArrayImages(pictures(5))
    run(out, source)
    source.pixels["again"] = source.pixels["image-0003"]
    source.labels["again"] = 2
    encoder = SamplingEncoder()
    summary = run(out, source, encoder)
    assert (summary.reused, encoder.fitted, summary.rows) == (1, 0, 6)


@pytest.mark.slow
def test_a_broken_image_is_failed_by_name_and_tried_again(out: Path, tmp_path: Path) -> None:
    source = ArrayImages(pictures(9))
    source.broken["image-0004"] = "the file is cut short"
    summary = run(out, source)
    assert summary.rows_done == 8
    assert [(image.row, image.source_id, image.reason) for image in summary.failed] == [
        (4, "image-0004", "the file is cut short")
    ]
    rows = rows_of(out)
    assert rows["state"][4] == RowState.FAILED
    assert rows["failure"][4] == "the file is cut short"
    assert np.isnan(rows["psnr"][4])
    assert not rows["splats"][4].any()
    again = run(out, source)
    assert (again.kept, len(again.failed), again.retried) == (8, 1, 0)
    source.broken.clear()
    mended = run(out, source)
    assert (mended.kept, mended.fitted, mended.retried, mended.failed) == (8, 1, 1, ())
    whole = tmp_path / f"whole{out.suffix}"
    run(whole, source)
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_a_done_image_that_can_no_longer_be_read_keeps_its_splats(out: Path) -> None:
    source = ArrayImages(pictures(5))
    run(out, source)
    before = rows_of(out)
    source.broken["image-0001"] = "gone"
    summary = run(out, source)
    assert (summary.kept, summary.rows_done) == (4, 5)
    assert "kept" in summary.failed[0].reason
    for name, values in rows_of(out).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.slow
def test_an_image_of_another_size_is_failed(out: Path) -> None:
    source = ArrayImages(pictures(5))
    source.pixels["image-0003"] = pictures(1, side=9)[0]
    summary = run(out, source)
    assert [image.source_id for image in summary.failed] == ["image-0003"]
    assert "(9, 9, 3)" in summary.failed[0].reason


@pytest.mark.slow
def test_splats_that_are_not_finite_are_failed_never_stored(out: Path) -> None:
    images = pictures(9)
    images[3] = images[6] = 77
    encoder = SamplingEncoder()

    def spoil(image: NDArray[np.uint8], splats: NDArray[np.float32]) -> None:
        if (image == 77).all():
            splats[2, 2] = np.nan

    encoder.spoil = spoil
    summary = run(out, ArrayImages(images), encoder)
    assert [image.row for image in summary.failed] == [3, 6]
    assert "nan for rho of Gaussian 2" in summary.failed[0].reason
    rows = rows_of(out)
    assert np.isfinite(rows["splats"]).all()
    np.testing.assert_array_equal(rows["image"][3], images[3])
    healthy = SamplingEncoder()
    assert run(out, ArrayImages(images), healthy).retried == 2


@pytest.mark.slow
def test_a_new_label_is_taken_over_without_a_fit(out: Path) -> None:
    source = ArrayImages(pictures(5))
    run(out, source)
    source.labels["image-0002"] = 9
    encoder = SamplingEncoder()
    summary = run(out, source, encoder)
    assert (summary.kept, encoder.fitted) == (5, 0)
    assert list(rows_of(out)["label"]) == [0, 1, 9, 0, 1]


@pytest.mark.slow
def test_rows_do_not_depend_on_the_size_of_blocks(tmp_path: Path) -> None:
    images = pictures(11)
    images[7] = images[2]
    stores = [tmp_path / f"{rows}.zarr" for rows in (1, 3, 64)]
    for path in stores:
        run(path, ArrayImages(images), block_rows=int(path.stem))
    assert_same_rows(stores[0], stores[1])
    assert_same_rows(stores[0], stores[2])


@pytest.mark.slow
def test_both_formats_hold_the_same_rows(tmp_path: Path) -> None:
    source = ArrayImages(pictures(7))
    run(tmp_path / "a.zarr", source)
    run(tmp_path / "a.h5", source)
    assert_same_rows(tmp_path / "a.zarr", tmp_path / "a.h5")


@pytest.mark.slow
def test_without_images_and_in_float16(out: Path) -> None:
    run(out, ArrayImages(pictures(5)), images=False, dtype="float16")
    with open_store(out) as store:
        assert "image" not in store.arrays
        assert store.read(["splats"])["splats"].dtype == np.float16
        assert not store.header.images
    assert run(out, ArrayImages(pictures(5)), images=False, dtype="float16").kept == 5


@pytest.mark.slow
def test_stopped_run_keeps_what_is_whole_and_continues(out: Path, tmp_path: Path) -> None:
    source, encoder = ArrayImages(pictures(20)), SamplingEncoder()
    with pytest.raises(StoppedError, match="run the same command again") as caught:
        encode(job_for(out), source=source, encoder=encoder, should_stop=lambda: encoder.fitted >= 9)
    assert caught.value.exit_code == 130
    rows = rows_of(out)
    done = int((rows["state"] == RowState.DONE).sum())
    assert done == encoder.fitted == 12
    with open_store(out) as store:
        assert store.header.runs[0].images == 12
    summary = run(out, source)
    assert (summary.kept, summary.fitted) == (12, 8)
    whole = tmp_path / f"whole{out.suffix}"
    run(whole, source)
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_stopping_inside_a_block_keeps_the_batches_that_were_fitted(out: Path, tmp_path: Path) -> None:
    images = pictures(40, side=4)
    images[39] = images[38]
    encoder = SamplingEncoder()
    job = job_for(out, block_rows=64)
    calls = 0

    def should_stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3  # once before the block, then once for each batch

    encoder.at_once = 16
    with pytest.raises(StoppedError):
        encode(job, source=ArrayImages(images), encoder=encoder, should_stop=should_stop)
    assert encoder.batches == [16, 16]
    assert (rows_of(out)["state"][:32] == RowState.DONE).all()
    assert (rows_of(out)["state"][32:] == RowState.EMPTY).all()
    assert run(out, ArrayImages(images), block_rows=64).kept == 32
    whole = tmp_path / f"whole{out.suffix}"
    run(whole, ArrayImages(images))
    assert_same_rows(out, whole)


@pytest.mark.slow
def test_other_settings_are_refused_by_name(out: Path) -> None:
    source = ArrayImages(pictures(5))
    run(out, source)
    before = rows_of(out)
    from encoders.base import FitSettings

    for encoder, options, field in (
        (SamplingEncoder(FitSettings(GAUSSIANS + 1, steps=3)), {}, "gaussians"),
        (SamplingEncoder(FitSettings(GAUSSIANS, steps=4)), {}, "settings.steps"),
        (SamplingEncoder(FitSettings(GAUSSIANS, steps=3, start="grid")), {}, "start"),
        (SamplingEncoder(FitSettings(GAUSSIANS, steps=3, codec="normalised/1")), {}, "codec"),
        (SamplingEncoder(), {"dtype": "float32"}, "dtype"),
        (SamplingEncoder(), {"images": False}, "images"),
    ):
        with pytest.raises(StoreMismatchError, match="--overwrite") as caught:
            run(out, source, encoder, **options)
        assert field in str(caught.value)
    with pytest.raises(StoreMismatchError, match="channels"):
        run(out, ArrayImages(pictures(5, channels=1)))
    for name, values in rows_of(out).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.slow
def test_overwrite_replaces_the_store(out: Path) -> None:
    run(out, ArrayImages(pictures(5)))
    summary = run(out, ArrayImages(pictures(3, channels=1)), overwrite=True)
    assert (summary.rows, summary.fitted) == (3, 3)


@pytest.mark.slow
def test_images_of_another_set_are_refused(out: Path) -> None:
    run(out, ArrayImages(pictures(5)))
    other = ArrayImages(pictures(5), name="others")
    other.pixels = {f"other-{name}": image for name, image in other.pixels.items()}
    other.labels = {f"other-{name}": label for name, label in other.labels.items()}
    with pytest.raises(StoreMismatchError, match="none of which is in 'others'"):
        run(out, other)
    renamed = ArrayImages(pictures(5), name="renamed folder")
    assert run(out, renamed).kept == 5


def test_an_empty_source_and_repeated_names_are_errors(out: Path) -> None:
    with pytest.raises(SourceError, match="holds no images"):
        run(out, ArrayImages(pictures(0)))
    assert not out.exists()
    source = ArrayImages(pictures(3))
    source.identifiers = lambda: ["a", "b", "a"]
    with pytest.raises(SourceError, match="two images 'a'"):
        run(out, source)
    assert not out.exists()


@pytest.mark.slow
def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    source = ArrayImages(pictures(10))
    source.broken["image-0001"] = "broken"
    seen: list[EncodeProgress] = []
    summary = encode(job_for(tmp_path / "a.zarr"), source=source, encoder=SamplingEncoder(), progress=seen.append)
    last = seen[-1]
    assert (last.images, last.processed, last.fitted, last.failed) == (10, 10, 9, 1)
    assert last.psnr == pytest.approx(summary.psnr)
    assert last.seconds_left == 0
    assert all(before.processed <= after.processed for before, after in itertools.pairwise(seen))


@pytest.mark.slow
def test_attribution_is_kept_beside_the_store(tmp_path: Path) -> None:
    source = ArrayImages(pictures(2), attribution="Art by somebody, CC0")
    summary = run(tmp_path / "deep" / "er" / "art.zarr", source)
    assert summary.attribution == tmp_path / "deep" / "er" / "art.attribution.txt"
    text = (tmp_path / "deep" / "er" / "art.attribution.txt").read_text()
    assert "Art by somebody" in text
    assert "CC0" in text
    assert run(tmp_path / "b.zarr", ArrayImages(pictures(2))).attribution is None


@pytest.mark.slow
def test_however_often_it_is_stopped_no_finished_image_is_fitted_again(out: Path, tmp_path: Path) -> None:
    source = ArrayImages(pictures(60, side=16))
    chance = np.random.default_rng(7)
    done = stops = 0
    while True:
        looks = int(chance.integers(0, 6))
        asked = iter([False] * looks)
        try:
            summary = encode(
                job_for(out, block_rows=64, steps=20), source=source, should_stop=lambda asked=asked: next(asked, True)
            )
            break
        except StoppedError:
            stops += 1
        before, done = done, int((rows_of(out)["state"] == RowState.DONE).sum())
        assert done >= before
    assert stops >= 3
    assert summary.kept == done
    with open_store(out) as store:
        # Every image was fitted once, whatever run it was in.
        assert sum(record.images for record in store.header.runs) == 60
    whole = tmp_path / f"whole{out.suffix}"
    encode(job_for(whole, block_rows=64, steps=20), source=source)
    assert_same_rows(out, whole)
