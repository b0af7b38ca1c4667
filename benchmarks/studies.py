"""How long a study takes to open, plan and print, with nothing done and with all done.

    python benchmarks/studies.py [--runs 1000] [--records FOLDER]

Each figure is the wall-clock time of a whole `nakt study FILE --dry_run`, import and all. For
the second, every run gets the folder, the record and the state that it would have left; with
--records the records are padded to the mean size of those below a folder of real runs.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

import yaml

from nakt_dist.config import StudyConfig, as_plain
from nakt_dist.records.run_record import RECORD_NAME, RunRecord
from nakt_dist.stages.study import read_study
from nakt_dist.studies.folder import RunState, StudyFolder
from nakt_dist.studies.plan import settings_sha256

_RECORD_BYTES = 16_000


def study_values(root: Path, runs: int) -> dict[str, object]:
    """Returns a study of half trainings and half evaluations, in four axes."""
    axes = {
        "method": {"transfer": {"teacher": None}, "attention": {"teacher": "${teacher}"}},
        "rate": [1e-3, 5e-4, 1e-4, 5e-5, 1e-5], "size": [100, 200, 400, 800, 1600],
        "seed": list(range(max(runs // 100, 1))),
    }  # fmt: skip
    name = "${method}-${rate}-${size}-${seed}"
    train = {
        "task": "classification", "output": "${root}/runs/" + name,
        "model": {"name": "densenet40", "in_channels": 3}, "teacher": "${method.teacher}",
        "data": {"dataset": "${root}/shards", "count": "${size}"},
        "validation": {"dataset": "${root}/shards"},
        "recipe": {"epochs": 8, "learning_rate": "${rate}"}, "seed": "${seed}",
    }  # fmt: skip
    evaluate = {
        "weights": "${root}/runs/" + name, "dataset": "${root}/shards",
        "output": "${root}/tests/" + name,
    }  # fmt: skip
    return {
        "root": str(root),
        "definitions": {"teacher": {"weights": "teacher", "attention": {"preset": "paper"}}},
        "steps": [
            {"stage": "train", "matrix": axes, "config": train},
            {"stage": "evaluate", "matrix": axes, "config": evaluate},
            {"stage": "report", "config": {"runs": ["${root}"], "output": "${root}/report"}},
        ],
    }


def finish(values: dict[str, object], record_bytes: int) -> None:
    """Writes for every run what it would have left."""
    study = read_study(StudyConfig(**values))  # type: ignore[arg-type]
    folder = StudyFolder(str(values["root"]))
    for number, run in enumerate(study.runs):
        output = Path(str(run.planned.output))
        output.mkdir(parents=True)
        padding = {"padding": "x" * record_bytes}
        record = RunRecord(run.planned.stage, run.name, as_plain(run.config), details=padding)
        record.write(output)
        state = RunState(
            "done", started=10.0 * number, ended=10.0 * number + 5,
            settings=settings_sha256(run.config),
        )  # fmt: skip
        folder.write_state(run.name, state)


def seconds_of_dry_run(file: Path) -> float:
    """Returns the seconds of a whole command."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "nakt_dist", "study", str(file), "--dry_run"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--records", type=Path)
    options = parser.parse_args()
    found = [path.stat().st_size for path in (options.records or Path()).rglob(RECORD_NAME)]
    record_bytes = round(mean(found)) if options.records and found else _RECORD_BYTES
    with tempfile.TemporaryDirectory() as folder:
        values = study_values(Path(folder) / "root", options.runs)
        file = Path(folder) / "study.yaml"
        file.write_text(yaml.safe_dump(values))
        fresh = min(seconds_of_dry_run(file) for _ in range(3))
        finish(values, record_bytes)
        done = min(seconds_of_dry_run(file) for _ in range(3))
    print(f"{options.runs} runs, records of {record_bytes} bytes, fastest of three")
    print(f"nothing done: {fresh:.1f} s")
    print(f"all done:     {done:.1f} s")


if __name__ == "__main__":
    main()
