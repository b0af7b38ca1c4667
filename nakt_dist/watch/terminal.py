"""The table of ``nakt watch --once``."""

import sys
from collections.abc import Iterator, Sequence

from nakt_dist.watch.collector import Collector
from nakt_dist.watch.snapshot import RunSnapshot
from nakt_dist.watch.summary import Summary

_COLOURS = {
    "done": "green", "running": "cyan", "failed": "bold red", "blocked": "red",
    "queued": "yellow", "requeued": "yellow", "silent": "yellow",
}  # fmt: skip
_HEADER = ("Run", "State", "Progress", "Metric", "Images/s", "Time left")
_OPEN = ("running", "requeued", "queued", "silent")
_MOST_ROWS = 40
_LAST_LINES = 5


def print_table(
    collector: Collector, runs: Sequence[RunSnapshot], summary: Summary, now: float, currency: str
) -> None:
    """Prints counts by state, what is running or queued, and what failed with its last lines."""
    print(_headline(collector, runs, summary, currency))
    open_ = [run for run in runs if run.status in _OPEN]
    rows = [_row(run, now) for run in open_[:_MOST_ROWS]]
    if rows:
        print()
        _print_rows(rows)
    if len(open_) > len(rows):
        print(f"… and {len(open_) - len(rows)} more")
    for line in _failures(collector, runs):
        print(line)
    for line in dict.fromkeys(f"{run.place}: {w}" for run in runs for w in run.warnings):
        print(f"warning: {line}")
    sys.stdout.flush()


def _headline(
    collector: Collector, runs: Sequence[RunSnapshot], summary: Summary, currency: str
) -> str:
    names = [plan.name for plan in collector.plans]
    if not names or any(run.study is None for run in runs):
        names = [each.name for each in collector.folders]
    counts = ", ".join(f"{count} {word}" for word, count in summary.counts.items())
    words = [counts or "no runs yet", f"{summary.process_hours:.1f} process hours"]
    if summary.cost is not None:
        words.append(f"{summary.cost:,.2f} {currency}")
    if summary.seconds_left is not None:
        words.append(f"about {duration(summary.seconds_left)} left")
    return f"{', '.join(names)}: {' · '.join(words)}"


def _row(run: RunSnapshot, now: float) -> tuple[str, ...]:
    progress = "" if run.done_steps is None else f"step {run.done_steps:,}"
    if run.done_steps is not None and run.total_steps:
        share = run.done_steps / run.total_steps
        progress = f"{share:.0%} of {run.total_steps:,} steps"
    value = run.metrics.get(run.metric) if run.metric else None
    state = f"{run.status}: {run.reason}" if run.reason else run.status
    left = run.seconds_left_at(now)
    return (
        run.place,
        state,
        progress,
        f"{run.metric} {value:.4g}" if value is not None else "",
        f"{run.images_per_second:.1f}" if run.images_per_second is not None else "",
        duration(left) if left is not None else "",
    )


def _failures(collector: Collector, runs: Sequence[RunSnapshot]) -> Iterator[str]:
    for run in runs:
        if run.status == "failed":
            yield f"\nfailed: {run.place}{f': {run.reason}' if run.reason else ''}"
            yield from (f"    {line}" for line in collector.last_lines(run.id, _LAST_LINES))


def _print_rows(rows: Sequence[tuple[str, ...]]) -> None:
    """Draws in a terminal; elsewhere columns that other programs can cut apart at tabs."""
    if not sys.stdout.isatty():
        print(*("\t".join(row) for row in (_HEADER, *rows)), sep="\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table()
    for name in _HEADER:
        drawn.add_column(name, overflow="fold")
    for row in rows:
        # Text objects, because rich would read [brackets] in a run's name as a command.
        drawn.add_row(*(Text(cell, style=_COLOURS.get(cell.split(":")[0], "")) for cell in row))
    Console().print(drawn)


def duration(seconds: float) -> str:
    """Returns seconds in the two units that matter, such as ``2 h 10 min``."""
    for unit, size, smaller, part in (
        ("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1),
    ):  # fmt: skip
        if seconds >= size and unit == "min" and seconds >= 600:
            return f"{seconds / 60:.0f} min"
        if seconds >= size:
            whole, rest = divmod(round(seconds / part), size // part)
            return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
    return f"{seconds:.0f} s"
