"""Submits a study to SLURM: all its runs at once, as job arrays that wait for each other."""

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from nakt_dist.config import SubmitConfig, as_plain
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.files import write_bytes, write_json
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.slurm import highest_task, job_file, release, sbatch_command, submit
from nakt_dist.studies.arrays import JobArray, make_arrays
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.job_settings import StepSettings, job_environment, job_options
from nakt_dist.studies.plan import Study, StudyRun
from nakt_dist.studies.standing import Standing, stand
from nakt_dist.studies.submitted import note_jobs, queued_runs

_SHOWN = 5
_LONGEST_JOB_NAME = 60  # letters of up to four bytes: the log is called after it


@dataclass(frozen=True)
class Submission:
    """What is to be submitted of a study.

    Attributes:
        place: of job files and logs.
        number: of the submission, from 1.
        todo: the runs to submit, each behind those that it waits for.
        queued: jobs of the runs that are in the queue already, by name.
        arrays: each behind those that it waits for.
        settings: of the jobs of each step.
    """

    study: Study
    folder: StudyFolder
    place: Path
    number: int
    todo: Sequence[StudyRun]
    done: int
    queued: Mapping[str, str]
    arrays: Sequence[JobArray]
    settings: StepSettings

    @property
    def frozen(self) -> Path:
        """The study's settings as they are now, which its tasks read."""
        return (self.folder.folder / f"submitted-{self.number}.yaml").resolve()

    def job_path(self, array: JobArray) -> Path:
        """The job file of an array."""
        return self.place / f"job-{self.number}-{array.number}.sbatch"

    def tasks_path(self, array: JobArray) -> Path:
        """The file with the runs of each task of an array."""
        name = f"tasks-{self.number}-{array.runs[0].planned.step}-{array.number}.json"
        return (self.folder.folder / name).resolve()

    def options(self, array: JobArray, jobs: Mapping[int, str]) -> list[str]:
        """Returns the options of sbatch that make an array of a job file.

        Args:
            jobs: ids of the arrays that are submitted already, by their number.
        """
        limit = self.settings.of(array.runs[0]).array_limit
        waits = ",".join(wait.told(jobs) for wait in array.waits)
        return [
            "--hold",  # until all is written down
            f"--array={array.indices}{f'%{limit}' if limit else ''}",
            *([f"--dependency={waits}"] if waits else []),
            *(["--kill-on-invalid-dep=yes"] if array.kills else []),
        ]

    def job_text(self, array: JobArray) -> str:
        """Returns the job file of an array."""
        run = array.runs[0]
        config = self.settings.of(run)
        words = re.sub(r"[^\w.-]+", "-", f"{self.study.config.study_name}-{run.planned.group}")
        words = words[-_LONGEST_JOB_NAME:].lstrip("-")
        log = str(self.place).replace("%", "%%") + "/%x-%A_%a.log"
        environment = job_environment(config, self.place)
        if run.launch.processes > 1:  # one process tries its runs again itself
            environment["NAKT_RETRIES"] = str(run.launch.retries)
        stage = ["study", "--config", str(self.frozen), "--task_file", str(self.tasks_path(array))]
        stage += ["--jobs", str(config.jobs)]
        options = job_options(config, words, log)
        return job_file(options, config.extra, environment, stage, per_task="task")


def plan_submission(study: Study, config: SubmitConfig, settings: StepSettings) -> Submission:
    """Finds what is neither done nor queued, and divides it into arrays; writes nothing.

    Args:
        settings: of the jobs of each step.

    Raises:
        ConfigurationError: a setting of a step's job is wrong, or a run that is named needs one
            that is neither done, queued nor named.
        NaktError: jobs of the study are in the queue, and ``resume`` was not asked for; or the
            queue cannot be read although jobs were submitted.
    """
    folder = StudyFolder(study.config.root)
    standings = stand(study, folder)
    queued = queued_runs(study, folder, standings)
    if queued and not config.resume:
        jobs = sorted({job.partition("_")[0] for job in queued.values()})
        raise NaktError(
            f"{len(queued)} runs of the study are queued or running (jobs {', '.join(jobs)}). "
            "--resume submits the rest, behind them; scancel takes them out of the queue"
        )
    only = study.config.only_names
    chosen = study.runs if only is None else study.by_name(only)
    if study.config.with_needs:
        chosen = study.with_needs(chosen)
    todo = [run for run in chosen if not standings[run.name].done and run.name not in queued]
    for run in todo:
        if run.trial is not None:
            raise ConfigurationError(
                f"{run.place}: a search draws its trials in the one process that does the study, "
                "so that they are no jobs of their own. Do the study in one job, as in: sbatch "
                "--gpus-per-node 4 launch/slurm/job.sbatch study FILE --jobs 4"
            )
    _check_needs(todo, standings, queued)
    for run in study.runs:
        settings.of(run)
    arrays = make_arrays(todo, queued, highest_task(), lambda run: settings.of(run).runs_per_task)
    place = Path(config.folder) if config.folder else folder.folder / "slurm"
    number = 1 + max(
        (int(found[1]) for path in folder.folder.glob("submitted-*.yaml")
         if (found := re.fullmatch(r"submitted-(\d+)\.yaml", path.name))), default=0,
    )  # fmt: skip
    done = sum(standing.done for standing in standings.values())
    return Submission(study, folder, place.resolve(), number, todo, done, queued, arrays, settings)


