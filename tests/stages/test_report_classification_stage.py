"""``nakt report`` on classifiers: the page, the files and what the terminal shows last."""

import re
import sys
from pathlib import Path

import pytest

from nakt_dist.config import ReportConfig
from nakt_dist.records.run_record import RunRecord
from nakt_dist.stages import report
from tests.classifier_records import write_attention, write_study
from tests.records import reported_once

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder, seeds=2, sizes=(100,), networks=("densenet121",))
    write_attention(folder / "attention", "student", sheet=PNG)
    return folder


@pytest.fixture(scope="module")
def reported(
    study: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunRecord, list[str]]:
    return reported_once(study, tmp_path_factory.mktemp("reported") / "report")


def test_the_table_in_the_shape_of_table_2_comes_last_and_then_the_page(
    study: Path, reported: tuple[Path, RunRecord, list[str]]
):
    output, record, lines = reported
    assert lines[-1] == str(output / "report.html")
    assert lines[0] == "**Table 2 (paper B): mean AUROC % on chexpert (phantom), split test**"
    (row,) = (line for line in lines if line.startswith("| DenseNet-121 | 100 | imagenet |"))
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", row)) == 3 and row.count("**") == 2
    assert any(line.startswith("| teacher | DenseNet-121 |") for line in lines)
    assert record.counts["evaluations"] == 7
    text = (output / "report.md").read_text()
    links = sorted(re.findall(r"\]\(figures/([^)]*)\)", text))
    assert links == sorted(path.name for path in (output / "figures").iterdir())
    assert (output / "figures" / "attention-sheet-1.png").read_bytes() == PNG
    page = (output / "report.html").read_text()
    assert page.count("<figure>") == len(links) and str(study) not in page + text
    assert "patient-00" not in page + text and "image-00" not in page + text


def test_equal_records_give_equal_bytes(
    study: Path, reported: tuple[Path, RunRecord, list[str]], tmp_path: Path
):
    report.run(ReportConfig([str(study)], str(tmp_path / "second")))
    first, second = (
        (each / "report.html").read_bytes() for each in (reported[0], tmp_path / "second")
    )
    assert first == second


def test_a_terminal_does_not_break_a_mean_with_its_interval(
    study: Path,
    undrawn: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    report.run(ReportConfig([str(study)], str(tmp_path / "report")))
    out = capsys.readouterr().out
    assert len(re.findall(r"\d\d\.\d\d ± \d\.\d\d", out)) == 3 and "| ---" not in out
