"""What a study leaves in ``ROOT/.study``: its plan, and of each run its state and its log."""

import contextlib
import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256, read_json, write_json

STUDY_FOLDER = ".study"
_FORMAT = "nakt-study/1"
_MOST_BYTES = 2**28
_STATE = "state.json"
_BEFORE_QUEUED = "state_before_queued.json"
_LONGEST_NAME = 150
_NUMBER = (int, float, type(None))
_LASTING = (".json", ".html", ".safetensors")
_TELLING = ("record.json", "manifest.json")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        name: its output relative to the study's root, such as ``runs/attention-0``; the stage
            and a number where the stage has no output. No two runs have one name.
        step: of the study's file, from 1.
        group: the step, for people; runs of one group differ in their axes alone.
        axes: the values of its axes, in words, by name.
        output: the folder or URL it writes, or None.
        needs: names of the runs whose results it reads: they must be done.
        after: names of the runs that it looks for in a folder: they must have ended, however.
        processes: that share the work.
        estimate_seconds: from records of like runs; None where there are none.
    """

    name: str
    stage: str
    step: int
    group: str
    axes: Mapping[str, str] = field(default_factory=dict)
    output: str | None = None
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    processes: int = 1
    estimate_seconds: float | None = None


@dataclass(frozen=True)
class RunState:
    """How a run stands, written by whoever runs it.

    Attributes:
        status: ``queued``, ``running``, ``interrupted`` (goes on later), ``failed`` or ``done``.
        attempt: number of the try, from 1; a try that was interrupted and goes on is the same.
        started: seconds since 1970 of its last launch; ``ended`` likewise, None while it runs.
        exit_code: of the try; negative for a signal.
        host: where it runs.
        pid: its process there.
        job: of SLURM, such as ``123_4``.
        devices: which GPUs or cores it was given.
        reason: why it failed or waits, in one line.
        settings: SHA-256 of the resolved configuration.
        left: the files, such as its record and its weights, that it left in its output.
        inputs: of each run that it waited for, by name, its ``mark_of`` when this one began.
        earlier_seconds: that launches before took which did not end it, if their end was noted.
    """

    status: str
    attempt: int = 1
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    host: str | None = None
    pid: int | None = None
    job: str | None = None
    devices: str | None = None
    reason: str | None = None
    settings: str | None = None
    left: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    earlier_seconds: float = 0.0

    @property
    def seconds(self) -> float | None:
        """That it has taken, all launches together; None where its last one has not ended."""
        if self.started is None or self.ended is None:
            return None
        return self.earlier_seconds + max(self.ended - self.started, 0.0)

    def seconds_before_next(self, goes_on: bool = False) -> float:
        """Returns the ``earlier_seconds`` of the next launch; ``goes_on``: though it is done."""
        if self.status == "done" and not goes_on:
            return 0.0
        return self.earlier_seconds if self.seconds is None else self.seconds


@dataclass(frozen=True)
class Plan:
    """All runs of a study, each behind those that it needs.

    Attributes:
        root: the folder that holds all outputs.
    """

    name: str
    root: str
    runs: tuple[PlannedRun, ...]


def left_in(output: str) -> set[str]:
    """Returns the names of the files in an output that stay as long as it is of use."""
    with contextlib.suppress(OSError):
        return {path.name for path in Path(output).iterdir() if path.suffix in _LASTING}
    return set()


def mark_of(output: str | None, state: RunState | None) -> str:
    """Returns what tells an output from one that was made again; to be compared for equality alone.

    It is made of the bytes of its record or manifest. Of a stage that leaves neither, of the moment
    when it was done; empty where nothing tells.
    """
    for name in _TELLING if output is not None and "://" not in output else ():
        with contextlib.suppress(OSError):
            return file_sha256(Path(str(output)) / name)[:16]
    return "" if state is None or state.ended is None else str(state.ended)


class StudyFolder:
    """The files of a study.

    Args:
        root: the folder that holds all its outputs.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.folder = self.root / STUDY_FOLDER

    @property
    def plan_path(self) -> Path:
        """The plan; what makes the root that of a study."""
        return self.folder / "plan.json"

    def of_run(self, name: str) -> Path:
        """The folder of a run's state, settings and log; may be absent."""
        slug = name.replace("/", "--")
        if len(slug.encode()) > _LONGEST_NAME or "--" in name:  # that of another, perhaps
            short = slug.encode()[: _LONGEST_NAME - 9].decode(errors="ignore")
            slug = f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        return self.folder / "runs" / slug

    def log_path(self, name: str) -> Path:
        """What a run printed, all its tries one after the other."""
        return self.of_run(name) / "log.txt"

    def write_plan(self, plan: Plan) -> None:
        """Writes the plan, which replaces an earlier one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, {"format": _FORMAT, **asdict(plan)})

    def read_plan(self) -> Plan:
        """Reads the plan.

        Raises:
            DatasetError: it is absent, damaged, or of another format.
        """
        value = read_json(self.plan_path, "plan of a study", _MOST_BYTES)
        if value.pop("format", None) != _FORMAT:
            raise DatasetError(f"{self.plan_path}: not a plan of format {_FORMAT}")
        try:
            runs = tuple(
                PlannedRun(**{**run, "needs": tuple(run["needs"]), "after": tuple(run["after"])})
                for run in value.pop("runs")
            )
            plan = Plan(**value, runs=runs)
            names = [text for run in runs for text in (run.name, run.stage, run.group)]
            if not all(isinstance(text, str) for text in (plan.name, plan.root, *names)):
                raise TypeError("a name is no text")
            if not all(isinstance(run.axes, Mapping) for run in runs):
                raise TypeError("axes are no object")
            return plan
        except (TypeError, KeyError) as error:
            raise DatasetError(f"{self.plan_path}: not a plan of a study: {error}") from None

    def read_state(self, name: str) -> RunState | None:
        """Returns how a run stands; None where nobody has begun it, or the file is damaged."""
        with contextlib.suppress(DatasetError, TypeError):
            value = read_json(self.of_run(name) / _STATE, "state", 2**24)
            known = {each.name for each in fields(RunState)}
            state = RunState(**{key: value[key] for key in known & set(value)})
            times = (state.started, state.ended, state.attempt)
            valid = all(isinstance(each, _NUMBER) for each in times)
            valid &= isinstance(state.earlier_seconds, int | float)
            if isinstance(state.status, str) and valid:
                inputs = {str(run): str(mark) for run, mark in dict(state.inputs).items()}
                return replace(state, left=tuple(map(str, state.left)), inputs=inputs)
        return None

    def write_state(self, name: str, state: RunState) -> None:
        """Writes how a run stands, atomically."""
        folder = self.of_run(name)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / _STATE, asdict(state))

    def end(
        self,
        name: str,
        status: str,
        exit_code: int,
        reason: str | None = None,
        output: str | None = None,
    ) -> RunState:
        """Notes how a run's try has ended, and what is left in its output; returns its state."""
        state = self.read_state(name) or RunState("running")
        ended = replace(
            state,
            status=status,
            exit_code=exit_code,
            reason=reason,
            ended=time.time(),
            pid=None,
            left=tuple(sorted(left_in(output))) if output and status == "done" else (),
        )
        self.write_state(name, ended)
        return ended

    def note_queued(self, name: str, job: str) -> None:
        """Notes that a job is to do a run, and keeps how it stood before."""
        before, kept = self.read_state(name), self.of_run(name) / _BEFORE_QUEUED
        earlier = 0.0 if before is None else before.seconds_before_next()
        if before is None:
            kept.unlink(missing_ok=True)
        elif before.status != "queued":
            write_json(kept, asdict(before))
        self.write_state(name, RunState("queued", job=job, earlier_seconds=earlier))

    def forget_queued(self, name: str) -> None:
        """Takes back that a run is queued: its job has ended without beginning it.

        It stands as before: what there is of it was made of what it needed then.
        """
        state, place = self.read_state(name), self.of_run(name)
        if state is None or state.status != "queued":
            return
        try:
            (place / _BEFORE_QUEUED).replace(place / _STATE)
        except FileNotFoundError:
            (place / _STATE).unlink(missing_ok=True)

    def last_lines(self, name: str, count: int = 20, start: int = 0) -> list[str]:
        """Returns the last lines that a run printed; none where it has not begun.

        Args:
            start: of the bytes of its log that count, such as where its last try begins.
        """
        try:
            with self.log_path(name).open("rb") as stream:
                stream.seek(0, 2)
                stream.seek(max(stream.tell() - 65536, start))
                text = stream.read().decode("utf-8", errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]


