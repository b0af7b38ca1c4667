"""Writes what an executor of a study and its runs write, so that there is something to watch."""

import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from nakt_dist.records.run_record import RunRecord
from nakt_dist.studies.folder import Plan, PlannedRun, RunState, StudyFolder

SAMPLES, BATCH, EPOCHS = 320, 16, 10
STEPS = SAMPLES // BATCH * EPOCHS


class Executor:
    """Stands in for whoever runs a study: writes its plan, states, logs and outputs."""

    def __init__(self, root: Path, runs: Sequence[PlannedRun], name: str = "table 2") -> None:
        self.files = StudyFolder(root)
        self.runs = {run.name: run for run in runs}
        self.files.write_plan(Plan(name, str(root), tuple(runs)))

    def folder(self, name: str) -> Path:
        return self.files.root / name

    def queue(self, name: str, job: str) -> None:
        self.files.write_state(name, RunState("queued", job=job))

    def start(self, name: str, ago: float = 60.0, job: str | None = None, attempt: int = 1) -> None:
        state = RunState("running", attempt, time.time() - ago, host="node1", pid=1, job=job)
        self.files.write_state(name, state)
        self.print(name, f"nakt {self.runs[name].stage} --output {name}")
        if self.runs[name].stage == "train":
            write_start(self.folder(name), self.runs[name].axes)

    def print(self, name: str, line: str) -> None:
        self.files.of_run(name).mkdir(parents=True, exist_ok=True)
        with self.files.log_path(name).open("a") as stream:
            stream.write(f"{line}\n")

    def learn(self, name: str, steps: int, best: float = 0.8) -> None:
        """Writes what a training logs up to a step, and how fast it is."""
        append(self.folder(name) / "metrics.jsonl", learning_lines(name, steps, best))
        speed = {"images_per_second": 400.0, "data_wait": 0.04, "gpu_memory_bytes": 3 * 2**32}
        append(self.folder(name) / "pace.jsonl", [{"step": steps, **speed}])

    def finish(self, name: str, seconds: float = 60.0, **metrics: float) -> None:
        write_record(
            self.folder(name), self.runs[name].stage, self.runs[name].axes, metrics, seconds
        )
        self.files.end(name, "done", 0)

    def fail(self, name: str, lines: Sequence[str], reason: str = "exit code 1") -> None:
        for line in lines:
            self.print(name, line)
        self.files.end(name, "failed", 1, reason)


def settings(axes: dict[str, str], folder: Path) -> dict:
    """Returns a training's settings, as far as somebody who watches reads them."""
    return {
        "output": str(folder),
        "data": {"dataset": f"shards/{axes.get('dataset', 'chexpert')}", "count": SAMPLES},
        "recipe": {"epochs": EPOCHS, "steps": None, "global_batch_size": BATCH},
        "model": {"name": axes.get("network", "unet")},
        "seed": int(axes.get("seed", 0)),
    }


def write_start(folder: Path, axes: dict[str, str]) -> None:
    """Writes what a training writes before its first step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(axes, folder)))
    trained_on = {"lineage": {"trained_on": {"samples": SAMPLES}}, "settings": {}}
    (folder / "identity.json").write_text(json.dumps(trained_on))


def append(path: Path, lines: Sequence[dict]) -> None:
    """Adds lines of metrics."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write("".join(json.dumps(line) + "\n" for line in lines))


def write_record(
    folder: Path, stage: str, axes: dict[str, str], metrics: dict[str, float], seconds: float
) -> None:
    """Writes what a run writes last."""
    folder.mkdir(parents=True, exist_ok=True)
    details = {"total_steps": STEPS, "steps": STEPS, "processes": 1} if stage == "train" else {}
    RunRecord(
        stage, folder.name, settings(axes, folder), metrics=metrics, details=details,
        seconds=seconds,
    ).write(folder)  # fmt: skip


def learning_lines(seed: str, steps: int, best: float = 0.8, every: int = 4) -> list[dict]:
    """Returns what a training logs up to a step: a loss that falls, a metric that rises."""
    chance = random.Random(seed)
    lines: list[dict] = []
    for step in range(every, steps + 1, every):
        loss = 0.25 + 0.6 * math.exp(-step / 60) + chance.gauss(0, 0.02)
        lines.append({"step": step, "epoch": step // 20, "loss": loss, "cross_entropy": loss})
        if step % 20 == 0:
            value = best - 0.25 * math.exp(-step / 50) + chance.gauss(0, 0.008)
            lines.append({"step": step, "validation_auroc": value, "best_auroc": value})
    return lines
