"""How the time of recorded steps divides among phases, read from a trace of torch's profiler."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.training.phases import Phase

Event = Mapping[str, Any]
_Interval = tuple[float, float, Phase]

_ORDER = list(Phase)
_NUMBER = {phase: number for number, phase in enumerate(_ORDER)}
_ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")
_LEAVES_GPU_IDLE = (
    Phase.WAITING, Phase.LOGGING, Phase.CHECKPOINT, Phase.VALIDATION, Phase.PEERS,
)  # fmt: skip


@dataclass(frozen=True)
class StepTimes:
    """Where the time of some steps went, on average.

    Attributes:
        seconds: of a step, by phase; together the whole step.
        on_gpu: whether these are a GPU's: what it computed for each phase, and what the process
            did while it had nothing to compute.
    """

    steps: int
    seconds: Mapping[Phase, float]
    on_gpu: bool

    @property
    def step_seconds(self) -> float:
        """Duration of a step."""
        return sum(self.seconds.values())

    def share(self, phase: Phase) -> float:
        """Returns the part of the time, 0 to 1."""
        return self.seconds[phase] / self.step_seconds


@dataclass(frozen=True)
class Operator:
    """What an operator of torch takes by itself, without those it calls.

    Attributes:
        calls: in a step, on average.
        seconds: of a step: of the GPU where there is one, else of the process.
    """

    name: str
    calls: float
    seconds: float


def step_times(events: Sequence[Event], steps: int) -> StepTimes:
    """Divides the time of the first recorded steps; each moment belongs to one phase.

    In a process without a GPU it is the innermost phase that the process is in. With one, it is
    the phase that the GPU computes for; where it computes nothing, what keeps the process from
    launching more, or ``IDLE``.

    Args:
        events: ``traceEvents`` of a trace, with ranges named as in ``Phase``.
        steps: how many, at least 1; the trace holds a ``ProfilerStep`` for each.
    """
    ranges = [each for each in events if each.get("cat") == "user_annotation"]
    marks = sorted(filter(_is_step, ranges), key=lambda mark: mark["ts"])[:steps]
    begin, end = marks[0]["ts"], _end(marks[-1])
    own = [each for each in ranges if each["tid"] == marks[0]["tid"] and each["name"] in _ORDER]
    own.sort(key=lambda each: (each["ts"], -each["dur"]))
    host = [(each["ts"], _end(each), Phase(each["name"])) for each in own]
    device = [each for each in events if each.get("cat") in _ON_GPU]
    if device:
        launched = _Timeline(begin, end, host)
        waits = [each if each[2] in _LEAVES_GPU_IDLE else (*each[:2], Phase.IDLE) for each in host]
        host = waits + _computed(device, _launch_times(events), launched)
    seconds = _Timeline(begin, end, host).seconds() / 1e6 / len(marks)
    return StepTimes(len(marks), dict(zip(_ORDER, seconds.tolist(), strict=True)), bool(device))


def operators(events: Iterable[Event], on_gpu: bool, steps: int) -> list[Operator]:
    """Returns what operators of torch take by themselves, the most expensive first.

    Args:
        events: as for ``step_times``.
        on_gpu: whether a GPU's time is told, and not the process's.
    """
    events = list(events)
    called = [each for each in events if each.get("cat") == "cpu_op"]
    calls = Counter(each["name"] for each in called)
    microseconds = _of_gpu(events, called) if on_gpu else _of_process(called)
    found = [
        Operator(name, calls[name] / steps, time / 1e6 / steps)
        for name, time in microseconds.items()
    ]
    return sorted(found, key=lambda each: each.seconds, reverse=True)


def _of_process(called: Iterable[Event]) -> Mapping[str, float]:
    """Returns the time of each operator less that of those that it calls, by name."""
    taken: Counter[str] = Counter()
    running: list[Event] = []
    for event in sorted(called, key=lambda each: (each["tid"], each["ts"], -each["dur"])):
        while running and not _is_within(event, running[-1]):
            running.pop()
        if running:
            taken[running[-1]["name"]] -= event["dur"]
        taken[event["name"]] += event["dur"]
        running.append(event)
    return taken


def _of_gpu(events: Iterable[Event], called: Iterable[Event]) -> Mapping[str, float]:
    """Returns the time of what each operator has launched itself, by name."""
    names = {each["args"].get("External id"): each["name"] for each in called}
    taken: Counter[str] = Counter()
    for event in events:
        launcher = event.get("args", {}).get("External id")
        if event.get("cat") in _ON_GPU and launcher in names:
            taken[names[launcher]] += event["dur"]
    return taken


class _Timeline:
    """Which phase each moment belongs to: later intervals are painted over earlier ones.

    Args:
        begin: where it begins, in microseconds.
        end: where it ends.
    """

    def __init__(self, begin: float, end: float, intervals: Iterable[_Interval]) -> None:
        known = list(intervals)
        edges = [begin, end, *(edge for each in known for edge in each[:2])]
        self._edges = np.unique(np.clip(edges, begin, end))
        self._phases = np.full(len(self._edges) - 1, _NUMBER[Phase.IDLE])
        for start, stop, phase in known:
            first, last = np.searchsorted(self._edges, np.clip((start, stop), begin, end))
            self._phases[first:last] = _NUMBER[phase]

    def at(self, moment: float) -> Phase:
        """Returns the phase of a moment."""
        place = np.searchsorted(self._edges, moment, side="right") - 1
        return _ORDER[self._phases[np.clip(place, 0, len(self._phases) - 1)]]

    def seconds(self) -> np.ndarray:
        """Returns the microseconds of each phase, float64, in the order of ``Phase``."""
        return np.bincount(self._phases, np.diff(self._edges), len(_ORDER))


def _computed(
    device: Iterable[Event], launches: Mapping[int, float], launched: _Timeline
) -> list[_Interval]:
    """Says what the GPU does when; where it does two things, the last of the list counts."""

    def phase_of(event: Event) -> Phase:
        if event["name"].startswith("nccl"):
            return Phase.PEERS
        if event["cat"] == "gpu_memcpy" and "DtoD" not in event["name"]:
            return Phase.COPY
        return launched.at(launches.get(event["args"].get("correlation"), event["ts"]))

    intervals = [(each["ts"], _end(each), phase_of(each)) for each in device]
    hidden_by_others = (Phase.PEERS, Phase.COPY)
    return sorted(intervals, key=lambda each: each[2] not in hidden_by_others)


def _launch_times(events: Iterable[Event]) -> dict[int, float]:
    """Returns when the process asked for each piece of a GPU's work, by its number."""
    asked = (each for each in events if each.get("cat") in _LAUNCHES)
    return {each["args"]["correlation"]: each["ts"] for each in asked if "args" in each}


def _is_step(event: Event) -> bool:
    return event["name"].startswith("ProfilerStep#")


def _is_within(event: Event, other: Event) -> bool:
    """Whether an event that began later, or at the same time, is part of another."""
    return event["tid"] == other["tid"] and event["ts"] < _end(other)


def _end(event: Event) -> float:
    return event["ts"] + event["dur"]
