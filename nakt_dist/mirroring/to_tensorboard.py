"""Runs in TensorBoard: a folder of event files for each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.errors import ConfigurationError
from nakt_dist.mirroring.describing import Histogram, Table, config_of, histograms_of, tables_of
from nakt_dist.mirroring.glance import StudyGlance
from nakt_dist.mirroring.runs import FoundRun, Row
from nakt_dist.mirroring.sent import Sent
from nakt_dist.mirroring.target import Place, flat, results
from nakt_dist.runtime.files import json_bytes, value_sha256

FOLDER_NAME = "tensorboard"


class TensorBoardTarget:
    """One folder for each run; each sending adds a file with the steps that are new.

    Raises:
        ConfigurationError: TensorBoard is not installed.
    """

    def __init__(self, place: Place) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigurationError(
                f"to is tensorboard, which is not installed ({error}): pip install "
                "'nakt_dist[tensorboard]'"
            ) from None
        self._open: Callable[[str], Any] = SummaryWriter
        self._place = place
        self._folder = place.output / FOLDER_NAME

    def send(self, run: FoundRun, sent: Sent) -> Sent:
        """See ``Target``."""
        history = run.history()
        if sent.history != _fingerprint(history, sent.step):
            sent = replace(sent, step=-1)  # what was sent has been written anew
        rows = [row for row in history if row.step > sent.step]
        tracked = self._place.tracked(run, self._folder)
        # TensorBoard drops what it has from there on, such as that of a mirror that was killed.
        purged = {"purge_step": sent.step + 1}
        with self._open(_after_others(self._folder / run.place), **purged) as writer:
            for row in rows:
                for name, value in row.values.items():
                    writer.add_scalar(name, value, row.step)
            if sent.step < 0:
                about = {"config": tracked.config, "group": tracked.group, "tags": tracked.tags}
                writer.add_text("run", f"```json\n{json_bytes(about).decode()}```", 0)
            last = rows[-1].step if rows else max(sent.step, 0)
            if run.ended:
                self._finish(writer, run, last)
        step = last if rows or run.ended else sent.step
        return replace(sent, step=step, history=_fingerprint(history, step))

    def send_study(self, study: StudyGlance, sent: Sent) -> Sent:
        """See ``Target``."""
        name = f"study {study.plan.name}".replace("/", "-")  # it may hold .., too
        with self._open(_after_others(self._folder / name)) as writer:
            writer.add_text("runs", _markdown(study.table), sent.step + 1)
        return replace(sent, step=sent.step + 1)

    def _finish(self, writer: Any, run: FoundRun, step: int) -> None:
        settings = {**flat(config_of(run)), "stage": run.stage}
        # In the run's own folder; without a name it would be another run of the time of day.
        writer.add_hparams(settings, results(run), run_name=".", global_step=step)
        for name, table in tables_of(run).items():
            writer.add_text(name, _markdown(table), step)
        for name, histogram in histograms_of(run).items():
            _add_histogram(writer, name, histogram, step)

    def close(self) -> str:
        """See ``Target``."""
        return f"to see them: tensorboard --logdir {self._folder}"


def _after_others(folder: Path) -> str:
    """Waits, a second at most, until a new file is read after those that are there.

    TensorBoard reads files by name, which holds whole seconds and then numbers without zeros
    before them: of one second, the tenth file is read before the ninth.
    """
    while any(folder.glob(f"events.out.tfevents.{int(time.time()):010d}.*")):
        time.sleep(0.02)
    return str(folder)


def _fingerprint(history: Sequence[Row], step: int) -> str:
    """Returns the same for the same numbers up to a step; empty where there are none."""
    sent = [[row.step, dict(row.values)] for row in history if row.step <= step]
    return value_sha256(sent) if sent else ""


def _markdown(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    return "\n".join(f"| {' | '.join('' if each is None else str(each) for each in line)} |"
                     for line in lines)  # fmt: skip


def _add_histogram(writer: Any, name: str, histogram: Histogram, step: int) -> None:
    counts, edges = np.array(histogram.counts), np.array(histogram.edges)
    middles = (edges[1:] + edges[:-1]) / 2
    writer.add_histogram_raw(
        name, min=edges[0], max=edges[-1], num=int(counts.sum()), sum=float(counts @ middles),
        sum_squares=float(counts @ middles**2), bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(), global_step=step,
    )  # fmt: skip
