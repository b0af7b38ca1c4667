"""Runs of a study: several at a time, failures that stop what needs them alone, kills, signals."""

import json
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.cli import main
from nakt_dist.config import StudyConfig
from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.runtime.children import machine_shares
from nakt_dist.runtime.work import hold_lock
from nakt_dist.stages import study
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.local import LocalRuns
from nakt_dist.studies.one_run import lock_path, prepare, shortened
from tests.faults.chaos_launches import ForkedLaunch
from tests.recipes import file_hashes

PHANTOMS = {
    "stage": "phantoms", "matrix": {"seed": [0, 1]},
    "config": {
        "kind": "breast_ultrasound", "output": "${root}/published-${seed}", "count": 16,
        "image_size": 32, "seed": "${seed}",
    },
}  # fmt: skip
PACK = {
    "stage": "pack", "matrix": {"seed": [0, 1]},
    "config": {
        "layout": "busi", "source": "${root}/published-${seed}", "output": "${root}/shards-${seed}",
        "image": {"height": 32, "width": 32}, "workers": 1, "samples_per_shard": 4,
    },
}  # fmt: skip
VERIFY = {"stage": "verify", "name": "look", "config": {"folder": "${root}/shards-1"}}


def broken(tmp_path: Path, **changes: Any) -> StudyConfig:
    """A study whose first packing fails."""
    layouts = [{"seed": 0, "layout": "voc2012"}, {"seed": 1, "layout": "busi"}]
    config = {
        **PACK["config"], "layout": "${each.layout}", "source": "${root}/published-${each.seed}",
        "output": "${root}/shards-${each.seed}",
    }  # fmt: skip
    pack = {"stage": "pack", "matrix": {"each": layouts}, "config": config}
    needs = {"stage": "verify", "config": {"folder": "${root}/shards-0"}}
    return StudyConfig(steps=[VERIFY, needs, pack, PHANTOMS], root=str(tmp_path), **changes)


def states(root: Path) -> dict[str, Any]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (root / ".study" / "runs").glob("*/state.json")
    }


def test_a_long_reason_ends_between_words_and_says_that_there_is_more() -> None:
    assert shortened("exit code 1: it is full") == "exit code 1: it is full"
    assert re.fullmatch(r"(word )+…", shortened("word " * 200))
    assert len(shortened("word " * 200)) <= 402


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_run_is_tried_again_and_stops_only_what_needs_it(
    tmp_path: Path, jobs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NaktError) as error:
        study.run(broken(tmp_path, jobs=jobs, retries=2))

    told = str(error.value)
    assert "1 of the study's runs failed, 4 were done now" in told
    assert "shards-0: exit code 1: nakt: error:" in told and "voc2012" in told
    assert "1 not begun, as they need others: verify-2" in told
    found = states(tmp_path)
    assert (found["shards-0"]["status"], found["shards-0"]["attempt"]) == ("failed", 3)
    assert {name for name, state in found.items() if state["status"] == "done"} == {
        "published-0", "published-1", "shards-1", "verify-1",
    }  # fmt: skip
    log = (tmp_path / ".study" / "runs" / "shards-0" / "log.txt").read_text()
    assert log.count("nakt: error:") == 3
    assert "tried again" in capsys.readouterr().err

    mended = StudyConfig(steps=[VERIFY, PACK, PHANTOMS], root=str(tmp_path), jobs=jobs)
    assert study.run(mended).counts["done_now"] == 1


def test_settings_that_are_wrong_are_not_tried_again(tmp_path: Path) -> None:
    step = {**PHANTOMS, "config": {**PHANTOMS["config"], "image_size": 1}}
    with pytest.raises(NaktError, match="image_size"):
        study.run(StudyConfig(steps=[step], root=str(tmp_path), retries=3))
    assert all(state["attempt"] == 1 for state in states(tmp_path).values())


