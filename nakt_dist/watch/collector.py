"""Follows all runs below some folders: sparse looks, new bytes only, and who has changed since."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import printable
from nakt_dist.studies.folder import Plan, RunState, StudyFolder, statuses
from nakt_dist.watch.facts import read_settings
from nakt_dist.watch.followed_run import FollowedRun
from nakt_dist.watch.judging import Judge
from nakt_dist.watch.relations import FollowedStudy, Readers, folder_of, root_of, run_id
from nakt_dist.watch.scanning import FolderScan
from nakt_dist.watch.snapshot import RunSnapshot

SCAN_SECONDS = 5.0
_BUDGET_SECONDS = 0.4
"""Of reading in one look, after which what was read so far is shown."""

_GONE = ("silent", "its process is gone; start the study again to go on")

Queue = Callable[[], Mapping[str, str] | None]


class Collector:
    """What is known of all runs below some folders; may be asked from several threads.

    Args:
        folders: that hold runs, at any depth; roots of studies among them, or below.
        queue: what SLURM says of jobs, as ``studies.queue.SlurmQueue.jobs`` does; must not block.

    Raises:
        DatasetError: a folder does not exist.

    Attributes:
        epoch: differs between collectors, so that a page knows when the program began anew.
        version: grows with each change.
        judge: what it says of comparing runs and of test images that were met.
    """

    def __init__(self, folders: Sequence[str | Path], queue: Queue = lambda: None) -> None:
        self.folders = [Path(folder).resolve() for folder in folders]
        for named, folder in zip(folders, self.folders, strict=True):
            if not folder.is_dir():
                raise DatasetError(f"{named}: no such folder; expected one that holds runs")
        self.epoch = f"{time.time_ns():x}"
        self.version = 0
        self._queue = queue
        self._queued: Mapping[str, str] | None = None
        self._scans = {folder: FolderScan(folder) for folder in dict.fromkeys(self.folders)}
        self._studies: dict[Path, FollowedStudy] = {}
        self._runs: dict[str, FollowedRun] = {}
        self._removed: dict[str, int] = {}
        self._next_scan = 0.0
        self._below: list[tuple[list[Path], list[Path]]] = []
        self._are_related = False
        self.judge = Judge(self.folders)
        self._judged = 0
        self._changed = threading.Condition()
        self._refreshing = threading.Lock()

    # --- what is asked ---------------------------------------------------------------------

    def snapshots(self, since: int = 0) -> list[RunSnapshot]:
        """Returns the runs that changed after a version, by study, step and name."""
        with self._changed:
            found = [run.snapshot for run in self._runs.values() if run.snapshot is not None]
        changed = (each for each in found if each.version > since)
        return sorted(changed, key=lambda each: (str(each.root), each.step, each.name))

    def removed(self, since: int) -> list[str]:
        """Returns the ids of runs that went after a version."""
        with self._changed:
            return [id for id, version in self._removed.items() if version > since]

    def get(self, id: str) -> RunSnapshot | None:
        """Returns a run by its id; None where there is none."""
        run = self._runs.get(id)
        return run.snapshot if run is not None else None

    def curves(self, id: str) -> dict[str, tuple[list[float], list[float]]]:
        """Returns steps and values of each metric of a run; none of an unknown one."""
        with self._changed:
            run = self._runs.get(id)
            curves = run.curves if run is not None else {}
            return {name: curve.points() for name, curve in curves.items()}

    def settings(self, id: str) -> dict:
        """Returns what a run was started with, nested; empty where no file tells."""
        run = self._runs.get(id)
        return read_settings(run.folder) if run is not None and run.folder is not None else {}

    def last_lines(self, id: str, count: int = 20) -> list[str]:
        """Returns the last lines that a run of a study printed."""
        run = self._runs.get(id)
        if run is None or run.planned is None:
            return []
        lines = StudyFolder(run.root).last_lines(run.name, count)
        return [printable(line)[:2000] for line in lines]

    @property
    def plans(self) -> list[Plan]:
        """The plans of the studies that were found."""
        return [study.plan for study in self._studies.values() if study.plan is not None]

    @property
    def problems(self) -> list[str]:
        """Plans that could not be read."""
        return [study.problem for study in self._studies.values() if study.problem is not None]

    @property
    def unread(self) -> int:
        """How many runs are still to be read, or read to their end."""
        return sum(not run.is_read or run.is_behind for run in self._runs.values())

    def wait(self, version: int, seconds: float) -> int:
        """Waits until there is something newer than a version; returns the version then."""
        with self._changed:
            self._changed.wait_for(lambda: self.version > version, seconds)
            return self.version

    # --- following -------------------------------------------------------------------------

    def follow(self, refresh_seconds: float, stop: threading.Event) -> None:
        """Looks again and again until ``stop`` is set."""
        while not stop.is_set():
            self.refresh()
            stop.wait(0.01 if self.unread else refresh_seconds)

    def refresh(self, whole: bool = False) -> None:
        """Looks once at what may have changed.

        Args:
            whole: read on until nothing is left to be read; else some tenths of a second.
        """
        with self._refreshing:
            now = time.time()
            scanned = time.monotonic() >= self._next_scan
            plans = [study.poll() for study in self._studies.values()]
            changed = any(plans)
            if scanned or changed:
                changed = self._scan(changed) or changed
            states = self._poll_states()
            changed = self._poll_outputs(scanned, whole) or states or changed
            if changed or (scanned and self._is_silent_now(now)):
                self._settle(now)
            if scanned and not self.unread and self._ask_judge():
                self._settle(now)

    def _scan(self, anew: bool) -> bool:
        """Finds runs that came or went; says whether any did."""
        self._next_scan = time.monotonic() + SCAN_SECONDS
        below = [scan.find() for scan in self._scans.values()]
        same = (now is old for now, old in zip(below, self._below, strict=False))
        if self._below and not anew and all(same):
            return False
        self._below = below
        found: dict[str, tuple[str, Path, Path | None]] = {}
        places: set[Path] = set()
        runs_below, roots = self._find()
        for root in [each for each in self._studies if each not in roots]:
            del self._studies[root]
        for root in roots:
            study = self._studies.setdefault(root, FollowedStudy(root))
            study.poll()
            for planned in study.plan.runs if study.plan else ():
                folder = folder_of(root, planned.name, planned.output)
                found[run_id(root, planned.name)] = (planned.name, root, folder)
                places |= {folder} if folder is not None else set()
        for base, folder in runs_below:
            if folder not in places:
                places.add(folder)
                name = printable(str(folder.relative_to(base))) if folder != base else base.name
                found[run_id(base, name)] = (name, base, folder)
        with self._changed:
            gone = self._runs.keys() - found.keys()
            for id in gone:
                del self._runs[id]
            self._removed.update(dict.fromkeys(gone, self.version + 1))
            for id, (name, root, folder) in found.items():
                known = self._runs.get(id)
                if known is None or known.folder != folder:
                    self._runs[id] = FollowedRun(id, name, root, folder)
                    self._removed.pop(id, None)
            self.version += bool(gone)
        self._adopt_plans()
        self._are_related = False
        return True

    def _find(self) -> tuple[list[tuple[Path, Path]], set[Path]]:
        """Returns runs, each with the study or the named folder that it lies in, and roots."""
        folders: list[tuple[Path, Path]] = []
        roots: set[Path] = set()
        for base, (runs, studies) in zip(self._scans, self._below, strict=True):
            roots |= set(studies)
            folders += [(base, folder) for folder in runs]
        if roots:
            folders = [(root_of(folder, roots) or base, folder) for base, folder in folders]
        return folders, roots

    def _adopt_plans(self) -> None:
        for run in self._runs.values():
            run.is_stale = run.is_stale or run.planned is None
            run.planned, run.study = None, None
        for root, study in self._studies.items():
            for planned in study.plan.runs if study.plan else ():
                run = self._runs[run_id(root, planned.name)]
                run.planned, run.study = planned, printable(study.plan.name) if study.plan else None
                before = dict.fromkeys((*planned.needs, *planned.after))
                run.needs = tuple(run_id(root, name) for name in before)

    def _poll_states(self) -> bool:
        changed = [
            run.poll_state(self._studies[run.root].files)
            for run in self._runs.values()
            if run.planned is not None
        ]
        if any(run.state is not None and run.state.job for run in self._runs.values()):
            queued = self._queue()
            changed.append(queued != self._queued)
            self._queued = queued
        return any(changed)

    def _poll_outputs(self, scanned: bool, whole: bool) -> bool:
        changed = False
        end = time.monotonic() + (float("inf") if whole else _BUDGET_SECONDS)
        for run in sorted(self._runs.values(), key=lambda run: run.is_read):
            if scanned or not run.is_settled:
                facts = run.facts
                with self._changed:
                    while run.poll_output(scanned):
                        changed = run.is_stale = True
                        if not whole or not run.is_behind:
                            break
                self._are_related = self._are_related and run.facts is facts
            if time.monotonic() > end:
                break
        return changed

    def _settle(self, now: float) -> None:
        """Finds out how every run stands, and which differ from what was known of them."""
        words: dict[str, tuple[str, str | None]] = {}
        for root, study in self._studies.items():
            words |= self._words(root, study)
        if not self._are_related:
            self._relate()
        version = self.version + 1
        made: dict[str, RunSnapshot] = {}
        for id, run in self._runs.items():
            word = words[id] if run.planned is not None else run.word_alone(now)
            if word[0] == "running" and run.is_gone:
                word = _GONE
            old = run.snapshot
            if old is not None and not run.is_stale and word == run.word:
                continue
            run.word, run.is_stale = word, False
            snapshot = run.make_snapshot(version)
            if old is None or replace(snapshot, version=old.version) != old:
                made[id] = snapshot
        if made:
            with self._changed:
                for id, snapshot in made.items():
                    self._runs[id].snapshot = snapshot
                self.version = version
                self._changed.notify_all()

    def _is_silent_now(self, now: float) -> bool:
        """Says whether a run has grown silent, which no file tells."""
        if any(run.is_gone and run.word != _GONE for run in self._runs.values()):
            return True
        alone = (run for run in self._runs.values() if run.planned is None)
        return any(run.word != run.word_alone(now) for run in alone if not run.facts.is_done)

    def _relate(self) -> None:
        """Finds who reads whose output, where no plan says it, and which network."""
        readers = Readers(self._runs.values())
        for run in self._runs.values():
            needs = run.needs if run.planned is not None else readers.needs(run)
            inherited = self._axes_of_weights(run, needs)
            run.is_stale = run.is_stale or (needs, inherited) != (run.needs, run.inherited)
            run.needs, run.inherited = needs, inherited
        self._are_related = True

    def _ask_judge(self) -> bool:
        """Lets finished runs be judged, and takes over verdicts; says whether they are new."""
        ended = ((str(run.folder), run.changed) for run in self._runs.values() if run.facts.is_done)
        self.judge.poll(frozenset((folder, when) for folder, when in ended if when is not None))
        if self.judge.version == self._judged:
            return False
        self._judged = self.judge.version
        for run in self._runs.values():
            told = self.judge.by_folder.get(run.folder, ()) if run.folder is not None else ()
            judged = tuple(map(printable, told))
            run.is_stale = run.is_stale or judged != run.judged
            run.judged = judged
        with self._changed:
            self.version += 1
            self._changed.notify_all()
        return True

    def _axes_of_weights(self, run: FollowedRun, needs: Iterable[str]) -> dict[str, str]:
        """Returns what tells the network apart that a run reads, such as method and seed."""
        weights = run.facts.axes.get("weights")
        for id in needs if weights is not None else ():
            read = self._runs.get(id)
            if read is not None and read.facts.stage == "train" and weights in read.name.split("/"):
                return {name: each for name, each in read.axes.items() if name != "dataset"}
        return {}

    def _words(self, root: Path, study: FollowedStudy) -> dict[str, tuple[str, str | None]]:
        """Returns the word and reason of each run of a plan, by id."""
        if study.plan is None:
            return {}
        states = {}
        for planned in study.plan.runs:
            run = self._runs[run_id(root, planned.name)]
            # Done before there was a study, or by another's hand.
            found = RunState("done") if run.state is None and run.facts.is_done else run.state
            states[planned.name] = found
        return {
            run_id(root, each.run.name): (
                each.word,
                printable(each.reason) if each.reason else None,
            )
            for each in statuses(study.plan, states, self._queued)
        }
