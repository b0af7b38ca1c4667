"""Runs ways of doing the same thing in turns and compares what they took.

Other programs slow a machine down from minute to minute. Ways therefore run side by side, round by
round; a ratio is formed within a round, and the median and the range over the rounds are told.
"""

import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Way = Callable[[], int]


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        folder: for test data, which the questions of one run share, and for results.
        smoke: as little as shows that a question can be asked; its figures mean nothing.
        gpu: on the GPU, at the papers' sizes.
        rounds: of which medians are taken.
    """

    folder: Path
    smoke: bool = False
    gpu: bool = False
    rounds: int = 5

    def pick(self, full: int, smoke: int) -> int:
        """Returns a size: the full one, or that of a smoke test."""
        return smoke if self.smoke else full


@dataclass(frozen=True)
class Target:
    """What a ratio should be.

    Attributes:
        bound: of the ratio.
        is_least: whether it should be at least that; else at most.
        by: ``wall`` clock or ``cpu`` time.
    """

    bound: float
    is_least: bool
    by: str = "wall"

    def __str__(self) -> str:
        return f"{'>=' if self.is_least else '<='} {self.bound:g}"

    def is_met(self, ratio: float) -> bool:
        """Says whether a ratio is what it should be."""
        return ratio >= self.bound if self.is_least else ratio <= self.bound


def at_least(bound: float, by: str = "wall") -> Target:
    """A ratio of speeds that should be at least so much."""
    return Target(bound, True, by)


def at_most(bound: float, by: str = "wall") -> Target:
    """A ratio that should be at most so much."""
    return Target(bound, False, by)


@dataclass(frozen=True)
class Row:
    """What was measured of one way.

    Attributes:
        way: its name.
        per_second: items a second, median.
        cpu_milliseconds: of processor time for an item, children that ended included, median.
        wall: speed over that of the baseline: median, lowest, highest.
        cpu: the same by processor time.
        target: of the median ratio.
        failed: why it could not run; then nothing else is known.
    """

    way: str
    per_second: float = 0.0
    cpu_milliseconds: float = 0.0
    wall: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cpu: tuple[float, float, float] = (0.0, 0.0, 0.0)
    target: Target | None = None
    failed: str | None = None

    @property
    def judged_ratio(self) -> float:
        """The ratio that the target is about."""
        return (self.cpu if self.target and self.target.by == "cpu" else self.wall)[0]


@dataclass(frozen=True)
class Table:
    """Ways of doing one thing.

    Attributes:
        title: what they do.
        baseline: the way that the others are compared with.
        rows: one a way.
        takes_time: ratios are of times (how many times as long) rather than of speeds.
        note: what a reader must know.
    """

    title: str
    baseline: str
    rows: list[Row] = field(default_factory=list)
    takes_time: bool = False
    note: str = ""

    def markdown(self) -> str:
        """Returns the table for people."""
        what = "time" if self.takes_time else "speed"
        lines = [
            f"**{self.title}** ({what} over that of {self.baseline}; median, lowest to highest)",
            "",
            f"| way | items/s | CPU ms/item | {what}, wall clock | {what}, CPU | target |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            if row.failed is not None:
                lines.append(f"| {row.way} | {row.failed} | | | | |")
                continue
            target = ""
            if row.target is not None:
                missed = "" if row.target.is_met(row.judged_ratio) else ", missed"
                target = f"{row.target} {row.target.by}{missed}"
            lines.append(
                f"| {row.way} | {row.per_second:.4g} | {row.cpu_milliseconds:.3g} "
                f"| {_spread(row.wall)} | {_spread(row.cpu)} | {target} |"
            )
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def in_turns(
    title: str,
    ways: Mapping[str, Way],
    baseline: str,
    scale: Scale,
    targets: Mapping[str, Target] | None = None,
    takes_time: bool = False,
    note: str = "",
) -> Table:
    """Runs all ways in turns, a first time to warm up, and compares them.

    Args:
        ways: each does its work and returns how many items it did.
        baseline: one of them.
        targets: what the ratio of a way should be.
        takes_time: whether ratios are of times rather than of speeds.
        note: below the table.

    Returns:
        A row a way. One that raises is told by its row and does not end the others, unless it is
        the baseline.
    """
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    failed: dict[str, str] = {}
    for number in range(1 if scale.smoke else scale.rounds + 1):
        for way, work in ways.items():
            if way in failed:
                continue
            try:
                run = _once(work)
            except Exception as error:
                if way == baseline:
                    raise
                failed[way] = _reason(error)
                continue
            if number > 0 or scale.smoke:
                runs[way].append(run)
    rows = [
        Row(way, failed=failed[way], target=(targets or {}).get(way))
        if way in failed
        else _row(way, runs[way], runs[baseline], (targets or {}).get(way), takes_time)
        for way in ways
    ]
    return Table(title, baseline, rows, takes_time, note)


def _once(work: Way) -> dict[str, float]:
    gc.collect()
    cpu, begun = _cpu_seconds(), time.perf_counter()
    items = work()
    wall = time.perf_counter() - begun
    return {"wall": wall / items, "cpu": max(_cpu_seconds() - cpu, 1e-9) / items}


def _cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _row(
    way: str,
    runs: list[dict[str, float]],
    base: list[dict[str, float]],
    target: Target | None,
    takes_time: bool,
) -> Row:
    ratios = {}
    for kind in ("wall", "cpu"):
        pairs = zip(runs, base, strict=True)
        values = [run[kind] / other[kind] for run, other in pairs]
        values = values if takes_time else [1 / value for value in values]
        ratios[kind] = (statistics.median(values), min(values), max(values))
    return Row(
        way,
        1 / statistics.median(run["wall"] for run in runs),
        1e3 * statistics.median(run["cpu"] for run in runs),
        ratios["wall"],
        ratios["cpu"],
        target,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _spread(values: tuple[float, float, float]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(*values)


def machine() -> dict[str, Any]:
    """Says on what was measured, without a name or a path of the machine."""
    import platform

    import torch

    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "")
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "load_before": round(os.getloadavg()[0], 2),
    }
