"""A study as a sweep of W&B: what the agents are given, and what becomes of it."""

import queue
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb import wandb_agent

from nakt_dist.config import StudyConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.records.run_record import read_record
from nakt_dist.stages import study
from tests.datasets import make_packed_dataset

# What the schema of W&B's package ``sweeps`` (0.3.0) allows, of what stands here; an unknown key
# is refused by the server.
_KEYS = {"name", "description", "project", "entity", "method", "metric", "parameters", "command"}


def train(name: str, **settings: Any) -> dict[str, Any]:
    config = {
        "output": f"${{root}}/{name}", "data": {"dataset": "${data}/squares"},
        "recipe": {"steps": 1, "global_batch_size": 4}, "device": "cpu", "threads": 1,
        "model": {"name": "unet", "options": {"base_channels": 4, "normalisation": "none"}},
        "tracking": {"wandb": "offline", "project": "tables"},
    }  # fmt: skip
    return {"stage": "train", "config": {**config, **settings}}


def exported(folder: Path, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    file = folder / "sweep.yaml"
    settings = {"root": str(folder / "runs"), "data": str(folder), "name": "table"}
    study.run(StudyConfig(steps=steps, export=str(file), **settings))
    files = [file, *folder.glob("sweep-*.yaml")]
    return [yaml.safe_load(path.read_text()) for path in files]


def test_runs_that_are_launched_alike_are_one_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds = {"matrix": {"seed": [0, 1]}}
    evaluate = {"weights": "${root}/student-0", "dataset": "d", "output": "${root}/test"}
    steps = [
        train("teacher"),
        train("student-${seed}", init="${root}/teacher") | seeds | {"processes": 2},
        {"stage": "evaluate", "config": evaluate},
    ]

    alone, together = exported(tmp_path, steps)

    assert alone["parameters"] == {"only": {"values": ["teacher"]}}
    assert together["parameters"] == {"only": {"values": ["student-0", "student-1"]}}
    for sweep in (alone, together):
        assert set(sweep) <= _KEYS
        assert (sweep["method"], sweep["project"], sweep["name"]) == ("grid", "tables", "table")
        assert sweep["metric"] == {"name": "best_dice", "goal": "maximize"}
        assert sweep["command"][:3] == ["${env}", "accelerate", "launch"]
    assert "--multi_gpu --num_processes 2" in " ".join(together["command"])
    told = capsys.readouterr().err
    assert "sweep-2.yaml: 2 runs, 2 processes each" in told and "(1 evaluate)" in told
    assert not (tmp_path / "runs").exists()


def test_what_an_agent_would_run_unseen_is_refused(tmp_path: Path) -> None:
    steps = [train("student", tracking={"wandb": "off"})]
    with pytest.raises(ConfigurationError, match=r"tracking\.wandb is off in student"):
        exported(tmp_path, steps)
    assert not list(tmp_path.iterdir())


def test_processes_of_one_launch_do_not_begin_before_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [train("teacher"), train("student", init="${root}/teacher")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="student needs teacher, which is not done"):
        study.run(StudyConfig(steps=steps, root=str(tmp_path), only="student"))
    assert not (tmp_path / "student").exists()


def test_an_agent_does_the_run_that_it_is_given_under_its_own_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through W&B's own agent: its substitution, its environment and its way to start."""
    make_packed_dataset(tmp_path, images=4, splits={"train": 1.0})
    steps = [train("teacher"), train("student", init="${root}/teacher")]
    (sweep,) = exported(tmp_path, steps)
    for name in ("API_KEY", "MODE", "BASE_URL", "ENTITY"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep7")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "agent"))
    for name in ("RUN_ID", "SWEEP_PARAM_PATH"):  # the agent sets them in this process
        monkeypatch.setenv(f"WANDB_{name}", "")
    agent = wandb_agent.Agent(None, queue.Queue(), sweep_id="team/tables/sweep7")
    agent._sweep_command = sweep["command"]
    assert sweep["parameters"]["only"]["values"] == ["teacher", "student"]

    agent._command_run(
        {"run_id": "agents1", "args": {"only": {"value": "student"}}, "program": None}
    )

    assert agent._run_processes["agents1"].wait(timeout=200) == 0
    runs = tmp_path / "runs"
    assert read_record(runs / "student" / "record.json").stage == "train"
    assert (runs / "student" / "wandb_run_id.txt").read_text().strip() == "agents1"
    teacher = (runs / "teacher" / "wandb_run_id.txt").read_text().strip()
    assert teacher and teacher != "agents1"  # done first, as a run of its own