def test_a_run_that_another_process_does_is_waited_for(tmp_path: Path) -> None:
    config = StudyConfig(steps=[PHANTOMS], root=str(tmp_path))
    folder = StudyFolder(tmp_path)
    folder.of_run("published-0").mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        with hold_lock(lock_path(folder, "published-0")):
            time.sleep(1.5)
        os._exit(0)
    time.sleep(0.3)
    started = time.monotonic()
    record = study.run(config)
    os.waitpid(pid, 0)
    assert record.counts["done_now"] == 2
    assert time.monotonic() - started > 0.8


def test_a_run_that_another_process_has_done_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    config = StudyConfig(steps=[PHANTOMS], root=str(tmp_path))
    folder, output = StudyFolder(tmp_path), tmp_path / "published-0"
    (run,) = study.read_study(config).by_name(["published-0"])
    folder.of_run(run.name).mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        with hold_lock(lock_path(folder, run.name)):
            prepare(run, folder, 1, None)
            time.sleep(1.0)
            output.mkdir()
            (output / "manifest.json").write_text("theirs")
        time.sleep(0.5)  # who started it notes its end when it is gone
        folder.end(run.name, "done", 0, None, str(output))
        os._exit(0)
    time.sleep(0.3)
    record = study.run(config)
    os.waitpid(pid, 0)
    assert record.counts["done_now"] == 1
    assert [path.name for path in output.iterdir()] == ["manifest.json"]


def test_gpus_or_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nakt_dist.runtime.children._visible_gpus", lambda: ["0", "1", "2", "3"])
    assert [share.gpus for share in machine_shares(2)] == [("0", "1"), ("2", "3")]
    assert [share.gpus for share in machine_shares(6)][4:] == [("0",), ("1",)]
    monkeypatch.setattr("nakt_dist.runtime.children._visible_gpus", lambda: [])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    assert [share.cores for share in machine_shares(2)] == [(0, 1), (2, 3, 4)]
    assert machine_shares(1)[0].cores == ()


def test_a_run_of_several_processes_gets_as_many_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nakt_dist.runtime.children._visible_gpus", lambda: ["0", "1"])
    config = StudyConfig(steps=[PHANTOMS], root=str(tmp_path))
    runs = LocalRuns(study.read_study(config), StudyFolder(tmp_path), set(), [], 4, main)
    runs._free = [0, 2, 1, 3]
    assert runs._slots(1) == [0] and runs._slots(2) == [0, 1] and runs._slots(3) == [0, 1, 2]
    runs._free = [0, 2]  # both are GPU 0
    assert runs._slots(1) == [0] and runs._slots(2) is None


def test_several_at_a_time_begin_with_the_longest_way_and_one_at_a_time_as_written(
    tmp_path: Path,
) -> None:
    def begins(jobs: int, order: list[dict[str, Any]]) -> str:
        planned = study.read_study(StudyConfig(steps=order, root=str(tmp_path)))
        folder, todo = StudyFolder(tmp_path), list(planned.runs)
        return LocalRuns(planned, folder, set(), todo, jobs, main)._ready()[0].name

    short = {**PHANTOMS, "matrix": {"seed": [2]}}
    steps = [short, PHANTOMS, PACK]
    assert begins(1, steps) == "published-2" and begins(2, steps) == "published-0"
    assert begins(1, [PACK, short, PHANTOMS]) == "published-2"


def test_what_fails_before_its_stage_says_so_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: Any) -> None:
        raise DatasetError("there is no metric")

    monkeypatch.setattr("nakt_dist.studies.one_run.prepare", prepare)
    monkeypatch.setattr(sys, "stdout", None)  # as where a daemon has closed it
    with pytest.raises(NaktError, match="exit code 1: nakt: error: there is no metric"):
        study.run(StudyConfig(steps=[PHANTOMS], root=str(tmp_path), retries=0))
    log = (tmp_path / ".study" / "runs" / "published-0" / "log.txt").read_text()
    assert log == "nakt: error: there is no metric\n"


# ------------------------------------------------------------------- killed and signalled


