"""What the cluster's monitoring reads: the text format, ``/metrics``, and a file per process."""

import contextlib
import math
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from nakt_dist.config import TrackingConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime import rank_textfile
from nakt_dist.runtime.processes import ProcessPlace
from nakt_dist.runtime.prometheus_text import Family, render
from nakt_dist.runtime.rank_textfile import RankTextfile, run_label
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.stages import train
from nakt_dist.studies.folder import STUDY_FOLDER, Plan, PlannedRun, RunState, StudyFolder
from nakt_dist.training import pace as pace_module
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.prometheus import families_of
from nakt_dist.watch.snapshot import WORDS
from tests.datasets import make_packed_dataset
from tests.prometheus_format import ReadFamily, read_metrics
from tests.recipes import read_lines, train_config
from tests.records import annotations, lineage, write_training

PROMTOOL = shutil.which("promtool")
ODD = 'a\\b"c\nd=é{},'


def checked(families: Iterable[Family]) -> dict[str, ReadFamily]:
    content = render(families)
    check_with_promtool(content)
    return read_metrics(content)


def check_with_promtool(content: bytes) -> None:
    if PROMTOOL is not None:
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"], input=content, capture_output=True, timeout=30
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_labels_are_escaped_and_numbers_read_back() -> None:
    family = Family("nakt_x_bytes", "gauge", "With a \\ and\na line")
    values = (0.1, 1e300, -0.0, 3.0, 2**60, math.inf, -math.inf, 1 / 3)
    for number, value in enumerate(values):
        family.add(value, {"run": ODD, "number": str(number)})
    family.add(None, {"run": "unknown"})
    found = checked([family, Family("nakt_nothing", "gauge", "No series, not written")])
    assert [*found] == ["nakt_x_bytes"]
    for number, value in enumerate(values):
        assert found["nakt_x_bytes"].value(run=ODD, number=str(number)) == value
    assert math.isnan(read_metrics(render([_of(math.nan)]))["nakt_y"].value())


def _of(value: float) -> Family:
    family = Family("nakt_y", "gauge", "One")
    family.add(value, {})
    return family


def test_names_that_are_no_unicode_are_replaced() -> None:
    family = Family("nakt_y", "gauge", "One")
    family.add(1, {"run": "half \udcff of a pair"})
    assert read_metrics(render([family]))["nakt_y"].value(run="half ? of a pair") == 1


@pytest.mark.skipif(PROMTOOL is None, reason="there is no promtool here")
def test_promtool_finds_fault_with_what_is_wrong() -> None:
    with pytest.raises(AssertionError):
        check_with_promtool(b"# TYPE nakt_x counter\nnakt_x 1\n")


def write_study(root: Path) -> None:
    """A study with a run of every kind: done, running, waiting, and one that teaches."""
    write_training(root / "runs" / "teacher", lineage(annotations()))
    running = write_training(root / "runs" / "student", lineage(annotations()))
    (running / "record.json").unlink()
    (running / "checkpoints").mkdir()
    (running / "checkpoints" / "latest").write_text("step-000000003")
    (running / "pace.jsonl").write_text(
        '{"step": 3, "images_per_second": 40.0, "step_seconds": 0.2, "data_wait": 0.25}\n'
    )
    ledger = WorkLedger(root / "pseudo" / ".teach", {"dataset": "thyroid"}, 5)
    ledger.open()
    for piece in ledger.unfinished(0, 1):
        ledger.finish(piece, {})
        if piece == 1:
            break
    runs = (
        PlannedRun("runs/teacher", "train", 1, "train 1", {}, str(root / "runs/teacher")),
        PlannedRun(
            "pseudo", "teach", 2, "teach 2", {}, str(root / "pseudo"), ("runs/teacher",)
        ),
        PlannedRun("runs/student", "train", 3, "train 3", {"seed": ODD}, str(running)),
        PlannedRun("tests/student", "evaluate", 4, "e", {}, None, ("runs/student",)),
    )  # fmt: skip
    study = StudyFolder(root)
    study.write_plan(Plan("papers", str(root), runs))
    study.write_state("pseudo", RunState("running", started=1.0, host="n1", job="12_3"))
    study.write_state("runs/student", RunState("running", 2, 5.0, host="n2", pid=1))


def scraped(folder: Path) -> dict[str, ReadFamily]:
    collector = Collector([folder])
    collector.refresh(whole=True)
    return checked(families_of(collector.snapshots(), collector.unread))


