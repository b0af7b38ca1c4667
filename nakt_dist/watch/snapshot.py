"""What is known of a run at one moment, for the page, the table and the monitoring alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

WORDS = (
    "waiting", "ready", "queued", "running", "requeued", "silent", "failed", "blocked", "done",
)  # fmt: skip
"""States in the order in which a run passes through them. ``silent`` is a run that is not done and
whose process is gone, or that no study keeps the state of and that has written nothing for a while.
"""

LIVE = ("running", "requeued", "silent")

THROUGHPUT = "images_per_second"
DATA_WAIT = "data_wait"
STEP_SECONDS = "step_seconds"
GPU_MEMORY = "gpu_memory_bytes"
"""Names in ``pace.jsonl``: images a second of all processes, share of the time from 0 to 1 that
was spent waiting for images, seconds that a step took, and the most bytes that a process held on
its GPU."""


@dataclass(frozen=True)
class RunSnapshot:
    """A run at one moment.

    Attributes:
        id: 12 hexadecimal digits made from where it lies; what requests name it by.
        name: as its study calls it, else its folder below the one that was named.
        place: ``name`` behind the last part of the folder that was named.
        root: the study's root, or the folder that was named.
        folder: its output; None where it has none, or one that is no local folder.
        study: the name of its study, or None.
        step: of the study's file, from 1; 0 without a study.
        group: which runs it belongs with: the study's step, else the stage.
        axes: what tells it from others, in words: the study's axes, and dataset, network, method,
            size and seed as far as they are known.
        own_axes: names of those that its study varies; without a study all of them.
        needs: ids of the runs whose results it reads, or that it looks for.
        status: one of ``WORDS``.
        reason: why, where there is more to say.
        attempt: number of the try, from 1.
        started: seconds since 1970; ``ended`` likewise.
        job: of SLURM, such as ``123_4``.
        processes: that share the work.
        metrics: the last value of each metric that the run logged, and what its record says.
        metric: the one that decides, such as ``validation_auroc``; None where there is none.
        done_steps: of training; ``total_steps`` likewise.
        images_per_second: of all processes; as logged, else from the steps that were seen.
        step_seconds: of one optimiser step, lately.
        data_wait: share of the time, 0 to 1.
        gpu_memory_bytes: most of one process.
        seconds: that it has taken, all launches together, once it has ended; else ``seconds_at``.
        earlier_seconds: that its launches before the last one took.
        expected_end: by the pace that was seen, else by the study's estimate; seconds since 1970.
        estimate_seconds: of the whole run, by the study.
        changed: when it last wrote something; seconds since 1970.
        warnings: what is wrong with it: test images met, damaged lines and files.
        version: the collector's when this was last another; it grows.
    """

    id: str
    name: str
    place: str
    root: Path
    stage: str
    status: str
    folder: Path | None = None
    study: str | None = None
    step: int = 0
    group: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    own_axes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    reason: str | None = None
    attempt: int = 1
    started: float | None = None
    ended: float | None = None
    host: str | None = None
    job: str | None = None
    processes: int = 1
    metrics: Mapping[str, float] = field(default_factory=dict)
    metric: str | None = None
    done_steps: int | None = None
    total_steps: int | None = None
    images_per_second: float | None = None
    step_seconds: float | None = None
    data_wait: float | None = None
    gpu_memory_bytes: float | None = None
    seconds: float | None = None
    earlier_seconds: float = 0.0
    expected_end: float | None = None
    estimate_seconds: float | None = None
    changed: float | None = None
    warnings: tuple[str, ...] = ()
    version: int = 0

    def seconds_at(self, now: float) -> float | None:
        """Returns for how long it has run, of a live one up to ``now`` (seconds since 1970)."""
        if self.seconds is not None or self.started is None:
            return self.seconds
        if self.status not in LIVE:
            return None
        return self.earlier_seconds + max(now - self.started, 0.0)

    def seconds_left_at(self, now: float) -> float | None:
        """Returns how long it will go on; None where nothing tells, or it does not run."""
        if self.status != "running" or self.expected_end is None:
            return None
        return max(self.expected_end - now, 0.0)
