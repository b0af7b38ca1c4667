"""Writes a study as sweeps of W&B: agents, wherever they run, then do its trainings."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from nakt_dist.config import TrainConfig, as_plain
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.processes import say
from nakt_dist.studies.plan import Study, StudyRun

METRICS = {"segmentation": "best_dice", "classification": "best_auroc"}


def write_sweeps(study: Study, path: Path) -> list[Path]:
    """Writes a sweep file, and beside it the study as it is now, which the agents read.

    A sweep has one command, one project and one metric, so that trainings that differ in these,
    or in the number of their processes, get files of their own: ``sweep-2.yaml`` and so on.

    Returns:
        The sweep files.

    Raises:
        ConfigurationError: no run is tracked by W&B, or one that would be given to an agent is
            not; or there is a search.
    """
    searches = [run.planned.group for run in study.runs if run.trial is not None]
    if searches:
        raise ConfigurationError(
            f"a sweep of W&B cannot do the step {searches[0]}: its trials are drawn one after the "
            "other, by one process that sees how they end. Run nakt study FILE --jobs N, on a "
            "cluster inside one allocation (salloc or sbatch)"
        )
    tracked = [run for run in study.runs if isinstance(run.config, TrainConfig)]
    unseen = [run.name for run in tracked if run.config.tracking.wandb == "off"]
    if unseen or not tracked:
        what = f"tracking.wandb is off in {unseen[0]}" if unseen else "the study trains nothing"
        raise ConfigurationError(
            f"export: {what}, so that W&B would never hear of what its agents run. Set "
            "tracking.wandb: online in the config of each train step"
        )
    groups: dict[Hashable, list[StudyRun]] = {}
    for run in tracked:
        groups.setdefault(_kind(run), []).append(run)
    frozen = path.with_name(f"{path.stem}.study.yaml").resolve()
    plain = as_plain(replace(study.config, export=None, dry_run=False, only=None))
    _write(frozen, plain)
    files = []
    for number, runs in enumerate(groups.values(), start=1):
        file = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        _write(file, sweep_of(study, runs, frozen))
        files.append(file)
        say(f"{file}: {len(runs)} runs, {_launch_told(runs[0])}. Begin it with: wandb sweep {file}")
    _tell_of_the_rest(study, tracked)
    return files


def sweep_of(study: Study, runs: Sequence[StudyRun], frozen: Path) -> dict[str, Any]:
    """Returns a sweep whose grid is the names of runs that are launched alike.

    Args:
        frozen: the file of the study that the agents read.
    """
    first = runs[0]
    tracking = first.config.tracking
    return {
        "name": study.config.study_name,
        "description": f"{len(runs)} runs of the study {study.config.study_name}",
        "project": tracking.project,
        **({"entity": tracking.entity} if tracking.entity else {}),
        "method": "grid",
        "metric": {"name": METRICS[first.config.task], "goal": "maximize"},
        "parameters": {"only": {"values": [run.name for run in runs]}},
        "command": [
            "${env}", "accelerate", "launch", *_launcher_words(first),
            "-m", "nakt_dist", "study", "--config", str(frozen), "--with_needs=true", "${args}",
        ],
    }  # fmt: skip


def _kind(run: StudyRun) -> Hashable:
    config, launch = run.config, run.launch
    tracking = (config.tracking.project, config.tracking.entity)
    return (launch.processes, launch.accelerate_config, config.task, *tracking)


def _launcher_words(run: StudyRun) -> list[str]:
    launch = run.launch
    words = ["--num_processes", str(launch.processes)]
    if launch.accelerate_config is not None:
        words = ["--config_file", str(Path(launch.accelerate_config).resolve()), *words]
    elif launch.processes > 1:
        words = ["--multi_gpu", *words]  # on CPUs as well; without it there would be one process
    # A free port, for several agents on one machine.
    return [*words, "--main_process_port", "0"] if launch.processes > 1 else words


def _launch_told(run: StudyRun) -> str:
    count = run.launch.processes
    return "one process each" if count == 1 else f"{count} processes each"


def _tell_of_the_rest(study: Study, tracked: Sequence[StudyRun]) -> None:
    names = {run.name for run in tracked}
    rest = [run.planned.stage for run in study.runs if run.name not in names]
    if rest:
        told = ", ".join(f"{rest.count(stage)} {stage}" for stage in dict.fromkeys(rest))
        say(
            f"The other runs are not tracked by W&B ({told}): agents do those that a training "
            "needs, and nakt study does the rest"
        )


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=True).encode())
