"""Runs in W&B, offline or online."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import replace

from nakt_dist.mirroring.describing import histograms_of, links_of, summary_of_run, tables_of
from nakt_dist.mirroring.glance import StudyGlance
from nakt_dist.mirroring.runs import FoundRun, Row
from nakt_dist.mirroring.sent import Sent
from nakt_dist.mirroring.target import Place
from nakt_dist.runtime.files import remove
from nakt_dist.runtime.mirrors import Ending, TrackedRun
from nakt_dist.runtime.wandb_run import FOLDER_NAME, WandbRun, end_wandb, open_wandb

_STAGING = ".staging"


class WandbTarget:
    """One run of W&B for each of ours.

    Offline, a run that has changed is written whole again and replaces what was written before,
    since W&B lets offline folders of one run replace each other when they are synced. Online, the
    server says which step comes next.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.output / FOLDER_NAME
        self._staging = place.output / _STAGING
        remove(self._staging)

    def send(self, run: FoundRun, sent: Sent) -> Sent:
        """See ``Target``."""
        rows = run.history()
        with self._opened(self._place.tracked(run, self._staging), sent, _ending(run)) as shown:
            _fill(shown, run, rows)
            told = _tell(shown, _failure(run), sent.told)
        return replace(sent, step=rows[-1].step if rows else sent.step, told=told)

    def send_study(self, study: StudyGlance, sent: Sent) -> Sent:
        """See ``Target``."""
        tracked = self._place.tracked_study(study, self._staging)
        with self._opened(tracked, sent, "done" if study.news else "interrupted") as shown:
            shown.summarise(study.counts)
            shown.log_table("runs", study.table.columns, study.table.rows, shown.first_step)
            told = _tell(shown, study.news, sent.told)
        return replace(sent, told=told)

    @contextlib.contextmanager
    def _opened(self, tracked: TrackedRun, sent: Sent, ending: Ending) -> Iterator[WandbRun]:
        """Opens a run, and ends it; offline it then takes the place of what was written before."""
        self._staging.mkdir(parents=True, exist_ok=True)
        shown = open_wandb(tracked, sent.run_id, mirrored=True)
        try:
            yield shown
        except BaseException:
            with contextlib.suppress(Exception):
                shown.finish("interrupted")  # else the next run would go on with it
            raise
        shown.finish(ending)
        if self._place.mode == "offline":
            self._take_place(sent.run_id)

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


def _fill(shown: WandbRun, run: FoundRun, rows: list[Row]) -> None:
    """Sends the steps that W&B does not have, and once it has ended what came of the run."""
    for row in rows:
        if row.step >= shown.first_step:
            shown.log(row.values, step=row.step)
    if not run.ended:
        return
    shown.summarise(summary_of_run(run))
    after = max(shown.first_step, rows[-1].step + 1 if rows else 0)
    for name, table in tables_of(run).items():
        shown.log_table(name, table.columns, table.rows, after)
    for name, histogram in histograms_of(run).items():
        shown.log_histogram(name, histogram.counts, histogram.edges, after)
    for link in links_of(run):
        facts = {**link.facts, "sha256": link.sha256}
        shown.link(link.direction, link.name, link.kind, facts)


def _tell(shown: WandbRun, news: tuple[str, str] | None, told: tuple[str, ...]) -> tuple[str, ...]:
    """Alerts people of something once; returns all that they were told."""
    if news is None or news[1] in told:
        return told
    shown.alert(*news)
    return (*told, news[1])


def _failure(run: FoundRun) -> tuple[str, str] | None:
    """Says that a run of a study has failed, without the reason, which may name files."""
    if _ending(run) != "failed" or run.study is None or run.state is None:
        return None
    where = f"{run.name} of {run.study.plan.name}"
    return "Run failed", f"{where}: failed, try {run.state.attempt}"


def _ending(run: FoundRun) -> Ending:
    if run.ended:
        return "done"
    failed = run.state is not None and run.state.status == "failed"
    return "failed" if failed else "interrupted"
