"""Counts, hours, price and time left of many runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nakt_dist.watch.snapshot import WORDS, RunSnapshot

_TO_COME = ("waiting", "ready", "queued", "requeued")


@dataclass(frozen=True)
class Summary:
    """How a study stands.

    Attributes:
        counts: runs by state, in the order in which a run passes through them.
        process_hours: so far, of all processes; where there are GPUs, each has one.
        cost: of these hours; None without a price.
        seconds_left: as many runs going on at a time as now; None where nothing tells.
        images_per_second: of all running trainings together; None where none tells.
    """

    counts: dict[str, int]
    process_hours: float
    cost: float | None
    seconds_left: float | None
    images_per_second: float | None


def summarise(runs: Sequence[RunSnapshot], now: float, price: float | None = None) -> Summary:
    """Sums up runs.

    Args:
        now: seconds since 1970.
        price: of a process for an hour.
    """
    words = [run.status for run in runs]
    hours = sum((run.seconds_at(now) or 0.0) * run.processes for run in runs) / 3600
    speeds = [run.images_per_second for run in runs if run.status == "running"]
    told = [speed for speed in speeds if speed is not None]
    return Summary(
        counts={word: words.count(word) for word in WORDS if word in words},
        process_hours=hours,
        cost=None if price is None else hours * price,
        seconds_left=_seconds_left(runs, now),
        images_per_second=sum(told) if told else None,
    )


def _seconds_left(runs: Sequence[RunSnapshot], now: float) -> float | None:
    """Divides the work that is left by the runs at work; runs to come take what like ones took."""
    running = [run for run in runs if run.status == "running"]
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    for run in runs:
        if run.status == "done" and run.seconds is not None:
            took[run.stage, run.group].append(run.seconds)

    def expected(run: RunSnapshot) -> float | None:
        alike = took.get((run.stage, run.group))
        return sum(alike) / len(alike) if alike else run.estimate_seconds

    now_on = [_left(run, expected(run), now) for run in running]
    to_come = [expected(run) for run in runs if run.status in _TO_COME]
    known = [each for each in (*now_on, *to_come) if each is not None]
    if not running or not known:
        return None
    longest = max((each for each in now_on if each is not None), default=0.0)
    return max(longest, sum(known) / len(running))


def _left(run: RunSnapshot, expected: float | None, now: float) -> float | None:
    left, seconds = run.seconds_left_at(now), run.seconds_at(now)
    if left is None and expected is not None and seconds is not None:
        return max(expected - seconds, 0.0)
    return left
