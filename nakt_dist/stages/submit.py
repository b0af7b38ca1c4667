"""``nakt submit``: writes a stage as a SLURM job and submits it, once its settings are right."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nakt_dist.config import StudyConfig, SubmitConfig, TrainConfig, as_plain
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.sampler import Share
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.slurm import job_file, sbatch_command, submit
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.study import check_processes, chosen_runs


def run(config: SubmitConfig) -> RunRecord:
    """Submits a job, or prints it.

    The stage's settings, and all runs of a study, are checked first, so that a typo costs no
    time in the queue.

    Raises:
        ConfigurationError: a setting of the stage or of the job is wrong, several processes are
            asked for where the stage runs as one, or they cannot share its global batch.
        NaktError: there is no sbatch here, or it refuses the job.
    """
    require_one_process("submit")
    stopwatch = Stopwatch()
    path, text = _job(config, plan(config, Opening()))
    command = sbatch_command(path)
    job = None
    if config.dry_run:
        print(f"{text}\n# {path}\n# {shlex.join(command)}")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())
        job = submit(path, f"without a cluster: {_without_cluster(config)}")
        say(f"submit: job {job}; file {path}")
    return RunRecord(
        stage="submit",
        name=path.stem,
        config=as_plain(config),
        counts={"jobs": 0 if config.dry_run else 1},
        details={"job": job, "file": str(path), "command": command},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: SubmitConfig, opening: Opening) -> Any:
    """Checks the settings of the job and of its stage; what the stage reads is not looked at.

    Returns:
        The stage's configuration.
    """
    from nakt_dist.cli import parse_config

    with opening.part("job"):
        if config.stage == "submit":
            raise ConfigurationError("submit cannot submit itself; name the stage to run")
        stage_config = parse_config(config.stage, config.words)
        _check_against_stage(config, stage_config)
        nodes = f"{config.nodes} node{'' if config.nodes == 1 else 's'}"
        tasks = f"{config.tasks} task{'' if config.tasks == 1 else 's'}"
        opening.facts["job"] = f"{config.stage} on {nodes}, {tasks} on each"
        opening.note(
            "only settings were looked at; for data, weights and output ask: "
            f"nakt doctor {shlex.join([config.stage, *config.words])}"
        )
        return stage_config
    raise NotOpened


def _check_against_stage(config: SubmitConfig, stage_config: Any) -> None:
    """Checks what the job is asked to be against what the stage is."""
    processes, parts = config.nodes * config.tasks, [(stage_config, "")]
    if isinstance(stage_config, StudyConfig):
        parts = [(run.config, f"{run.place}: ") for run in chosen_runs(stage_config)]
    check_processes(stage_config, processes)
    for part, place in parts:
        _check_batch(part, processes, place)
    if config.accelerate_config:
        _check_accelerate_config(Path(config.accelerate_config))


def _check_batch(stage_config: Any, processes: int, place: str) -> None:
    if not isinstance(stage_config, TrainConfig):
        return
    recipe = stage_config.recipe
    try:
        Share.of(recipe.global_batch_size, processes, recipe.micro_batch_size)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}{error}") from None


def _check_accelerate_config(path: Path) -> None:
    """Reads the file as each node will."""
    from nakt_dist.runtime.accelerate_environment import launch_environment  # takes seconds

    try:
        launch_environment(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"accelerate_config: {error}") from None


def _job(config: SubmitConfig, stage_config: Any) -> tuple[Path, str]:
    """Returns where the job's file goes, and its text."""
    folder, name = _place(config, stage_config)
    log = str(folder).replace("%", "%%") + "/%x-%j.log"
    options: dict[str, str | int | None] = {
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
    environment = {
        "NAKT_PYTHON": config.python or ("python" if config.activate else sys.executable),
        "NAKT_ACTIVATE": config.activate,
        "NAKT_ACCELERATE_CONFIG": config.accelerate_config,
        "NAKT_MASTER_ADDR": config.master_address,
        "NAKT_JOB_FOLDER": str(folder),
    }
    words = [config.stage, *config.words]
    text = job_file(options, config.extra, environment, words)
    return folder / f"{name}.sbatch", text


def _place(config: SubmitConfig, stage_config: Any) -> tuple[Path, str]:
    """Returns the folder of the job's file and log, and the job's name.

    By default they stand beside the stage's output: what is in it belongs to the stage.
    """
    output = getattr(stage_config, "output", None) or getattr(stage_config, "root", None)
    parts: Sequence[Any] = [config.stage]
    if output is None or "://" in output:
        folder = Path.cwd()
    else:
        folder, parts = Path(output).resolve().parent, [Path(output).resolve().name, *parts]
    if config.folder is not None:
        folder = Path(config.folder).resolve()
    return folder, "-".join(map(str, parts))


def _without_cluster(config: SubmitConfig) -> str:
    """Returns the command that does here what the job would do on one node."""
    words = shlex.join([config.stage, *config.words])
    if config.tasks == 1:
        return f"nakt {words}"
    return f"torchrun --nproc_per_node {config.tasks} -m nakt_dist {words}"
