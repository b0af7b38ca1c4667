"""Runs in trackio, on this machine."""

import importlib
import os
from dataclasses import replace
from typing import Any

from nakt_dist.errors import ConfigurationError
from nakt_dist.mirroring.describing import Table, tables_of
from nakt_dist.mirroring.glance import StudyGlance
from nakt_dist.mirroring.runs import FoundRun
from nakt_dist.mirroring.sent import Sent
from nakt_dist.mirroring.target import Place, results
from nakt_dist.runtime.mirrors import TrackedRun

FOLDER_NAME = "trackio"


class TrackioTarget:
    """One run of trackio for each of ours, in a folder beside the others.

    Raises:
        ConfigurationError: trackio is not installed.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.output / FOLDER_NAME
        os.environ["TRACKIO_DIR"] = str(self._folder)  # read when it is imported
        try:
            self._trackio = importlib.import_module("trackio")
        except ImportError as error:
            raise ConfigurationError(
                f"to is trackio, which is not installed ({error}): pip install 'nakt_dist[trackio]'"
            ) from None

    def send(self, run: FoundRun, sent: Sent) -> Sent:
        """See ``Target``."""
        rows = [row for row in run.history() if row.step > sent.step]
        opened = self._opened(self._place.tracked(run, self._folder), sent)
        for row in rows:
            opened.log(dict(row.values), step=row.step)
        last = rows[-1].step if rows else sent.step
        if run.ended:
            last = max(last, 0)
            tables = {name: self._table(table) for name, table in tables_of(run).items()}
            opened.log({**results(run), **tables}, step=last + 1)
        opened.finish()
        return replace(sent, step=last)

    def send_study(self, study: StudyGlance, sent: Sent) -> Sent:
        """See ``Target``."""
        opened = self._opened(self._place.tracked_study(study, self._folder), sent)
        opened.log({**study.counts, "runs": self._table(study.table)}, step=sent.step + 1)
        opened.finish()
        return replace(sent, step=sent.step + 1)

    def _opened(self, tracked: TrackedRun, sent: Sent) -> Any:
        config = {**tracked.config, "tags": list(tracked.tags), "stage": tracked.stage}
        return self._trackio.init(
            project=tracked.project, name=f"{tracked.name}-{sent.run_id}", group=tracked.group,
            config=config, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def _table(self, table: Table) -> Any:
        rows = [list(row) for row in table.rows]
        return self._trackio.Table(columns=list(table.columns), data=rows)

    def close(self) -> str:
        """See ``Target``."""
        return f"to see them: TRACKIO_DIR={self._folder} trackio show"
