"""A whole study on two nodes of a real SLURM, whose submitting process is gone."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.records.run_record import read_record
from nakt_dist.studies.folder import StudyFolder, statuses
from nakt_dist.studies.queue import read_queue
from nakt_dist.studies.submitted import read_jobs
from tests.launching import NAKT
from tests.recipes import logged_losses
from tests.slurm_jobs import ROOT, call, require_local_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def small_arrays() -> Iterator[None]:
    """Arrays of at most two tasks; setting that takes the rights of whoever set the cluster up."""
    require_local_cluster()
    if os.geteuid() != 0:
        pytest.skip("MaxArraySize of the local SLURM is set by root alone")
    _set_array_size("3")
    yield
    _set_array_size("1001")


def _set_array_size(size: str) -> None:
    subprocess.run(
        ["bash", ROOT / "launch" / "slurm" / "local_cluster.sh", "up"],
        env={**os.environ, "NAKT_MAX_ARRAY_SIZE": size}, check=True, timeout=120,
    )  # fmt: skip


def nakt(*words: str, folder: Path, code: int = 0) -> str:
    ended = subprocess.run(
        [*NAKT, *words], capture_output=True, text=True, timeout=180, cwd=folder
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    return ended.stderr


@contextlib.contextmanager
def submits(folder: Path, *words: str) -> Iterator[StudyFolder]:
    """Submits a study by a process that then is gone; its jobs end when the test leaves."""
    study = StudyFolder(folder / "runs")
    try:
        nakt("submit", "study", "--time=10", *words, "--", "study.yaml", folder=folder)
        yield study
    finally:
        jobs = [line["job"] for line in read_jobs(study)]
        subprocess.run(["scancel", *jobs], capture_output=True, timeout=60)


def words_of(study: StudyFolder) -> dict[str, str]:
    plan = study.read_plan()
    states = {run.name: study.read_state(run.name) for run in plan.runs}
    return {each.run.name: each.word for each in statuses(plan, states, read_queue())}


def wait_until(condition: Callable[[], object], study: StudyFolder, timeout: float = 200) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{words_of(study)} {read_queue()}"
        time.sleep(0.2)


def has_left_the_queue(study: StudyFolder) -> bool:
    queue = read_queue() or {}
    ours = {line["job"] for line in read_jobs(study)}
    return not any(job.partition("_")[0] in ours for job in queue)


def write_study(folder: Path, steps: list[dict[str, Any]]) -> None:
    folder.mkdir()
    text = yaml.safe_dump({"root": "runs", "name": "study", "steps": steps})
    (folder / "study.yaml").write_text(text)


PHANTOMS = {
    "stage": "phantoms",
    "config": {
        "kind": "breast_ultrasound", "output": "${root}/published", "count": 12, "image_size": 32,
    },
}  # fmt: skip
PACK = {
    "stage": "pack",
    "config": {
        "layout": "busi", "source": "${root}/published", "output": "${root}/pack-${seed}",
        "image": {"height": 32, "width": 32}, "seed": "${seed}", "workers": 1,
    },
}  # fmt: skip
TRAIN = {
    "stage": "train", "matrix": {"seed": [0, 1]},
    "config": {
        "output": "${root}/train-${seed}", "data": {"dataset": "${root}/pack-${seed}"},
        "model": {"name": "unet", "options": {"base_channels": 4, "normalisation": "none"}},
        "recipe": {"steps": 80, "global_batch_size": 4}, "checkpoint": {"every_steps": 10},
        "device": "cpu", "threads": 1, "seed": "${seed}",
    },
}  # fmt: skip
EVALUATE = {
    "stage": "evaluate", "matrix": {"seed": [0, 1]},
    "config": {
        "weights": "${root}/train-${seed}", "dataset": "${root}/pack-${seed}",
        "output": "${root}/test-${seed}", "splits": None, "bootstrap_samples": 100,
        "device": "cpu", "threads": 1,
    },
}  # fmt: skip


def test_a_study_gives_what_it_gives_here_though_arrays_are_split_and_tasks_queued_again(
    small_arrays: None, tmp_path: Path
) -> None:
    three = {"matrix": {"seed": [0, 1, 2]}}
    steps = [PHANTOMS, {**PACK, **three}, TRAIN, EVALUATE]
    here, cluster = tmp_path / "here", tmp_path / "cluster"
    for folder in (here, cluster):
        write_study(folder, steps)
    nakt("study", "study.yaml", "--only=test-0", "--with_needs=true", folder=here)

    with submits(cluster) as study:
        arrays = read_jobs(study)
        assert [len(array["tasks"]) for array in arrays] == [1, 2, 1, 2, 2]

        jobs = [f"{arrays[3]['job']}_{task}" for task in (1, 2)]
        ways = (("scancel", "--signal=USR1", jobs[0]), ("scontrol", "requeue", jobs[1]))
        for seed, command in enumerate(ways):
            saved = study.root / f"train-{seed}" / "checkpoints" / "latest"
            wait_until(saved.exists, study)
            call(*command)

        def queued_again() -> bool:
            queue = read_queue() or {}
            return all(queue.get(job, "").startswith("PENDING") for job in jobs)

        wait_until(queued_again, study)
        assert {words_of(study)[f"train-{n}"] for n in (0, 1)} == {"requeued"}
        for job in jobs:  # SLURM lets them wait for two minutes
            call("scontrol", "update", f"JobId={job}", "StartTime=now+3")
        wait_until(lambda: has_left_the_queue(study), study)
        assert set(words_of(study).values()) == {"done"}
        state = study.read_state("train-0")
        assert state is not None
        assert state.job == jobs[0]

    packed = [folder / "runs" / "pack-0" / "manifest.json" for folder in (here, cluster)]
    assert packed[0].read_bytes() == packed[1].read_bytes()
    runs = [folder / "runs" / "train-0" for folder in (here, cluster)]
    assert logged_losses(runs[0]) == logged_losses(runs[1])
    tests = [read_record(folder / "runs" / "test-0" / "record.json") for folder in (here, cluster)]
    assert tests[0].metrics == tests[1].metrics


def test_a_run_that_fails_stops_what_needs_it_and_resume_submits_the_rest(tmp_path: Path) -> None:
    require_local_cluster()
    two = {"matrix": {"seed": [0, 1]}, "retries": 0}
    source = "${root}/../source-${seed}"
    pack = {**PACK, **two, "processes": 2, "config": {**PACK["config"], "source": source}}
    pack["job"] = {"nodes": 2}
    verify = {"stage": "verify", **two, "config": {"folder": "${root}/pack-${seed}"}}
    folder = tmp_path / "study"
    write_study(folder, [pack, verify])
    made = ("--kind=breast_ultrasound", "--count=4", "--image_size=32")
    nakt("phantoms", *made, "--output=source-1", folder=folder)

    with submits(folder) as study:
        told = nakt("submit", "study", "--", "study.yaml", folder=folder, code=1)
        assert "queued or running" in told
        wait_until(lambda: has_left_the_queue(study), study)
        expected = {
            "pack-0": "failed",
            "pack-1": "done",
            "verify-2": "blocked",
            "verify-2-2": "done",
        }
        assert words_of(study) == expected
        state = study.read_state("pack-0")
        assert state is not None
        assert "source-0" in str(state.reason)
        assert "nakt: error" in study.log_path("pack-0").read_text()
        assert "packed" in study.log_path("pack-1").read_text()

        nakt("phantoms", *made, "--output=source-0", folder=folder)
        nakt("submit", "study", "--resume", "--", "study.yaml", folder=folder)
        again = [array["tasks"] for array in read_jobs(study)[2:]]
        assert again == [{"1": ["pack-0"]}, {"1": ["verify-2"]}]
        wait_until(lambda: has_left_the_queue(study), study)
        assert set(words_of(study).values()) == {"done"}
