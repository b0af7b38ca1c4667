"""Which runs there are, by the plans of studies, and who reads whose output."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import printable
from nakt_dist.studies.folder import Plan, StudyFolder
from nakt_dist.watch.followed_run import FollowedRun


class FollowedStudy:
    """A study's plan, read again when it changes.

    Attributes:
        plan: the last one that could be read; None before.
        problem: why the one that is there now cannot be read, or None.
    """

    def __init__(self, root: Path) -> None:
        self.files = StudyFolder(root)
        self.plan: Plan | None = None
        self.problem: str | None = None
        self._seen = -1

    def poll(self) -> bool:
        """Reads the plan where it has changed; says whether it has."""
        try:
            seen = self.files.plan_path.stat().st_mtime_ns
        except OSError:
            seen = -1
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.plan, self.problem = self.files.read_plan(), None
        except (DatasetError, TypeError, AttributeError) as error:
            self.problem = printable(str(error)) if seen >= 0 else None
        return True


class Readers:
    """Who reads whose output, by the paths in the settings of runs that no plan names."""

    def __init__(self, runs: Iterable[FollowedRun]) -> None:
        self._by_name: dict[str, list[FollowedRun]] = {}
        for run in runs:
            if run.folder is not None:
                self._by_name.setdefault(run.folder.name, []).append(run)

    def needs(self, run: FollowedRun) -> tuple[str, ...]:
        """Returns the ids of the runs whose output a run reads."""
        found = (self._writer(path) for path in run.facts.paths)
        return tuple(dict.fromkeys(each for each in found if each not in (None, run.id)))

    def _writer(self, path: str) -> str | None:
        """Finds the run that wrote a folder, or a file right in it."""
        for each in (path, path.rpartition("/")[0]):
            end = f"/{each.removeprefix('./').strip('/')}"
            for run in self._by_name.get(end.rpartition("/")[2], ()):
                if f"{run.folder}".endswith(end):
                    return run.id
        return None


def run_id(root: Path, name: str) -> str:
    """Returns what requests name a run by: the same for each start of the program."""
    return hashlib.sha1(f"{root}\0{name}".encode(errors="surrogateescape")).hexdigest()[:12]


def folder_of(root: Path, name: str, output: str | None) -> Path | None:
    """Returns where a planned run's output lies: below the root, wherever that is now."""
    if output is None or "://" in output:
        return None
    below = (root / name).resolve()
    return below if below.is_dir() or not Path(output).is_dir() else Path(output).resolve()


def root_of(folder: Path, roots: set[Path]) -> Path | None:
    """Returns the innermost study that a folder lies in."""
    return next((each for each in (folder, *folder.parents) if each in roots), None)