def whole_study(root: Path, file: Path, steps: int = 30) -> list[str]:
    """Two trainings and their tests behind two packings; returns the words after ``nakt``."""
    train = {
        "stage": "train", "matrix": {"seed": [0, 1]},
        "config": {
            "output": "${root}/run-${seed}", "data": {"dataset": "${root}/shards-${seed}"},
            "model": {"name": "unet", "options": {"base_channels": 4}}, "device": "cpu",
            "recipe": {"steps": steps, "global_batch_size": 4, "learning_rate": 0.001},
            "checkpoint": {"every_steps": 5}, "workers": 0, "threads": 1,
        },
    }  # fmt: skip
    evaluate = {
        "stage": "evaluate", "matrix": {"seed": [0, 1]},
        "config": {
            "weights": "${root}/run-${seed}", "dataset": "${root}/shards-${seed}", "splits": None,
            "output": "${root}/test-${seed}", "device": "cpu", "threads": 1,
            "bootstrap_samples": 100,
        },
    }  # fmt: skip
    file.write_text(yaml.safe_dump({"steps": [evaluate, train, PACK, PHANTOMS]}))
    return ["study", str(file), f"--root={root}", "--jobs=2"]


def results(root: Path) -> dict[str, Any]:
    """What the runs found, without how long it took."""
    found: dict[str, Any] = {
        path: digest
        for path, digest in file_hashes(root).items()
        if "source_times" not in path
        and path.endswith((".tar", ".parquet", "weights_last.safetensors", "metrics.jsonl"))
    }
    for path in root.glob("*/record.json"):
        record = json.loads(path.read_text())
        found[path.parent.name] = [record[part] for part in ("inputs", "counts")]
        found[path.parent.name] += [record["details"].get("lineage")]
    return found


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_killed_at_random_moments_it_redoes_nothing_and_ends_with_the_same(tmp_path: Path) -> None:
    kills = int(os.environ.get("NAKT_TEST_STUDY_KILLS", "3"))
    words = {
        name: whole_study(tmp_path / name, tmp_path / f"{name}.yaml", steps=15)
        for name in ("calm", "killed")
    }

    def started(name: str) -> ForkedLaunch:
        return ForkedLaunch(words[name], 1, tmp_path / f"{name}.log", stop_together=False)

    def found() -> dict[str, Any]:
        return states(tmp_path / "killed")

    source, ends = random.Random(kills), dict[str, float]()
    for _ in range(kills):
        before = found()
        with started("killed") as launch:
            launch.wait_until(lambda before=before: found() != before)
            time.sleep(source.uniform(0.0, 1.5))
            launch.kill(None)
        for name, state in found().items():
            if state["status"] == "done":
                assert ends.setdefault(name, state["ended"]) == state["ended"], name
    for name in ("killed", "calm"):
        with started(name) as launch:
            launch.finish(120)
        launch.check()
    for name, ended in ends.items():
        assert found()[name]["ended"] == ended
    assert results(tmp_path / "killed") == results(tmp_path / "calm")
    assert {state["status"] for state in found().values()} == {"done"}


@pytest.mark.faults
def test_asked_to_leave_it_lets_each_run_save_and_goes_on(tmp_path: Path) -> None:
    root, running = tmp_path / "root", ["run-0", "run-1"]
    words = whole_study(root, tmp_path / "study.yaml", steps=2000)
    with ForkedLaunch(words, 1, tmp_path / "log", stop_together=False) as launch:
        launch.wait_until(lambda: all((root / name / "metrics.jsonl").exists() for name in running))
        time.sleep(0.5)
        (pid,) = launch.members().values()
        os.kill(pid, signal.SIGTERM)
        launch.finish(60)
        assert launch.statuses() == {"rank 0": 75}, launch.printed
    found = states(tmp_path / "root")
    assert {found[name]["status"] for name in running} == {"interrupted"}
    assert all(found[name]["exit_code"] == 75 for name in running)
    assert all(list((tmp_path / "root" / name / "checkpoints").glob("step-*")) for name in running)
