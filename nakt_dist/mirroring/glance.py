"""A study at a glance: how each of its runs stands, and whether it has ended."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nakt_dist.mirroring.describing import Table
from nakt_dist.mirroring.runs import FoundRun
from nakt_dist.runtime.files import value_sha256
from nakt_dist.studies.folder import Plan, RunStatus, StudyFolder, count_words, statuses

_ENDED = {"done", "failed", "blocked"}
_COLUMNS = ("run", "stage", "group", "state", "try", "minutes")


@dataclass(frozen=True)
class StudyGlance:
    """How the runs of a study stand.

    Attributes:
        found: one for each run, in the order of the plan.
    """

    root: Path
    plan: Plan
    found: tuple[RunStatus, ...]

    @property
    def place(self) -> str:
        """What it is kept under among what was sent."""
        return f"study {self.plan.name} in {self.root}"

    @property
    def known_by(self) -> str:
        """A fingerprint that is the same wherever the study is read."""
        return value_sha256(["study", self.plan.name, [run.name for run in self.plan.runs]])

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are ``done``, ``failed`` and so on."""
        return count_words(self.found)

    @property
    def axes(self) -> dict[str, list[str]]:
        """The values of each axis, of which there are several."""
        values: dict[str, set[str]] = {}
        for run in self.plan.runs:
            for axis, value in run.axes.items():
                values.setdefault(axis, set()).add(value)
        return {axis: sorted(found) for axis, found in values.items() if len(found) > 1}

    @property
    def table(self) -> Table:
        """A row for each run: how it stands, without its reason, which may name files."""
        return Table(_COLUMNS, tuple(_row(status) for status in self.found))

    @property
    def news(self) -> tuple[str, str] | None:
        """What to tell people when nothing more will happen: title and text; else None."""
        if set(self.counts) - _ENDED:
            return None
        told = ", ".join(f"{count} {word}" for word, count in self.counts.items())
        whole = set(self.counts) == {"done"}
        title = "Study finished" if whole else "Study ended with runs that failed"
        return title, f"{self.plan.name}: {told}"

    def signature(self) -> str:
        """Returns what changes when there is something new to show."""
        return value_sha256([list(row) for row in self.table.rows])


def glance_at(runs: Iterable[FoundRun]) -> list[StudyGlance]:
    """Returns the studies that some runs belong to, each once."""
    found = {run.study.root: run.study.plan for run in runs if run.study is not None}
    glances = []
    for root, plan in found.items():
        folder = StudyFolder(root)
        states = {run.name: folder.read_state(run.name) for run in plan.runs}
        glances.append(StudyGlance(root, plan, tuple(statuses(plan, states))))
    return glances


def _row(status: RunStatus) -> tuple[str | int | float | None, ...]:
    run, state = status.run, status.state
    minutes, attempt = None, state.attempt if state is not None else None
    if state is not None and state.seconds is not None:
        minutes = round(state.seconds / 60, 1)
    return run.name, run.stage, run.group, status.word, attempt, minutes
