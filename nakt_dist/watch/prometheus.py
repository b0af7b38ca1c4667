"""``/metrics``: how all runs stand, for a Prometheus that scrapes ``nakt watch``.

Job id and host are in ``nakt_run_info`` alone: a new job would else begin all series anew.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import read_json
from nakt_dist.runtime.prometheus_text import CONTENT_TYPE, Family, render
from nakt_dist.runtime.work import COUNT_NAME
from nakt_dist.watch.snapshot import LIVE, WORDS, RunSnapshot
from nakt_dist.watch.web import Request, Response

_AXES = ("dataset", "network", "method", "size", "seed")
_RECEIPT = re.compile(r"\d{6}\.json")
_LEDGERS = (".pack", ".teach", ".evaluate", ".predict")
_LATEST = "checkpoints/latest"


def metrics(request: Request) -> Response:
    """``/metrics``: every run below the watched folders, in Prometheus' text format."""
    families = families_of(request.collector.snapshots(), request.collector.unread)
    return Response(render(families), CONTENT_TYPE)


def families_of(runs: list[RunSnapshot], unread: int) -> list[Family]:
    """Returns all metrics of some runs.

    Args:
        unread: how many runs are still to be read to their end.
    """
    unread_runs = Family("nakt_watch_unread_runs", "gauge", "Runs that are still being read")
    unread_runs.add(unread, {})
    return [unread_runs, *_states(runs), *_numbers(runs), *_files(runs)]


def _states(runs: list[RunSnapshot]) -> Iterator[Family]:
    info = Family("nakt_run_info", "gauge", "What a run is, and where it runs; always 1")
    state = Family("nakt_run_state", "gauge", "The state that a run is in; always 1")
    counts = Family("nakt_runs", "gauge", "Runs of a study by state")
    found: Counter[tuple[str, str]] = Counter()
    for run in runs:
        axes = {name: run.axes.get(name, "") for name in _AXES}
        # Not "job": that is what Prometheus calls what it scrapes.
        where = {"job_id": run.job or "", "host": run.host or ""}
        what = {"study": run.study or "", "stage": run.stage, "group": run.group}
        info.add(1, {"run": run.place, **what, **axes, **where})
        state.add(1, {"run": run.place, "state": run.status})
        found[run.study or "", run.status] += 1
    for study in dict.fromkeys(study for study, _ in found):
        for word in WORDS:
            counts.add(found[study, word], {"study": study, "state": word})
    yield from (info, state, counts)


def _numbers(runs: list[RunSnapshot]) -> list[Family]:
    """Returns what snapshots hold as numbers, a family each."""

    def gauge(name: str, help: str) -> Family:
        return Family(f"nakt_run_{name}", "gauge", help)

    step = gauge("step", "Optimiser steps that are done")
    planned = gauge("planned_steps", "Optimiser steps of the whole run")
    speed = gauge("images_per_second", "Images learnt from in a second, all processes together")
    took = gauge("step_seconds", "Time that an optimiser step takes, on average of the last ones")
    wait = gauge("data_wait_ratio", "Share of the time, 0 to 1, that is spent waiting for images")
    memory = gauge("gpu_memory_bytes", "Most GPU memory that one process has held")
    loss = gauge("loss", "Training loss of the last logged step")
    metric = gauge("metric", "Last value of everything else that a run logs or records")
    started = gauge("start_timestamp_seconds", "When the try began")
    ended = gauge("end_timestamp_seconds", "When the try ended")
    expected = gauge("expected_end_timestamp_seconds", "When a running run will be done")
    written = gauge("last_write_timestamp_seconds", "When a run last wrote anything")
    attempts = gauge("attempts", "Number of the try, from 1")
    processes = gauge("processes", "Processes that share the work")
    warnings = gauge("warnings", "Warnings about a run, such as test images met in training")
    for run in runs:
        labels = {"run": run.place}
        step.add(run.done_steps, labels)
        planned.add(run.total_steps, labels)
        took.add(run.step_seconds, labels)
        wait.add(run.data_wait, labels)
        memory.add(run.gpu_memory_bytes, labels)
        loss.add(run.metrics.get("loss"), labels)
        for name, value in run.metrics.items():
            if name != "loss":
                metric.add(value, {**labels, "metric": name})
        started.add(run.started, labels)
        ended.add(run.ended if run.status not in LIVE else None, labels)
        expected.add(run.expected_end, labels)
        speed.add(run.images_per_second, labels)
        written.add(run.changed, labels)
        attempts.add(run.attempt, labels)
        processes.add(run.processes, labels)
        warnings.add(len(run.warnings), labels)
    return [
        step, planned, speed, took, wait, memory, loss, metric, started, ended, expected, written,
        attempts, processes, warnings,
    ]  # fmt: skip


def _files(runs: list[RunSnapshot]) -> list[Family]:
    """Returns what only a look at the folders of runs that go on tells."""
    saved = Family(
        "nakt_run_last_checkpoint_timestamp_seconds", "gauge", "When the last checkpoint was saved"
    )
    pieces = Family("nakt_run_pieces", "gauge", "Pieces that a stage is cut into, by pass")
    pending = Family("nakt_run_pending_pieces", "gauge", "Pieces that are not done yet, by pass")
    for run in runs:
        if run.folder is None or run.status == "done":
            continue
        labels = {"run": run.place}
        with contextlib.suppress(OSError):
            saved.add((run.folder / _LATEST).stat().st_mtime, labels)
        for name, total, done in _ledgers(run.folder):
            pieces.add(total, {**labels, "pass": name})
            pending.add(max(total - done, 0), {**labels, "pass": name})
    return [saved, pieces, pending]


def _ledgers(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Yields each unfinished ledger of an output: its name, its pieces, and how many are done."""
    for stage in _LEDGERS:
        open_ = [folder / stage]
        with contextlib.suppress(OSError):
            open_ += sorted(each for each in open_[0].iterdir() if each.is_dir())
        for ledger in open_:
            try:
                total = read_json(ledger / COUNT_NAME, "count of pieces", 2**10).get("pieces")
                done = sum(bool(_RECEIPT.fullmatch(each.name)) for each in ledger.iterdir())
            except (DatasetError, OSError):  # nothing has begun, or it was finished just now
                continue
            if type(total) is int:
                yield ledger.relative_to(folder).as_posix().lstrip("."), total, done
