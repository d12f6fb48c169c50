"""``--once`` and the other options of ``python -m flows`` as far as they need no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from data_schemas.errors import JobError
from data_schemas.locations import location
from flows.__main__ import app
from flows.catalogue import BY_NAME, prefect_yaml
from flows.encode import encode
from flows.report import report
from flows.server.once import check_parameters, deployment_named, parse_parameters, report_of
from pipeline.encode.records import EncodeSummary

GIVEN = {"dataset": "demo", "out": "demo.zarr"}


@pytest.mark.parametrize("name", ["encode-demo", "encode/encode-demo"])
def test_a_deployment_is_found_by_both_names(name: str) -> None:
    assert deployment_named(name) is BY_NAME["encode-demo"]


@pytest.mark.parametrize("name", ["encode-nothing", "report/encode-demo", "encode/", "", "demo"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(JobError, match=r"encode-mnist, encode-sprites.*--list"):
        deployment_named(name)


def test_values_are_json_or_text() -> None:
    texts = ["limit=512", "versions=true", "data_dir=null", "out=a=b.zarr", "target_psnr=40.5", "split=train", 'x="7"']
    assert parse_parameters(texts) == {
        "limit": 512, "versions": True, "data_dir": None, "out": "a=b.zarr", "target_psnr": 40.5, "split": "train",
        "x": "7",
    }  # fmt: skip


@pytest.mark.parametrize("texts", [["limit"], ["=3"], [""], ["limit=1", "limit=2"]])
def test_what_is_no_parameter_is_refused(texts: list[str]) -> None:
    with pytest.raises(JobError):
        parse_parameters(texts)


def test_a_misspelt_parameter_is_told_with_the_right_ones() -> None:
    with pytest.raises(JobError, match=r"'limt'.*Allowed: dataset, .*limit.*Next: if that was meant: -p limit=VALUE"):
        check_parameters(encode, GIVEN | {"limt": 3})


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"colours": "loud"}, {"engine": "magic"}, {"seed": -1}, {"limit": "many"}, {"compute": "x"}]
)
def test_a_wrong_value_is_told_by_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=next(iter(wrong))):
        check_parameters(encode, GIVEN | wrong)


def test_good_values_come_back_as_the_flow_takes_them() -> None:
    assert check_parameters(encode, GIVEN | {"limit": 5, "versions": True})["limit"] == 5


def test_a_path_that_reads_like_a_number_stays_a_path() -> None:
    assert check_parameters(encode, {"dataset": 7, "out": "x.zarr"})["dataset"] == "7"
    assert check_parameters(report, {"store": True})["store"] == "true"
    with pytest.raises(JobError, match="size"):
        check_parameters(encode, GIVEN | {"size": [1]})


@pytest.mark.slow
def test_the_report_of_each_kind_of_result() -> None:
    page = location("s3://bucket/demo-report/report.html")
    nothing = {"images": 1, "fitted": 0, "reused": 0, "kept": 1, "failed": [], "psnr": None}
    summary = EncodeSummary.model_construct(**nothing, report=Path("demo-report/report.html"))
    assert report_of(summary) == Path("demo-report/report.html")
    assert report_of(page) == page
    assert report_of(EncodeSummary.model_construct(**nothing, report=None)) is None
    assert report_of(None) is None


class TestOptions:
    @staticmethod
    def typed(line: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, line.split())
        return result.exit_code, result.output

    def test_list(self) -> None:
        code, printed = self.typed("--list")
        assert code == 0
        assert all(name in printed for name in BY_NAME)
        assert "nightly: 0 3 * * * UTC" in printed

    def test_help_names_what_it_honours(self) -> None:
        code, printed = self.typed("--help")
        assert code == 0
        assert all(word in printed for word in ("--port", "--once", "--resume", "PREFECT_API_URL", "PREFECT_HOME"))

    def test_prefect_yaml_is_written_into_the_current_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.typed("--write-prefect-yaml") == (0, "")
        assert (tmp_path / "prefect.yaml").read_text(encoding="utf-8") == prefect_yaml()

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("--list --once encode-demo", "More than one"),
            ("--resume encode-demo --pause encode-demo", "More than one"),
            ("-p limit=3", "-p without --once or --resume"),
            ("--port 70000", "65535"),
        ],
    )
    def test_options_that_do_not_go_together(self, line: str, told: str) -> None:
        code, printed = self.typed(line)
        assert code == 2
        assert told in " ".join(printed.split())
