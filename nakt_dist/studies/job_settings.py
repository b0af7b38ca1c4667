"""What jobs ask of a cluster: options of sbatch, and of each step of a study its own settings."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from nakt_dist.config import SubmitConfig, as_plain
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.studies.plan import StudyRun

ReadSettings = Callable[[Mapping[str, Any]], SubmitConfig]
"""Checks nested values as settings of ``submit``."""

_NOT_OF_A_STEP = ("stage", "words", "folder", "resume", "dry_run")


def job_options(config: SubmitConfig, name: str, log: str) -> dict[str, str | int | None]:
    """Returns options of sbatch by name; those that are None are left to the cluster.

    Args:
        log: its path, with sbatch's ``%`` signs.
    """
    return {
        "--job-name": name,
        "--nodes": config.nodes,
        "--ntasks-per-node": config.tasks,
        "--gpus-per-node": config.gpus_per_node,
        "--cpus-per-task": config.cpus_per_task,
        "--time": config.time,
        "--mem": config.memory,
        "--partition": config.partition,
        "--account": config.account,
        "--qos": config.qos,
        "--signal": f"USR1@{config.warning_seconds}",
        "--chdir": str(Path.cwd()),
        "--output": log,
    }


def job_environment(config: SubmitConfig, folder: Path) -> dict[str, str | None]:
    """Returns the settings of ``job.sbatch``.

    Args:
        folder: where its tasks leave word that they are to be queued again.
    """
    return {
        "NAKT_PYTHON": config.python or ("python" if config.activate else sys.executable),
        "NAKT_ACTIVATE": config.activate,
        "NAKT_ACCELERATE_CONFIG": config.accelerate_config,
        "NAKT_MASTER_ADDR": config.master_address,
        "NAKT_JOB_FOLDER": str(folder),
    }


class StepSettings:
    """The settings of the jobs of a study: the command line's, over them those of each step.

    Args:
        config: of the command line.

    Raises:
        ConfigurationError: the command line says how many processes there are, which each step
            says itself.
    """

    def __init__(self, config: SubmitConfig, read: ReadSettings) -> None:
        if config.nodes != 1 or config.tasks_per_node is not None:
            raise ConfigurationError(
                "nodes and tasks_per_node are no settings of a whole study: set processes in the "
                "steps whose runs are shared by several, and nodes in the step's job"
            )
        self._values, self._read = as_plain(config), read
        self._known: dict[int, SubmitConfig] = {}

    def of(self, run: StudyRun) -> SubmitConfig:
        """Returns the settings of the job that does a run.

        Raises:
            ConfigurationError: a setting of its step is wrong, or does not go with its processes.
        """
        step = run.planned.step
        if step not in self._known:
            try:
                self._known[step] = self._of_step(run)
            except ConfigurationError as error:
                raise ConfigurationError(f"{run.place}: job: {error}") from None
        return self._known[step]

    def _of_step(self, run: StudyRun) -> SubmitConfig:
        own, processes = run.launch.job, run.launch.processes
        known = [each.name for each in fields(SubmitConfig) if each.name not in _NOT_OF_A_STEP]
        for key in map(str, own):
            if key not in known:
                raise ConfigurationError(
                    f"there is no '{key}'{nearest_name(key, known)} ({', '.join(known)})"
                )
        config = self._read({**self._values, **own})
        tasks = config.tasks_per_node or min(config.gpus_per_node or processes, processes)
        nodes = config.nodes if "nodes" in own else math.ceil(processes / tasks)
        if "nodes" in own and config.tasks_per_node is None and config.gpus_per_node is None:
            tasks = math.ceil(processes / nodes)
        if nodes * tasks != processes:
            raise ConfigurationError(
                f"processes of the step is {processes}, but {nodes} nodes with {tasks} tasks each "
                f"are {nodes * tasks}"
            )
        config = replace(config, nodes=nodes, tasks_per_node=tasks)
        if processes == 1:
            return replace(config, accelerate_config=None)
        file = run.launch.accelerate_config or config.accelerate_config
        return replace(config, accelerate_config=file, runs_per_task=1, jobs=1)