@dataclass(frozen=True)
class RunStatus:
    """A run and how it stands, in one word for people.

    Attributes:
        word: ``waiting`` (for what it needs), ``ready``, ``queued``, ``running``, ``requeued``
            (was interrupted and goes on), ``failed``, ``blocked`` (what it needs has failed) or
            ``done``.
        reason: why, where there is more to say.
    """

    run: PlannedRun
    state: RunState | None
    word: str
    reason: str | None = None


def statuses(
    plan: Plan, states: Mapping[str, RunState | None], queue: Mapping[str, str] | None = None
) -> list[RunStatus]:
    """Says how each run of a plan stands.

    Args:
        queue: SLURM's state and reason by job, such as ``{"123_4": "PENDING (Priority)"}``; None
            where it cannot be asked. A job that is queued or running by its own word and in no
            queue has been lost.

    Returns:
        One for each run, in the order of the plan.
    """
    found: dict[str, RunStatus] = {}
    for run in plan.runs:
        state = states.get(run.name)
        before = {name: found[name].word for name in (*run.needs, *run.after) if name in found}
        found[run.name] = RunStatus(run, state, *_word(run, state, before, queue))
    return list(found.values())


_LIVE = ("running", "queued", "interrupted")


def _word(
    run: PlannedRun,
    state: RunState | None,
    before: Mapping[str, str],
    queue: Mapping[str, str] | None,
) -> tuple[str, str | None]:
    """Returns the word and the reason of one run, by the words of those before it."""
    if state is not None and state.status in ("done", "failed"):
        return state.status, state.reason
    lost = [name for name in run.needs if before.get(name) in ("failed", "blocked")]
    if state is not None and state.status in _LIVE:
        if state.job is None or queue is None:
            return ("requeued" if state.status == "interrupted" else state.status), state.reason
        if state.job in queue:
            return _word_of_job(queue[state.job], state), queue[state.job]
        if state.status != "queued" or not lost:  # else SLURM took it out for what it needs
            return "failed", f"job {state.job} is gone from the queue without a word"
    if lost:
        return "blocked", f"{lost[0]} {before[lost[0]]}"
    ended = ("done", "failed", "blocked")
    open_ = [name for name, word in before.items() if word not in ended]
    return ("waiting", f"for {open_[0]}") if open_ else ("ready", None)


def _word_of_job(told: str, state: RunState) -> str:
    if told.startswith("RUNNING") and state.status != "queued":  # else it does others first
        return "running"
    return "requeued" if state.started is not None else "queued"


def count_words(found: Iterable[RunStatus]) -> dict[str, int]:
    """Counts runs by their word, in the order in which a run passes through them."""
    order = ("waiting", "ready", "queued", "running", "requeued", "failed", "blocked", "done")
    words = [status.word for status in found]
    return {word: words.count(word) for word in order if word in words}
