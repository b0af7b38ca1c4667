"""Runs a study on this machine: several at a time, the longest first, or one by one in order."""

import codecs
import contextlib
import signal
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from nakt_dist.errors import NaktError, StartAgain
from nakt_dist.runtime.children import Child, Share, machine_shares, signals_held
from nakt_dist.runtime.preemption import StopRequests
from nakt_dist.runtime.processes import say
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.one_run import (
    ELSEWHERE_EXIT_CODE,
    WRONG_SETTINGS_EXIT_CODE,
    Main,
    is_elsewhere,
    reason_of,
    status_after,
    work_of,
)
from nakt_dist.studies.plan import Study, StudyRun
from nakt_dist.studies.searches import Searches
from nakt_dist.studies.standing import stand

AGENT_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
_TICK_SECONDS = 0.1
_PATIENCE_SECONDS = 120
_KILL_SECONDS = 5
_NOTING_SECONDS = 2.0
_MOST_INTERRUPTIONS = 50


@dataclass
class Outcome:
    """What became of the runs that were to be done.

    Attributes:
        done: names, in the order in which they ended.
        failed: why, by name.
        blocked: names of those that need a failed one.
        seconds: that each took, by name.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    blocked: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Begun:
    run: StudyRun
    child: Child
    slots: list[int]
    started: float
    attempt: int
    log_start: int
    shown: int
    decoder: codecs.IncrementalDecoder


class LocalRuns:
    """Does runs in processes of their own.

    Args:
        done: names of runs that need not be done any more.
        todo: the runs to do, each behind those that it waits for.
        jobs: at a time; each gets its share of the machine, and a run of several processes as
            many shares as there are, up to all.
        searches: what draws the study's trials; None where those that are drawn are to be done
            as far as they are to go for now.
    """

    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        done: set[str],
        todo: Sequence[StudyRun],
        jobs: int,
        main: Main,
        searches: Searches | None = None,
    ) -> None:
        self._searches = searches
        self._study, self._folder, self._main = study, folder, main
        self._done, self._open = set(done), {run.name: run for run in todo}
        self._total = len(todo)
        self._rank = remaining_seconds(study)
        self._shares = machine_shares(jobs)
        self._free = list(range(jobs))
        self._begun: dict[str, _Begun] = {}
        self._tries: dict[str, int] = {}
        self._interruptions: dict[str, int] = {}
        self._elsewhere: dict[str, float] = {}
        self._outcome = Outcome()
        self._number = 0

    def run(self) -> Outcome:
        """Does all that can be done.

        Returns:
            What became of it; a run that failed stops only those that need it.

        Raises:
            StartAgain: a signal asked to leave; every run was asked to save, and has ended.
            KeyboardInterrupt: likewise, at the terminal.
        """
        with StopRequests() as stop:
            stop.listen()
            try:
                while self._open or self._begun:
                    self._collect()
                    if stop.received:
                        raise StartAgain(f"{stop.name}: the study leaves; run it again to go on")
                    self._block()
                    self._end_searches()
                    self._begin_what_is_ready()
                    time.sleep(_TICK_SECONDS)
            except BaseException:
                self._leave()
                raise
        return self._outcome

    def _ready(self) -> list[StudyRun]:
        """Returns what could begin now, the longest way to the end first; one by one as planned.

        One at a time takes as long in any order, and what is left in the middle then has its
        first rows from training to test, not all trainings and no test.
        """
        pending = set(self._open) | set(self._begun)
        ready = [
            run
            for run in self._open.values()
            if all(need in self._done for need in run.planned.needs)
            and not any(each in pending for each in run.planned.after)
        ]
        if self._searches is not None:
            ready = self._searches.among(ready, self._begun)
        if len(self._shares) == 1:
            return ready
        return sorted(ready, key=lambda run: -self._rank[run.name])

    def _begin_what_is_ready(self) -> None:
        for run in self._ready():
            slots = self._slots(run.launch.processes)
            if is_elsewhere(self._folder, run.name):
                self._tell_elsewhere(run.name)
                continue
            if self._was_done_elsewhere(run):
                continue
            if slots is None:
                return  # one that needs many is not passed by others for ever
            self._begin(run, slots)

    def _tell_elsewhere(self, name: str) -> None:
        if name not in self._elsewhere:
            say(f"{name}: another process does it right now; waits for that one")
        self._elsewhere[name] = time.monotonic()

    def _was_done_elsewhere(self, run: StudyRun) -> bool:
        """Says whether another process has done a run, or is about to note how it ended."""
        seen = self._elsewhere.get(run.name)
        if seen is None or run.trial is not None:
            return False
        if time.monotonic() < seen + _NOTING_SECONDS:
            return True
        if not stand(self._study, self._folder, [run.name])[run.name].done:
            return False
        say(f"{run.name}: is done")
        del self._open[run.name]
        self._done.add(run.name)
        return True

    def _slots(self, processes: int) -> list[int] | None:
        """Returns free slots for a run, of other devices each as far as there are; None yet."""
        wanted = min(processes, len(self._shares))
        apart = list({self._shares[slot]: slot for slot in reversed(self._free)}.values())[::-1]
        slots = [*apart, *(slot for slot in self._free if slot not in apart)][:wanted]
        devices = min(processes, len(set(self._shares)))
        return slots if len(slots) == wanted and len(apart) >= devices else None

    def _begin(self, run: StudyRun, slots: list[int]) -> None:
        name = run.name
        attempt = self._tries.setdefault(name, 1)
        share = _united([self._shares[slot] for slot in slots])
        self._folder.of_run(name).mkdir(parents=True, exist_ok=True)
        if name not in self._outcome.seconds:
            self._number += 1
        drawn = "" if self._searches is None else self._searches.begin(run, self._begun)
        axes = " ".join(f"{axis}={value}" for axis, value in run.planned.axes.items())
        again = f", try {attempt}" if attempt > 1 else ""
        told = f"{run.planned.stage} {axes or name}{drawn}{again}"
        say(f"[{self._number}/{self._total}] {told}".rstrip())
        log = self._folder.log_path(name)
        shown = log.stat().st_size if log.exists() else 0
        work = work_of(run, self._folder, attempt, str(share), self._main)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        now = time.monotonic()
        with signals_held():  # else one that leaves would not know of it
            child = Child(work, log, self._environment(name), share)
            self._begun[name] = _Begun(run, child, slots, now, attempt, shown, shown, decoder)
        del self._open[name]
        self._free = [slot for slot in self._free if slot not in slots]

    def _environment(self, name: str) -> dict[str, str | None]:
        """Names the study; the W&B run that an agent has chosen is that of ``only`` alone."""
        environment: dict[str, str | None] = {"NAKT_STUDY": self._study.config.study_name}
        if self._study.config.only_names != [name]:
            environment |= dict.fromkeys(AGENT_VARIABLES)
        return environment

    def _collect(self) -> None:
        for name, begun in list(self._begun.items()):
            code = begun.child.poll()
            self._show(begun)
            if code is not None:
                del self._begun[name]
                self._free += begun.slots
                self._end(begun, code)

    def _end(self, begun: _Begun, code: int) -> None:
        run, name = begun.run, begun.run.name
        if code == ELSEWHERE_EXIT_CODE:
            self._tell_elsewhere(name)
            self._open[name] = run
            return
        status, reason = status_after(code), reason_of(self._folder, name, code, begun.log_start)
        self._folder.end(name, status, code, reason, run.planned.output)
        seconds = time.monotonic() - begun.started
        self._outcome.seconds[name] = round(self._outcome.seconds.get(name, 0) + seconds, 3)
        if status == "done":
            if self._searches is not None and self._searches.end(run):
                self._open[name] = run  # until its search is over
            else:
                self._done.add(name)
                self._outcome.done.append(name)
            if len(self._shares) > 1:
                say(f"{name}: done in {seconds:.0f} s")
        elif status == "interrupted" and self._may_go_on(name):
            self._open[name] = run
        elif begun.attempt <= run.launch.retries and code != WRONG_SETTINGS_EXIT_CODE:
            say(f"{name}: failed ({reason}); it is tried again")
            self._tries[name] = begun.attempt + 1
            self._open[name] = run
        else:
            self._folder.end(name, "failed", code, reason)
            say(f"{name}: failed ({reason})")
            self._outcome.failed[name] = str(reason)
            if self._searches is not None:
                self._searches.fail(run)

    def _may_go_on(self, name: str) -> bool:
        self._interruptions[name] = self._interruptions.get(name, 0) + 1
        return self._interruptions[name] <= _MOST_INTERRUPTIONS

    def _block(self) -> None:
        """Gives up the runs that need what has failed, or what is not to be done now."""
        possible = self._done | set(self._open) | set(self._begun)
        for name, run in list(self._open.items()):
            lost = [need for need in run.planned.needs if need not in possible]
            if lost:
                del self._open[name]
                self._outcome.blocked.append(name)
                say(f"{name}: not begun, as {lost[0]} is not done")
                possible.discard(name)

    def _end_searches(self) -> None:
        """Lets go of the trials that never go on, so that what waits for them may begin."""
        if self._searches is None:
            return
        for run in self._searches.ended(list(self._open.values()), self._begun):
            del self._open[run.name]
            self._done.add(run.name)
            self._outcome.done.append(run.name)

    def _show(self, begun: _Begun) -> None:
        """Copies what a run printed to the terminal: all of it where one runs at a time."""
        if len(self._shares) > 1 and begun.run.planned.stage != "report":
            return
        try:
            with self._folder.log_path(begun.run.name).open("rb") as stream:
                stream.seek(begun.shown)
                text = stream.read()
        except OSError:
            return
        begun.shown += len(text)
        print(begun.decoder.decode(text), end="", flush=True)

    def _leave(self) -> None:
        """Asks every run to save and end, and waits for it; a second request ends them at once."""
        for begun in self._begun.values():
            begun.child.signal(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        try:
            while self._begun and time.monotonic() < deadline:
                self._collect_leaving()
                time.sleep(_TICK_SECONDS)
        except KeyboardInterrupt:
            pass
        for begun in self._begun.values():
            begun.child.signal(signal.SIGKILL)
        deadline = time.monotonic() + _KILL_SECONDS
        while self._begun and time.monotonic() < deadline:
            self._collect_leaving()
            time.sleep(_TICK_SECONDS)

    def _collect_leaving(self) -> None:
        for name, begun in list(self._begun.items()):
            code = begun.child.poll()
            if code is None:
                continue
            del self._begun[name]
            status = "done" if code == 0 else "interrupted"
            reason = reason_of(self._folder, name, code, begun.log_start)
            with contextlib.suppress(NaktError, OSError):  # a full disk keeps the others no longer
                self._folder.end(name, status, code, reason, begun.run.planned.output)


def remaining_seconds(study: Study, done: Container[str] = ()) -> dict[str, float]:
    """Returns the seconds from the begin of each run to the end of all that waits for it.

    A run without an estimate counts as the mean of those that have one, one that is done as none.
    """
    known = [
        run.planned.estimate_seconds
        for run in study.runs
        if run.planned.estimate_seconds is not None
    ]
    usual = sum(known) / len(known) if known else 1.0
    behind: dict[str, float] = {}
    for run in reversed(study.runs):
        own = run.planned.estimate_seconds
        own = 0.0 if run.name in done else usual if own is None else own
        mine = own + behind.get(run.name, 0.0)
        for before in (*run.planned.needs, *run.planned.after):
            behind[before] = max(behind.get(before, 0.0), mine)
        behind[run.name] = mine
    return behind


def _united(shares: Sequence[Share]) -> Share:
    return Share(
        gpus=tuple(dict.fromkeys(gpu for share in shares for gpu in share.gpus)),
        cores=tuple(sorted({core for share in shares for core in share.cores})),
    )
