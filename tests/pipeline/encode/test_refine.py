"""``--refine regressed``: two fits of one store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.kernel_ridge import KernelRidge

from data_schemas.errors import JobError, SourceError, StoppedError, StoreMismatchError
from data_schemas.stores.contract import ARRAYS
from data_schemas.stores.open import open_store
from encoders.frame import from_splats
from encoders.start.regression import FOLDS, fold_of, inputs_of
from pipeline.encode import refine as regressed
from pipeline.encode.inputs import read_regression
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.plan import plan_encode
from pipeline.encode.refine import learn_regression, with_regression
from pipeline.encode.run import encode
from pipeline.kernel_ridge import RIDGES
from pipeline.report.figures import encode_command
from pipeline.report.predictability import measure_predictability

IMAGES = 60


def job(out: Path, **options: Any) -> EncodeJob:
    given = {"limit": IMAGES, "steps": 12, "gaussians": 6, "block_rows": 16, "workers": 1, "refine": "regressed"}
    return resolve_job("demo", out, **{**given, **options})


def rows_of(path: Path) -> dict[str, NDArray[Any]]:
    with open_store(path) as store:
        return store.read([name for name in ARRAYS if name in store.arrays])


def assert_same_rows(first: Path, second: Path) -> None:
    left, right = rows_of(first), rows_of(second)
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], err_msg=name, strict=True)


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("refined") / "demo.zarr"
    assert encode(job(out)).fitted == IMAGES
    return out


@pytest.fixture
def regression_file(refined: Path) -> Path:
    return refined.parent / "demo-refine" / "first.regression.npz"


@pytest.mark.slow
def test_the_header_says_it_and_rows_of_other_settings_are_refused(refined: Path, regression_file: Path) -> None:
    with open_store(refined) as store:
        recipe = store.header.settings["recipe"]
        assert store.header.anchors is not None
    assert recipe["refine"]["digest"] == read_regression(regression_file).digest
    assert "--start transport --refine regressed" in str(encode_command(store.header, refined))
    assert recipe["rate_centre"] == pytest.approx(0.05)
    with pytest.raises(StoreMismatchError, match="refine"):
        encode(job(refined, refine="none"))
    before = rows_of(refined)
    again = encode(job(refined))
    assert (again.kept, again.fitted) == (IMAGES, 0)
    for name, values in rows_of(refined).items():
        np.testing.assert_array_equal(values, before[name])


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_format_the_workers_or_an_interruption(refined: Path, tmp_path: Path) -> None:
    encode(job(tmp_path / "demo.h5", workers=2))
    assert_same_rows(refined, tmp_path / "demo.h5")
    for polls in (1, 4, 9):  # in the first fit, in the second, and late in the second
        out = tmp_path / f"stopped-{polls}.zarr"
        answers = iter([False] * polls)
        with pytest.raises(StoppedError):
            encode(job(out), should_stop=lambda left=answers: next(left, True))
        encode(job(out))
        assert_same_rows(refined, out)


@pytest.mark.slow
def test_pixels_foretell_the_second_fit_better(refined: Path) -> None:
    found = []
    for path in (refined.parent / "demo-refine" / "first.zarr", refined):
        with open_store(path) as store:
            figures = measure_predictability(store).figures
        assert figures is not None
        found.append(figures.r2)
    assert found[1] > found[0] + 0.01


def test_no_image_takes_part_in_its_own_prediction(refined: Path) -> None:
    with open_store(refined.parent / "demo-refine" / "first.zarr") as store:
        network = learn_regression(store)
        read = store.read(["splats", "image"])
    frames = from_splats(read["splats"].astype(np.float32), 32, 32).reshape(IMAGES, -1).astype(np.float64)
    targets = np.clip(frames, *np.percentile(frames, [0.5, 99.5], axis=0))
    inputs = inputs_of(read["image"]).astype(np.float64)
    folds = np.array([fold_of(image) for image in read["image"]])
    assert len(set(folds.tolist())) == FOLDS
    found = network.predict(read["image"]).reshape(IMAGES, -1)
    misses = []
    for ridge in RIDGES:
        expected = np.empty_like(targets)
        for fold in range(FOLDS):
            others = folds != fold
            model = KernelRidge(kernel="rbf").set_params(alpha=ridge, gamma=1 / network.scale)
            model.fit(inputs[others], targets[others] - targets.mean(axis=0))
            expected[~others] = model.predict(inputs[~others]) + targets.mean(axis=0)
        misses.append(np.abs(found - expected).max())
    # With a basis function at every image it is kernel ridge regression on the other folds, with one of the ridges.
    assert min(misses) < 2e-3
    assert sorted(misses)[1] > 1e-2


@pytest.mark.slow
def test_images_that_come_later_leave_the_regression_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    encode(job(out))
    before = rows_of(out)["splats"]
    summary = encode(job(out, limit=IMAGES + 20))
    assert (summary.kept, summary.fitted) == (IMAGES, 20)
    np.testing.assert_array_equal(rows_of(out)["splats"][:IMAGES], before)


@pytest.mark.slow
def test_a_lost_or_damaged_regression_is_learned_again(refined: Path, regression_file: Path) -> None:
    digest = read_regression(regression_file).digest
    regression_file.write_bytes(regression_file.read_bytes()[:1000])
    assert encode(job(refined)).kept == IMAGES
    assert read_regression(regression_file).digest == digest
    regression_file.unlink()
    assert encode(job(refined)).kept == IMAGES
    assert read_regression(regression_file).digest == digest


@pytest.mark.slow
def test_versions_keep_settings_apart(tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    encode(job(out, versions=True))
    second = encode(job(out, versions=True, gaussians=7))
    assert Path(str(second.store)).name == "demo.v2.zarr"
    assert Path(str(encode(job(out, versions=True)).store)).name == "demo.zarr"
    names = {path.name for path in (tmp_path / "demo-refine").glob("*.npz")}
    assert names == {"first.regression.npz", "first.v2.regression.npz"}


def test_a_look_writes_nothing(refined: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    plan = plan_encode(with_regression(job(out), learn=False), write=False)
    assert plan.new == IMAGES
    assert list(tmp_path.iterdir()) == []
    assert plan_encode(with_regression(job(refined), learn=False), write=False).done == IMAGES


def test_a_plan_without_its_regression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="without its regression"):
        plan_encode(job(tmp_path / "demo.zarr"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"engine": "reference"}, "--engine reference"),
        ({"codec": "over"}, "--codec over/1"),
        ({"start": "adaptive"}, "--start adaptive"),
        ({"refine": "twice"}, "--refine"),
    ],
)
def test_what_cannot_be_refined_is_refused_at_once(options: dict[str, Any], named: str) -> None:
    with pytest.raises(JobError, match=named):
        job(Path("demo.zarr"), **options)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="30 images in demo"):
        encode(job(tmp_path / "demo.zarr", limit=30))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(regressed, "MOST_LEARNT", 45)
    return 45


@pytest.mark.slow
def test_only_a_sample_is_fitted_first(small_sample: int, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    assert encode(job(out, start="grid", codec="normalised")).fitted == IMAGES
    assert len(rows_of(tmp_path / "demo-refine" / "first.zarr")["state"]) == small_sample


@pytest.mark.slow
def test_dask_workers_read_the_regression_and_write_the_same_bytes(refined: Path, tmp_path: Path) -> None:
    summary = encode(job(tmp_path / "demo.zarr", compute="dask", workers=2))
    assert (summary.fitted, summary.failed) == (IMAGES, ())
    assert_same_rows(refined, tmp_path / "demo.zarr")