def _check_needs(
    todo: Sequence[StudyRun], standings: Mapping[str, Standing], queued: Mapping[str, str]
) -> None:
    known = {run.name for run in todo} | set(queued)
    for run in todo:
        for need in run.planned.needs:
            if need not in known and not standings[need].done:
                raise ConfigurationError(
                    f"{run.name} needs {need}, which is neither done nor queued; name it in only, "
                    "too"
                )


def describe(submission: Submission) -> dict[str, str]:
    """Says what would be submitted: of each array its runs, its waits and its command."""
    study, arrays = submission.study, submission.arrays
    lines = {
        f"study {study.config.study_name}": f"{len(submission.todo)} of {len(study.runs)} runs to "
        f"submit as {len(arrays)} arrays ({submission.done} done, {len(submission.queued)} queued)"
    }
    jobs = {array.number: f"JOB{array.number}" for array in arrays}
    for array in arrays:
        config = submission.settings.of(array.runs[0])
        asks = {"nodes": config.nodes, "tasks_per_node": config.tasks, "time": config.time,
                "partition": config.partition, "gpus_per_node": config.gpus_per_node}  # fmt: skip
        told = ", ".join(f"{key} {value}" for key, value in asks.items() if value is not None)
        idle = (config.gpus_per_node or 0) - max(config.tasks, config.jobs)
        told += f", of which {idle} stay idle" if idle > 0 else ""
        command = sbatch_command(submission.job_path(array), submission.options(array, jobs))
        lines[f"array {array.number}"] = (
            f"{array.runs[0].planned.group}, {len(array.runs)} runs in {len(array.tasks)} tasks "
            f"({told}): {shlex.join(command)}"
        )
    return lines


def submit_study(submission: Submission, instead: str) -> dict[int, str]:
    """Submits all arrays, and lets them begin when all of that is written down.

    Args:
        instead: what to do on a machine without sbatch, for the message.

    Returns:
        The ids of the jobs by the number of the array.

    Raises:
        NaktError: there is no sbatch here, it refuses an array, or does not answer. What was
            submitted before is let begin.
    """
    study, folder = submission.study, submission.folder
    folder.folder.mkdir(parents=True, exist_ok=True)
    submission.place.mkdir(parents=True, exist_ok=True)
    folder.write_plan(study.plan)
    frozen = replace(
        study.config, only=None, with_needs=False, dry_run=False, records=[], export=None
    )
    text = yaml.safe_dump(as_plain(frozen), sort_keys=False, allow_unicode=True)
    write_bytes(submission.frozen, text.encode())
    jobs: dict[int, str] = {}
    refused: NaktError | None = None
    for array in submission.arrays:
        try:
            jobs[array.number] = _submit_array(submission, array, jobs, instead)
        except NaktError as error:
            refused = error
            break
        say(
            f"submit: job {jobs[array.number]}, {array.runs[0].planned.group}: {len(array.runs)} "
            f"runs in {len(array.tasks)} tasks"
        )
    before = {job.partition("_")[0] for job in submission.queued.values()}
    # Those of before may be held, where the process that submitted them was killed.
    try:
        if jobs or before:
            release([*sorted(before), *jobs.values()])
    except NaktError as error:
        if refused is None:
            raise
        refused = NaktError(f"{refused}; {error}")
    if refused is not None:
        raise _in_part(submission, jobs, refused)
    return jobs


def _submit_array(
    submission: Submission, array: JobArray, jobs: Mapping[int, str], instead: str
) -> str:
    """Submits one array, held, and notes its job in every run's state."""
    folder = submission.folder
    write_json(submission.tasks_path(array), array.lists)
    path = submission.job_path(array)
    write_bytes(path, submission.job_text(array).encode())
    options = submission.options(array, jobs)
    job = submit(path, instead, options)
    line = {
        "job": job,
        "step": array.runs[0].planned.step,
        "group": array.runs[0].planned.group,
        "tasks": {str(task): names for task, names in array.tasks.items()},
        "dependency": ",".join(wait.told(jobs) for wait in array.waits) or None,
        "study": submission.frozen.name,
        "submitted": time.time(),
    }
    note_jobs(folder, line)
    for task, names in array.tasks.items():
        for name in names:
            folder.note_queued(name, f"{job}_{task}")
    return job


def _in_part(submission: Submission, jobs: Mapping[int, str], error: NaktError) -> NaktError:
    if not jobs:
        return error
    runs = sum(len(array.runs) for array in submission.arrays if array.number in jobs)
    return NaktError(
        f"{error}. {len(jobs)} of {len(submission.arrays)} arrays with {runs} runs are submitted "
        f"(jobs {', '.join(list(jobs.values())[:_SHOWN])}{', …' if len(jobs) > _SHOWN else ''}). "
        "Where it refuses because too many jobs are queued, run the same command with --resume "
        "when some have ended"
    )
