"""``nakt submit``: writes a stage as a SLURM job and submits it, once its settings are right."""

import shlex
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
from nakt_dist.runtime.work import sole_user
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.study import check_processes, check_together, read_study
from nakt_dist.studies.cluster import Submission, describe, plan_submission, submit_study
from nakt_dist.studies.estimates import with_estimates
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.job_settings import StepSettings, job_environment, job_options


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
    stage_config = plan(config, Opening())
    if isinstance(stage_config, Submission):
        return _run_study(config, stage_config, stopwatch)
    path, text = _job(config, stage_config)
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
        The stage's configuration; of a study what is to be submitted.
    """
    from nakt_dist.cli import parse_config

    with opening.part("job"):
        if config.stage == "submit":
            raise ConfigurationError("submit cannot submit itself; name the stage to run")
        stage_config = parse_config(config.stage, config.words)
        if isinstance(stage_config, StudyConfig):
            submission = _plan_study(config, stage_config)
            opening.facts |= describe(submission)
            return submission
        _check_alone(config, stage_config)
        nodes = f"{config.nodes} node{'' if config.nodes == 1 else 's'}"
        tasks = f"{config.tasks} task{'' if config.tasks == 1 else 's'}"
        opening.facts["job"] = f"{config.stage} on {nodes}, {tasks} on each"
        opening.note(
            "only settings were looked at; for data, weights and output ask: "
            f"nakt doctor {shlex.join([config.stage, *config.words])}"
        )
        return stage_config
    raise NotOpened


def _plan_study(config: SubmitConfig, study_config: StudyConfig) -> Submission:
    """Checks the jobs of all runs of a study, and divides those to do into arrays."""
    from nakt_dist.cli import parse_config

    if study_config.task is not None:
        raise ConfigurationError("task is what the jobs of a study do; leave it out to submit them")
    settings = StepSettings(config, lambda values: parse_config("submit", [], values))
    study = read_study(study_config)
    for run in study.runs:
        job = settings.of(run)
        try:
            check_together([run], run.launch.processes)
            _check_batch(run.config, run.launch.processes)
        except ConfigurationError as error:
            raise ConfigurationError(f"{run.place}: {error}") from None
        if job.accelerate_config:
            _check_accelerate_config(Path(job.accelerate_config))
    study = with_estimates(study, StudyFolder(study_config.root), study_config.records)
    return plan_submission(study, config, settings)


def _run_study(config: SubmitConfig, submission: Submission, stopwatch: Stopwatch) -> RunRecord:
    """Submits the arrays of a study, or prints them."""
    jobs: dict[int, str] = {}
    if config.dry_run:
        print("\n".join(f"{name}: {told}" for name, told in describe(submission).items()))
    elif submission.todo or submission.queued:
        folder = submission.folder.folder
        folder.mkdir(parents=True, exist_ok=True)
        with sole_user(folder, "study"):  # others may have submitted since it was looked at
            submission = plan_submission(submission.study, config, submission.settings)
            jobs = submit_study(submission, f"without a cluster: {_without_cluster(config)}")
    if not config.dry_run:
        say(
            f"submit: {len(submission.todo)} runs in {len(jobs)} arrays; {submission.done} were "
            f"done, {len(submission.queued)} queued. Follow them: "
            f"nakt watch {submission.study.config.root}"
        )
    return RunRecord(
        stage="submit",
        name=submission.study.config.study_name,
        config=as_plain(config),
        counts={"jobs": len(jobs), "runs": len(submission.todo) if jobs else 0},
        details={"jobs": {str(number): job for number, job in jobs.items()}},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def _check_alone(config: SubmitConfig, stage_config: Any) -> None:
    """Checks what the job of a single stage is asked to be against what the stage is."""
    for name, usual in (
        ("runs_per_task", 1),
        ("jobs", 1),
        ("array_limit", None),
        ("resume", False),
    ):
        if getattr(config, name) != usual:
            raise ConfigurationError(f"{name} is a setting for a study, and {config.stage} is none")
    processes = config.nodes * config.tasks
    check_processes(stage_config, processes)
    _check_batch(stage_config, processes)
    if config.accelerate_config:
        _check_accelerate_config(Path(config.accelerate_config))


def _check_batch(stage_config: Any, processes: int) -> None:
    if isinstance(stage_config, TrainConfig):
        recipe = stage_config.recipe
        Share.of(recipe.global_batch_size, processes, recipe.micro_batch_size)


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
    options = job_options(config, name, log)
    words = [config.stage, *config.words]
    text = job_file(options, config.extra, job_environment(config, folder), words)
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
