"""A search with real trainings: killed, in two processes, and what its best is used for."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.records.run_record import read_record
from tests.datasets import make_packed_dataset

TRAIN = {
    "output": "${root}/try-${trial}", "data": {"dataset": "${data}/squares", "splits": ["train"]},
    "validation": {"dataset": "${data}/squares", "splits": ["validation"]},
    "model": {"name": "unet", "options": {"base_channels": 4, "normalisation": "none"}},
    "recipe": {"epochs": 2, "global_batch_size": 4, "learning_rate": "${rate}"},
    "device": "cpu", "threads": 1,
}  # fmt: skip
SEARCH = {
    "count": 2, "by": "best_validation_dice", "values": {"rate": {"log_uniform": [1e-4, 1e-1]}},
}  # fmt: skip


def command(folder: Path, **step: Any) -> list[str]:
    """A study's command; it has its folder for data and its outputs."""
    make_packed_dataset(folder)
    steps = [{"stage": "train", "search": SEARCH, "config": TRAIN, **step}]
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"steps": steps}))
    return [sys.executable, "-m", "nakt_dist", "study", str(file), f"--root={folder / 'runs'}",
            f"--data={folder}"]  # fmt: skip


def trial(folder: Path, number: int) -> dict[str, Any]:
    found = json.loads((folder / "runs" / f"try-{number}" / "trial.json").read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.faults
def test_a_search_that_was_killed_goes_on_and_trains_the_best_to_the_end(tmp_path: Path) -> None:
    words = command(tmp_path, search={**SEARCH, "early_stopping": {"from": 1, "factor": 2}})
    begun = tmp_path / "runs" / "try-1" / "trial.json"
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [trial(tmp_path, number)["values"] for number in (0, 1)]
    (tmp_path / "runs" / ".study" / "search-1.journal").unlink()

    told = subprocess.run(words, stderr=subprocess.PIPE, text=True, timeout=150)

    assert told.returncode == 0, told.stderr
    assert [trial(tmp_path, number)["values"] for number in (0, 1)] == before
    assert before[0] != before[1]
    ended = sorted(list(trial(tmp_path, number)["results"]) for number in (0, 1))
    assert ended == [["1"], ["1", "2"]]
    for number in (0, 1):
        record = read_record(tmp_path / "runs" / f"try-{number}" / "record.json")
        assert record.config["recipe"]["learning_rate"] == before[number]["rate"]
        results = trial(tmp_path, number)["results"]
        assert results[str(record.config["recipe"]["epochs"])] == record.metrics[SEARCH["by"]]
    assert "trial=1" in told.stderr and "2 trials, 1 to the end, 0 failed" in told.stderr


@pytest.mark.distributed
def test_two_processes_train_the_one_trial_that_the_study_drew(tmp_path: Path) -> None:
    words = command(tmp_path, search={**SEARCH, "count": 1}, processes=2)
    # Should a rank import Optuna, or a process but the study's, it fails.
    (tmp_path / "optuna.py").write_text(
        "import os\nassert 'RANK' not in os.environ and 'OPTUNA' in os.environ\nimport sys\n"
        f"sys.path.remove({str(tmp_path)!r})\ndel sys.modules['optuna']\nimport optuna\n"
        "sys.modules['optuna'] = optuna\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "OPTUNA": "here"}

    told = subprocess.run(words, env=environment, stderr=subprocess.PIPE, text=True, timeout=200)

    assert told.returncode == 0, told.stderr
    record = read_record(tmp_path / "runs" / "try-0" / "record.json")
    assert record.details["processes"] == 2
    assert record.config["recipe"]["learning_rate"] == trial(tmp_path, 0)["values"]["rate"]
    journal = (tmp_path / "runs" / ".study" / "search-1.journal").read_text()
    assert journal.count('"rate"') == 1
