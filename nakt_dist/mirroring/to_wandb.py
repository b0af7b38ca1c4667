"""Runs in W&B, offline or online."""

import contextlib
import shutil
from dataclasses import replace

from nakt_dist.mirroring.describing import (
    histograms_of,
    links_of,
    summary_of_run,
    tables_of,
)
from nakt_dist.mirroring.runs import FoundRun, Row
from nakt_dist.mirroring.sent import Sent
from nakt_dist.mirroring.target import Place
from nakt_dist.runtime.files import remove
from nakt_dist.runtime.mirrors import Ending
from nakt_dist.runtime.wandb_run import FOLDER_NAME, WandbRun, end_wandb, open_wandb

_STAGING = ".staging"


class WandbTarget:
    """One run of W&B for each of ours.

    Offline, a run that has changed is written whole again and replaces what was written before,
    since W&B lets offline folders of one run replace each other when they are synced. Online, the
    server says which step comes next.

    Args:
        place: where to.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.output / FOLDER_NAME
        self._staging = place.output / _STAGING
        remove(self._staging)

    def send(self, run: FoundRun, sent: Sent) -> Sent:
        """See ``Target``."""
        rows = run.history()
        self._staging.mkdir(parents=True, exist_ok=True)
        tracked = self._place.tracked(run, self._staging)
        open_run = open_wandb(tracked, sent.run_id, mirrored=True)
        try:
            _fill(open_run, run, rows)
            told = _tell(open_run, run, sent.told)
        except BaseException:
            with contextlib.suppress(Exception):
                open_run.finish("interrupted")  # else the next run would go on with it
            raise
        open_run.finish(_ending(run))
        if self._place.mode == "offline":
            self._take_place(sent.run_id)
        return replace(sent, step=rows[-1].step if rows else sent.step, told=told)

    def _take_place(self, run_id: str) -> None:
        """Puts the folder just written in the place of earlier ones of the run."""
        earlier = set(self._folder.glob(f"offline-run-*-{run_id}"))
        (written,) = (self._staging / FOLDER_NAME).glob(f"offline-run-*-{run_id}")
        place = self._folder / written.name
        self._folder.mkdir(exist_ok=True)
        remove(place)  # of the same second
        written.rename(place)
        for folder in earlier - {place}:
            remove(folder)

    def close(self) -> str:
        """See ``Target``."""
        end_wandb()
        shutil.rmtree(self._staging, ignore_errors=True)
        if self._place.mode == "online":
            return f"they are in project {self._place.project}"
        return f"to upload them: wandb sync {self._folder}/offline-run-*"


def _fill(open_run: WandbRun, run: FoundRun, rows: list[Row]) -> None:
    """Sends the steps that W&B does not have, and once it has ended what came of the run."""
    for row in rows:
        if row.step >= open_run.first_step:
            open_run.log(row.values, step=row.step)
    if not run.ended:
        return
    open_run.summarise(summary_of_run(run))
    after = max(open_run.first_step, rows[-1].step + 1 if rows else 0)
    for name, table in tables_of(run).items():
        open_run.log_table(name, table.columns, table.rows, after)
    for name, histogram in histograms_of(run).items():
        open_run.log_histogram(name, histogram.counts, histogram.edges, after)
    for link in links_of(run):
        facts = {**link.facts, "sha256": link.sha256}
        open_run.link(link.direction, link.name, link.kind, facts)


def _tell(open_run: WandbRun, run: FoundRun, told: tuple[str, ...]) -> tuple[str, ...]:
    """Alerts people of a run of a study that has failed, once for each try."""
    if run.study is None or run.ended:
        return told
    state = run.state
    if state is None or state.status != "failed":
        return told
    what = f"failed, try {state.attempt}"
    if what in told:
        return told
    # Without the reason, which may name files.
    open_run.alert("Run failed", f"{run.name} of {run.study.plan.name}: {what}")
    return (*told, what)


def _ending(run: FoundRun) -> Ending:
    if run.ended:
        return "done"
    failed = run.state is not None and run.state.status == "failed"
    return "failed" if failed else "interrupted"
