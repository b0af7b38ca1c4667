"""One run that is followed: which of its files have changed, and what they say together."""

import os
import socket
from pathlib import Path

from nakt_dist.records.run_record import RECORD_NAME
from nakt_dist.runtime.tracking import PACE_NAME
from nakt_dist.studies.folder import PlannedRun, RunState, StudyFolder
from nakt_dist.watch.facts import (
    CONFIG_NAME,
    IDENTITY_NAME,
    MANIFEST_NAME,
    METRICS_NAME,
    Facts,
    read_facts,
)
from nakt_dist.watch.metrics_file import Curve, MetricsFile
from nakt_dist.watch.snapshot import DATA_WAIT, GPU_MEMORY, STEP_SECONDS, THROUGHPUT, RunSnapshot

SILENT_SECONDS = 600.0
"""Without a line, after which nobody can tell whether a run without a study goes on."""

_FACTS = (RECORD_NAME, MANIFEST_NAME, IDENTITY_NAME, CONFIG_NAME)
_HOST = socket.gethostname()
_ENDED = ("done", "failed")
_DECIDING = ("auroc_mean", "dice_mean", "best_auroc", "best_dice")


class FollowedRun:
    """A run and the files that tell of it.

    Args:
        name: as its study or the folder calls it.
        root: the study's root, or the folder that was named.
        folder: its output, or None.
    """

    def __init__(self, id: str, name: str, root: Path, folder: Path | None) -> None:
        self.id, self.name, self.root, self.folder = id, name, root, folder
        self.planned: PlannedRun | None = None
        self.study: str | None = None
        self.state: RunState | None = None
        self.facts = Facts()
        self.metrics = MetricsFile((folder or root / ".none") / METRICS_NAME)
        self.pace = MetricsFile((folder or root / ".none") / PACE_NAME)
        self.word: tuple[str, str | None] = ("ready", None)
        self.needs: tuple[str, ...] = ()
        self.judged: tuple[str, ...] = ()
        self.inherited: dict[str, str] = {}
        self.snapshot: RunSnapshot | None = None
        self.is_read = False
        self.is_stale = True
        self._paths = [f"{folder}/{name}" for name in _FACTS]
        self._seen: list[int] = []
        self._state_seen = -1
        self._state_path = ""

    @property
    def is_settled(self) -> bool:
        """Whether it has ended and all was read, so that it is looked at rarely."""
        ended = self.state is None or self.state.status in _ENDED
        return self.is_read and self.facts.is_done and ended and not self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether it has written more than was read."""
        return self.metrics.is_behind or self.pace.is_behind

    @property
    def curves(self) -> dict[str, Curve]:
        """What it has logged over its steps, and how fast it was."""
        return {**self.metrics.curves, **self.pace.curves}

    def poll_state(self, study: StudyFolder) -> bool:
        """Reads how it stands where that has changed; says whether it has."""
        if not self._state_path:
            self._state_path = str(study.of_run(self.name) / "state.json")
        seen = _changed(self._state_path)
        if seen == self._state_seen:
            return False
        self._state_seen = seen
        self.state = study.read_state(self.name) if seen >= 0 else None
        self.is_stale = True
        return True

    def poll_output(self, whole: bool = True) -> bool:
        """Reads what is new in its output; says whether anything is.

        Args:
            whole: look at all files; else at those alone that change while it runs.
        """
        if self.folder is None:
            self.is_read = True
            return False
        changed = self.metrics.poll()
        if changed or whole or self.pace.is_behind:
            changed |= self.pace.poll()
        looked = self._paths if whole or not self.is_read else self._paths[:1]
        seen = [*map(_changed, looked), *self._seen[len(looked) :]]
        if seen != self._seen or (changed and not self.facts.stage):
            self._seen, self.facts, changed = seen, read_facts(self.folder), True
        self.is_read = True
        return changed

    @property
    def axes(self) -> dict[str, str]:
        """What tells it from others, in words."""
        return {**self.facts.axes, **(self.planned.axes if self.planned else {})}

    @property
    def changed(self) -> float | None:
        """When it last wrote anything that was seen, in seconds since 1970."""
        times = [each / 1e9 for each in self._seen if each >= 0]
        times += [self.metrics.changed] if self.metrics.changed is not None else []
        return max(times, default=None)

    @property
    def is_gone(self) -> bool:
        """Whether its process was one of this machine and has ended without a word."""
        state = self.state
        if state is None or state.status != "running" or state.job or state.pid is None:
            return False
        return state.host == _HOST and not _lives(state.pid)

    def word_alone(self, now: float) -> tuple[str, str | None]:
        """Says how it stands by its output alone, for a run that no study keeps the state of."""
        if self.facts.is_done:
            return "done", None
        if self.changed is None:
            return "ready", None
        quiet = now - self.changed
        if quiet < SILENT_SECONDS:
            return "running", None
        return "silent", "wrote nothing for a while; no study keeps its state"

    def make_snapshot(self, version: int) -> RunSnapshot:
        """Puts together what is known."""
        facts, state, planned = self.facts, self.state or RunState(""), self.planned
        logged, pace = self.metrics.last, self.pace.last
        axes = {**self.inherited, **self.axes}
        values = {name: value for name, value in logged.items() if name != "epoch"}
        return RunSnapshot(
            id=self.id,
            name=self.name,
            place=f"{self.root.name}/{self.name}",
            root=self.root,
            folder=self.folder,
            study=self.study,
            stage=planned.stage if planned else facts.stage,
            step=planned.step if planned else 0,
            group=planned.group if planned else facts.stage,
            axes=axes,
            own_axes=tuple(planned.axes if planned else axes),
            needs=self.needs,
            status=self.word[0],
            reason=self.word[1],
            attempt=state.attempt,
            started=self._started(),
            ended=state.ended if state.ended or not facts.is_done else self.changed,
            host=state.host,
            job=state.job,
            processes=planned.processes if planned else facts.processes,
            metrics={**values, **facts.metrics},
            metric=_deciding({**facts.metrics, **values}),
            done_steps=self.metrics.step,
            total_steps=facts.total_steps,
            images_per_second=self._throughput(),
            step_seconds=pace.get(STEP_SECONDS),
            data_wait=pace.get(DATA_WAIT),
            gpu_memory_bytes=pace.get(GPU_MEMORY),
            seconds=self._seconds(),
            earlier_seconds=state.earlier_seconds,
            expected_end=self._expected_end(),
            estimate_seconds=planned.estimate_seconds if planned else None,
            changed=self.changed,
            warnings=tuple(self._warnings()),
            version=version,
        )

    def _started(self) -> float | None:
        if self.state is not None and self.state.started is not None:
            return self.state.started
        config = self._seen[_FACTS.index(CONFIG_NAME)] if self._seen else -1
        return config / 1e9 if config >= 0 and not self.facts.is_done else None

    def _seconds(self) -> float | None:
        noted = None if self.state is None else self.state.seconds
        return self.facts.seconds if noted is None else noted

    def _pace(self) -> float | None:
        """Returns steps a second: of the last minutes, else since the beginning."""
        pace, started = self.metrics.steps_per_second(), self._started()
        step, changed = self.metrics.step, self.metrics.changed
        if pace is not None or step is None or changed is None or started is None:
            return pace
        earlier = 0.0 if self.state is None else self.state.earlier_seconds
        return step / (earlier + changed - started) if changed > started else None

    def _throughput(self) -> float | None:
        if THROUGHPUT in self.pace.last and not self.facts.is_done:
            return self.pace.last[THROUGHPUT]
        batch, pace = self.facts.batch_size, self._pace()
        if self.facts.is_done:
            steps, seconds = self.metrics.step, self._seconds()
            pace = steps / seconds if steps and seconds else None
        return batch * pace if batch is not None and pace is not None else None

    def _expected_end(self) -> float | None:
        if self.word[0] != "running":
            return None
        total, step, pace = self.facts.total_steps, self.metrics.step, self._pace()
        if total is not None and step is not None and pace and self.metrics.changed:
            return self.metrics.changed + (total - step) / pace
        estimate = self.planned.estimate_seconds if self.planned else None
        started = self._started()
        if estimate is None or started is None:
            return None
        return started + max(estimate - (self.state.earlier_seconds if self.state else 0.0), 0.0)

    def _warnings(self) -> list[str]:
        told = list(self.judged)
        if self.facts.problem:
            told.append(self.facts.problem)
        for name, file in ((METRICS_NAME, self.metrics), (PACE_NAME, self.pace)):
            if file.damaged:
                told.append(f"{name}: {file.damaged} damaged lines were left out")
        return told


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        pass
    return True


def _changed(path: str) -> int:
    """Returns when a file changed last, in nanoseconds; -1 where it is not."""
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - of thousands, each second
    except OSError:
        return -1


def _deciding(values: dict[str, float]) -> str | None:
    """Names the metric that people look at first."""
    validation = (name for name in values if name in ("validation_auroc", "validation_dice"))
    of_record = (name for name in _DECIDING if name in values)
    first = next(of_record, None) if "loss" not in values else None
    return first or next(validation, None) or ("loss" if "loss" in values else None)
