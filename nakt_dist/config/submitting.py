"""Settings of ``submit``."""

import re
from dataclasses import dataclass, field

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited


@dataclass(frozen=True)
class SubmitConfig(Limited):
    """``nakt submit STAGE [settings] -- [the stage's words]``: a stage as a SLURM job.

    Attributes:
        stage: the stage to run.
        words: of its command line, such as ``["--config", "train.yaml"]``.
        nodes: machines.
        tasks_per_node: processes on each; None for one per GPU, or one.
        gpus_per_node: GPUs of each node; None asks for none.
        cpus_per_task: CPU cores of each process, its reading threads included.
        time: after which the job is ended, as sbatch reads it: ``04:00:00``, ``2-12``, or minutes.
        memory: of each node, such as ``64G``.
        partition: where the job may run.
        account: who pays.
        qos: quality of service.
        accelerate_config: file of Accelerate's settings, for DeepSpeed; SLURM's number of
            processes and nodes counts, not the file's.
        activate: shell words that make Python ready on the nodes, such as ``module load cuda``.
        python: the interpreter; None takes the one that runs this, or with ``activate`` the one
            that is then called ``python``.
        master_address: where the processes meet; None for the first node's name.
        warning_seconds: so long before the end the stage is asked to save and leave, to be
            queued again.
        extra: more options of sbatch, such as ``["--constraint=a100"]``.
        folder: for the job file and the log; None for the folder that the stage's output is in,
            of a study for one in its ``.study``.
        runs_per_task: of a study, how many short runs share one job, one after the other.
        jobs: of these, how many at a time; each gets its share of the GPUs or cores.
        array_limit: of a study, how many tasks of an array run at a time; None for all.
        resume: of a study that is queued in part, submit the rest.
        dry_run: print what would be submitted, and submit nothing.
    """

    stage: str
    words: list[str] = field(default_factory=list)
    nodes: int = field(default=1, metadata=limits.POSITIVE)
    tasks_per_node: int | None = field(default=None, metadata=limits.POSITIVE)
    gpus_per_node: int | None = field(default=None, metadata=limits.POSITIVE)
    cpus_per_task: int | None = field(default=None, metadata=limits.POSITIVE)
    time: str | None = None
    memory: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    accelerate_config: str | None = None
    activate: str | None = None
    python: str | None = None
    master_address: str | None = None
    warning_seconds: int = field(default=120, metadata=limits.within(1, 65535, "1 to 65535"))
    extra: list[str] = field(default_factory=list)
    folder: str | None = None
    runs_per_task: int = field(default=1, metadata=limits.POSITIVE)
    jobs: int = field(default=1, metadata=limits.PROCESSES)
    array_limit: int | None = field(default=None, metadata=limits.POSITIVE)
    resume: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in self.extra:
            limits.require(
                option.startswith("--") and option.isprintable(),
                f"extra has {option!r}; each",
                "one option of sbatch on one line, such as --constraint=a100",
            )
        if self.jobs > self.runs_per_task:
            raise ConfigurationError(
                f"jobs is {self.jobs} and runs_per_task {self.runs_per_task}; expected at most as "
                "many runs at a time as a task has. Raise runs_per_task or lower jobs"
            )
        self._check_time()

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or self.gpus_per_node or 1

    def _check_time(self) -> None:
        if self.time is None:
            return
        seconds = time_in_seconds(self.time)
        # SLURM looks at its clock once a minute, and may warn that much earlier.
        least = self.warning_seconds + 60
        if seconds <= least:
            raise ConfigurationError(
                f"time is {self.time}, {seconds} s: the warning {self.warning_seconds} s before "
                f"the end would come at once, again and again. Expected more than {least} s; "
                "raise time or lower warning_seconds"
            )


_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?")


def time_in_seconds(time: str) -> int:
    """Reads a time limit as sbatch does: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        ConfigurationError: it is none of these.
    """
    found = _TIME.fullmatch(time.strip())
    if found is None:
        raise ConfigurationError(
            f"time is {time!r}; expected minutes, hours:minutes:seconds or days-hours, such as "
            "90, 04:00:00 or 2-12"
        )
    parts = [int(found[name]) for name in ("first", "second", "third") if found[name]]
    if found["days"]:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(found["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    hours, minutes, seconds = ([0] if len(parts) < 3 else []) + [*parts, 0][: max(len(parts), 2)]
    return (hours * 60 + minutes) * 60 + seconds
