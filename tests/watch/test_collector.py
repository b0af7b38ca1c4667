import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import RECORD_NAME
from nakt_dist.studies.folder import PlannedRun, RunState
from nakt_dist.watch import collector as collecting
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.snapshot import RunSnapshot
from nakt_dist.watch.summary import summarise
from tests.watch.writing import (
    STEPS,
    Executor,
    append,
    learning_lines,
    write_record,
    write_start,
)

RUNS = [
    PlannedRun("shards/a", "pack", 1, "pack", output="x"),
    *(
        PlannedRun(
            f"runs/s{seed}", "train", 2, "students", {"method": "at", "seed": str(seed)}, "x",
            ("shards/a",),
        )
        for seed in range(3)
    ),
    PlannedRun("tests/s0", "evaluate", 3, "tests", {"method": "at"}, "x", ("runs/s0",)),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _scan_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "SCAN_SECONDS", 0.0)


def named(collector: Collector) -> dict[str, RunSnapshot]:
    collector.refresh(whole=True)
    return {each.name: each for each in collector.snapshots()}


def test_a_study_is_followed_from_its_plan_to_its_end(tmp_path: Path) -> None:
    executor = Executor(tmp_path, RUNS)
    collector = Collector([tmp_path])
    words = {name: each.status for name, each in named(collector).items()}
    assert words == dict.fromkeys(words, "waiting") | {"shards/a": "ready"}
    executor.finish("shards/a")
    executor.start("runs/s0", ago=100)
    append(executor.folder("runs/s0") / "metrics.jsonl", learning_lines("0", STEPS // 2))
    executor.fail("runs/s1", ["Traceback", "nakt: error: the disk is full"])
    runs = named(collector)
    assert [runs[name].status for name in ("runs/s0", "runs/s1", "runs/s2", "tests/s0")] == [
        "running", "failed", "ready", "waiting",
    ]  # fmt: skip
    live = runs["runs/s0"]
    assert (live.done_steps, live.total_steps, live.metric) == (100, STEPS, "validation_auroc")
    assert live.expected_end is not None and live.seconds_left_at(time.time()) > 0
    assert live.axes["method"] == "at" and live.own_axes == ("method", "seed")
    assert collector.last_lines(runs["runs/s1"].id, 1) == ["nakt: error: the disk is full"]
    executor.finish("runs/s0", seconds=120, best_validation_auroc=0.8)
    runs = named(collector)
    assert runs["runs/s0"].status == "done" and runs["tests/s0"].status == "ready"
    assert runs["runs/s0"].metrics["best_validation_auroc"] == 0.8


def test_what_changed_since_a_version_is_all_that_is_told(tmp_path: Path) -> None:
    for number in range(200):
        folder = tmp_path / "runs" / f"r{number:03d}"
        write_start(folder, {"seed": str(number)})
        append(folder / "metrics.jsonl", [{"step": 4, "loss": 0.5}])
    collector = Collector([tmp_path])
    assert len(named(collector)) == 200
    version = collector.version
    append(tmp_path / "runs/r007/metrics.jsonl", [{"step": 8, "loss": 0.4}])
    shutil.rmtree(tmp_path / "runs/r009")
    gone = next(each.id for each in collector.snapshots() if each.name == "runs/r009")
    collector.refresh(whole=True)
    assert [each.name for each in collector.snapshots(version)] == ["runs/r007"]
    assert collector.removed(version) == [gone] and collector.get(gone) is None
    assert collector.wait(version, 0) > version
    version = collector.version
    collector.refresh(whole=True)
    assert collector.version == version


def test_folders_without_a_plan_are_runs_that_find_each_other(tmp_path: Path) -> None:
    shards = tmp_path / "shards" / "chexpert"
    shards.mkdir(parents=True)
    (shards / "manifest.json").write_text('{"dataset": "chexpert", "config": {}}')
    write_start(tmp_path / "runs" / "a", {"network": "densenet40", "seed": "3"})
    append(tmp_path / "runs/a/metrics.jsonl", learning_lines("a", 40))
    write_record(tmp_path / "runs" / "b", "train", {"seed": "4"}, {}, 10.0)
    runs = named(Collector([tmp_path]))
    assert {name: each.status for name, each in runs.items()} == {
        "shards/chexpert": "done", "runs/a": "running", "runs/b": "done",
    }  # fmt: skip
    assert runs["runs/a"].needs == (runs["shards/chexpert"].id,)
    assert runs["runs/a"].axes["network"] == "densenet40" and runs["runs/a"].axes["seed"] == "3"


def test_a_run_without_a_study_that_writes_nothing_is_called_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_start(tmp_path / "a", {})
    append(tmp_path / "a/metrics.jsonl", [{"step": 1, "loss": 1.0}])
    collector = Collector([tmp_path])
    assert named(collector)["a"].status == "running"
    monkeypatch.setattr("nakt_dist.watch.followed_run.SILENT_SECONDS", -1.0)
    assert named(collector)["a"].status == "silent"


def test_a_run_whose_process_was_killed_is_not_called_running(tmp_path: Path) -> None:
    executor = Executor(tmp_path, RUNS)
    executor.start("runs/s0")
    process = subprocess.Popen(["sleep", "60"])
    here = RunState("running", started=time.time(), host=socket.gethostname(), pid=process.pid)
    executor.files.write_state("runs/s0", here)
    collector = Collector([tmp_path])
    assert named(collector)["runs/s0"].status == "running"
    process.kill()
    process.wait()
    gone = named(collector)["runs/s0"]
    assert (gone.status, gone.expected_end) == ("silent", None) and "start" in str(gone.reason)


def test_damaged_files_are_told_and_nothing_else_suffers(tmp_path: Path) -> None:
    executor = Executor(tmp_path, RUNS)
    executor.start("runs/s0")
    (tmp_path / "runs/s0/identity.json").write_text('{"lineage": [')
    (tmp_path / "runs/s0/config.yaml").write_text("a: [")
    (executor.files.of_run("runs/s1")).mkdir(parents=True)
    (executor.files.of_run("runs/s1") / "state.json").write_text('{"status": "run')
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / RECORD_NAME).write_text("[1]")
    write_record(tmp_path / "sound", "train", {}, {"loss": 1.0}, 5.0)
    collector = Collector([tmp_path])
    runs = named(collector)
    assert runs["runs/s0"].status == "running" and "damaged" in runs["runs/s0"].warnings[0]
    assert "expected an object" in runs["odd"].warnings[0]
    assert runs["sound"].status == "done"
    executor.files.plan_path.write_text("{")
    later = named(collector)
    assert later["runs/s0"].study and "cannot be read" in collector.problems[0]


def test_what_slurm_says_of_a_job_is_the_reason(tmp_path: Path) -> None:
    executor = Executor(tmp_path, RUNS)
    executor.finish("shards/a")
    executor.queue("runs/s0", "7_0")
    executor.queue("runs/s1", "7_1")
    queue = {"7_0": "PENDING (Priority)"}
    runs = named(Collector([tmp_path], lambda: queue))
    assert (runs["runs/s0"].status, runs["runs/s0"].reason) == ("queued", "PENDING (Priority)")
    assert runs["runs/s1"].status == "failed" and "gone" in str(runs["runs/s1"].reason)


def test_several_studies_below_a_folder_keep_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Executor(tmp_path / name, RUNS, name).finish("shards/a")
    collector = Collector([tmp_path])
    collector.refresh(whole=True)
    assert sorted(plan.name for plan in collector.plans) == ["one", "two"]
    assert len(collector.snapshots()) == 2 * len(RUNS)
    shutil.rmtree(tmp_path / "two")
    collector.refresh(whole=True)
    assert {each.study for each in collector.snapshots()} == {"one"}


def test_hours_price_and_time_left_are_summed_up(tmp_path: Path) -> None:
    executor = Executor(tmp_path, RUNS)
    executor.finish("shards/a", 3600)
    for name in ("runs/s0", "runs/s1"):
        executor.start(name, ago=100)
    executor.finish("runs/s0", 300)
    state = executor.files.read_state("runs/s0")
    collector = Collector([tmp_path])
    collector.refresh(whole=True)
    summary = summarise(collector.snapshots(), time.time(), price=2.0)
    assert summary.counts == {"ready": 2, "running": 1, "done": 2}
    assert state is not None and summary.process_hours == pytest.approx(
        (3600 + 200) / 3600, rel=0.2
    )
    assert summary.cost == pytest.approx(2 * summary.process_hours)
    assert summary.seconds_left is not None


def test_an_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        Collector([tmp_path / "absent"])
