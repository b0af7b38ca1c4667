"""A study as a sweep of W&B: what the agents are given, and what becomes of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.config import StudyConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.stages import study

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