def test_metrics_tell_how_every_run_of_a_study_stands(tmp_path: Path) -> None:
    root = tmp_path / "study"
    write_study(root)
    found = scraped(root)
    student = "study/runs/student"
    info = found["nakt_run_info"]
    assert info.value(run="study/pseudo", job_id="12_3", host="n1", stage="teach") == 1
    assert info.value(run=student, host="n2", study="papers", seed=ODD) == 1
    with_job = [name for name, family in found.items() if "job_id" in str(family.samples)]
    assert with_job == ["nakt_run_info"]
    assert found["nakt_run_state"].value(run="study/tests/student", state="waiting") == 1
    counts = {word: found["nakt_runs"].value(study="papers", state=word) for word in WORDS}
    assert {word: number for word, number in counts.items() if number} == {
        "done": 1, "running": 2, "waiting": 1,
    }  # fmt: skip
    assert found["nakt_run_loss"].value(run=student) == 0.25
    assert found["nakt_run_step"].value(run=student) == 3
    assert found["nakt_run_images_per_second"].value(run=student) == 40
    assert found["nakt_run_step_seconds"].value(run=student) == 0.2
    assert found["nakt_run_data_wait_ratio"].value(run=student) == 0.25
    assert found["nakt_run_attempts"].value(run=student) == 2
    assert found["nakt_run_last_checkpoint_timestamp_seconds"].value(run=student) > 1e9
    assert found["nakt_run_pieces"].value(run="study/pseudo") == 5
    assert found["nakt_run_pending_pieces"].value(**{"run": "study/pseudo", "pass": "teach"}) == 3
    assert found["nakt_watch_unread_runs"].value() == 0


def test_a_training_leaves_its_pace_and_tells_the_node_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(pace_module, "_SECONDS_BEFORE", 0.0)
    monkeypatch.setattr(pace_module, "_SECONDS_BETWEEN", 0.0)
    dataset = make_packed_dataset(tmp_path, images=16, splits={"train": 1.0})
    seen, close = [], RankTextfile.close

    def kept(self: RankTextfile) -> None:
        (path,) = (tmp_path / "node").iterdir()
        seen.append((path.name, path.read_bytes()))
        close(self)

    monkeypatch.setattr(RankTextfile, "close", kept)
    tracking = TrackingConfig(prometheus_folder=str(tmp_path / "node"))
    train.run(train_config(tmp_path / "out", dataset, tracking=tracking))
    ((name, content),) = seen
    assert name.startswith("nakt-out-") and name.endswith("-rank-0.prom")
    check_with_promtool(content)
    found = read_metrics(content)
    rank = {"run": "out", "rank": "0"}
    assert found["nakt_rank_info"].value(**rank, job_id="77", stage="train", gpu_uuid="") == 1
    assert found["nakt_rank_step"].value(**rank) == 6
    assert found["nakt_rank_images_total"].value(**rank) == 48
    took = found["nakt_rank_step_seconds"]
    assert took.value("_count", **rank) == 6 and took.value("_sum", **rank) > 0
    assert 0 <= found["nakt_rank_data_wait_seconds_total"].value() <= took.value("_sum")
    losses = [line for line in read_lines(tmp_path / "out" / "metrics.jsonl") if "loss" in line]
    assert found["nakt_rank_loss"].value(loss="loss") == losses[-1]["loss"]
    assert found["nakt_rank_last_checkpoint_timestamp_seconds"].value() > 1e9
    assert not list((tmp_path / "node").iterdir())
    lines = read_lines(tmp_path / "out" / "pace.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert math.isclose(line["images_per_second"] * line["step_seconds"], 8)
        assert 0 <= line["data_wait"] <= 1


def test_a_folder_that_cannot_be_written_to_is_refused_and_one_that_vanishes_is_no_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"tracking.prometheus_folder is .*/file, where"):
        RankTextfile(tmp_path / "file", tmp_path / "out", "train", ProcessPlace())
    textfile = RankTextfile(tmp_path / "node", tmp_path / "out", "train", ProcessPlace())
    shutil.rmtree(tmp_path / "node")
    for _ in range(2):
        textfile.write([])
    assert capsys.readouterr().err.count("the work goes on without it") == 1
    textfile.close()


def test_a_run_is_named_as_its_study_names_it_and_two_of_one_name_have_two_files(
    tmp_path: Path,
) -> None:
    assert rank_textfile._MARK_OF_A_STUDY == STUDY_FOLDER
    for name in ("a", "b"):
        RankTextfile(tmp_path / "node", tmp_path / name / "out", "train", ProcessPlace())
    assert len(list((tmp_path / "node").glob("nakt-out-*-rank-0.prom"))) == 2
    assert run_label(tmp_path / "study" / "runs" / "x") == "x"
    (tmp_path / "study" / STUDY_FOLDER).mkdir(parents=True)
    assert run_label(tmp_path / "study" / "runs" / "x") == "study/runs/x"


def test_a_ledger_tells_its_count_and_a_finished_one_nothing(tmp_path: Path) -> None:
    ledger = WorkLedger(tmp_path / ".teach", {"dataset": "x"}, 2)
    ledger.open()
    with contextlib.closing(ledger.unfinished(0, 1)) as pieces:
        next(pieces)
    assert (tmp_path / ".teach" / "pieces.json").read_text().split() == ["{", '"pieces":', "2", "}"]
    ledger.close()
    assert list(ledger.unfinished(0, 1)) == [] or not (tmp_path / ".teach").exists()
