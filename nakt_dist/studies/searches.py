"""The searches of a study while it runs: which trial is next, what becomes of one that ended."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from nakt_dist.config.axes import describe
from nakt_dist.errors import DatasetError
from nakt_dist.runtime.processes import say
from nakt_dist.studies.choices import read_reached
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.plan import Study, StudyRun
from nakt_dist.studies.rungs import Move, Trial, next_move
from nakt_dist.studies.sampling import check_optuna, draw
from nakt_dist.studies.search import OneTrial, Search
from nakt_dist.studies.standing import Standing


def with_draws(study: Study) -> Study:
    """Returns the study with what was drawn for its trials among their axes."""
    return replace(study, runs=tuple(_with_draw(run) for run in study.runs))


def _with_draw(run: StudyRun) -> StudyRun:
    trial = run.trial and run.trial.search.read(run.trial.number)
    if not trial:
        return run
    axes = {**run.planned.axes, **describe(trial.values)}
    return replace(run, planned=replace(run.planned, axes=axes))


class Searches:
    """Draws trials and says which go on; one process of a study has it.

    Args:
        folder: its files; the journals of Optuna lie there.
        standings: of all runs, as they are now.
    """

    def __init__(
        self, study: Study, folder: StudyFolder, standings: Mapping[str, Standing]
    ) -> None:
        self._study, self._folder = study, folder
        self._trials: dict[int, dict[int, Trial]] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._moves: dict[tuple[int, frozenset[int]], Move | None] = {}
        over: dict[int, bool] = {}
        for run in study.runs:
            if run.trial is not None:
                search, known = run.trial.search, self._trials.setdefault(run.trial.search.step, {})
                self._names.setdefault(search.step, {})[run.name] = run.trial.number
                if search.step not in over:
                    over[search.step] = search.is_over
                noted = search.read(run.trial.number)
                if noted is not None:
                    # Of a search that is over those that failed are tried again, as every run.
                    trial = replace(noted, failed=noted.failed and not over[search.step])
                    trial = _as_it_is(run.trial, trial, standings[run.name])
                    known[trial.number] = trial
                    if trial != noted:  # others choose by what is noted
                        search.write(trial)
        if any(not standings[run.name].done for run in study.runs if run.trial is not None):
            check_optuna()

    def among(self, ready: Sequence[StudyRun], running: Iterable[str]) -> list[StudyRun]:
        """Returns those that are no trial, and of each search the one that is next, if any."""
        found = [run for run in ready if run.trial is None]
        for search in _searches(ready):
            busy = self._busy(search, running)
            if len(busy) >= search.settings.at_a_time:
                continue
            move = self._move(search, busy)
            names = self._names[search.step]
            found += [run for run in ready if move and names.get(run.name) == move.number]
        return found

    def begin(self, run: StudyRun, running: Iterable[str]) -> str:
        """Draws a trial, or lets it go on, and notes it before it begins.

        Returns:
            What was drawn and how far it goes, in words; nothing for a run that is no trial.
        """
        if run.trial is None:
            return ""
        search, number = run.trial.search, run.trial.number
        known = self._trials[search.step]
        move = self._move(search, self._busy(search, running))
        length = search.rungs[0] if move is None else move.length
        if number in known:
            trial = replace(known[number], length=length)
        else:
            before = [known[each] for each in sorted(known)]
            journal = self._folder.folder / f"search-{search.step}.journal"
            end = search.rungs[-1]
            values = draw(search.settings, search.name, before, number, end, journal)
            trial = Trial(number, values, length)
        self._note(search, trial)
        self._folder.write_plan(with_draws(self._study).plan)
        new = describe(trial.values).items() - run.planned.axes.items()
        words = "".join(f" {name}={value}" for name, value in sorted(new))
        return words + (f", to epoch {length}" if len(search.rungs) > 1 else "")

    def end(self, run: StudyRun) -> bool:
        """Notes what a trial has reached; returns whether the run is one, which may yet go on."""
        if run.trial is None:
            return False
        search = run.trial.search
        trial = self._trials[search.step][run.trial.number]
        self._note(search, _with_result(run.trial, trial))
        return True

    def fail(self, run: StudyRun) -> None:
        """Notes that a trial has failed for good; the search goes on without it."""
        if run.trial is not None:
            search = run.trial.search
            trial = self._trials[search.step][run.trial.number]
            self._note(search, replace(trial, failed=True))

    def ended(self, waiting: Sequence[StudyRun], running: Iterable[str]) -> list[StudyRun]:
        """Returns those of the trials that wait which never go on, as their search is over."""
        over: list[StudyRun] = []
        for search in _searches(waiting):
            busy = self._busy(search, running)
            if busy or self._move(search, busy) is not None:
                continue
            over += [run for run in waiting if run.name in self._names[search.step]]
            say(_told(search, [*self._trials[search.step].values()]))
        return over

    def _busy(self, search: Search, running: Iterable[str]) -> frozenset[int]:
        names = self._names[search.step]
        return frozenset(names[name] for name in running if name in names)

    def _move(self, search: Search, busy: frozenset[int]) -> Move | None:
        """Returns what is next, worked out anew when a trial has begun or ended."""
        known = self._trials[search.step]
        if (search.step, busy) not in self._moves:
            trials = [known[number] for number in sorted(known)]
            settings = search.settings
            move = next_move(trials, busy, settings.count, search.rungs, settings.factor)
            self._moves[search.step, busy] = move
        return self._moves[search.step, busy]

    def _note(self, search: Search, trial: Trial) -> None:
        search.write(trial)
        self._trials[search.step][trial.number] = trial
        self._moves.clear()


def _as_it_is(place: OneTrial, trial: Trial, standing: Standing) -> Trial:
    """Returns a trial by what its run has left: what its record says, and no more."""
    if standing.reached:
        return trial if trial.waits else _with_result(place, trial)
    results = {length: value for length, value in trial.results.items() if length != trial.length}
    return replace(trial, results=results)


def _with_result(place: OneTrial, trial: Trial) -> Trial:
    search = place.search
    try:
        found = read_reached(search.outputs[place.number], search.settings.by, search.name)
    except DatasetError as error:
        say(f"trial {place.number} of {search.name} counts as failed: {error}")
        return replace(trial, failed=True)
    return replace(trial, results={**trial.results, trial.length: found.value}, failed=False)


def _searches(runs: Sequence[StudyRun]) -> list[Search]:
    found = {run.trial.search.step: run.trial.search for run in runs if run.trial is not None}
    return list(found.values())


def _told(search: Search, trials: Sequence[Trial]) -> str:
    """Says how a search has ended."""
    ended = [trial for trial in trials if trial.results and not trial.failed]
    end = sum(trial.length >= search.rungs[-1] for trial in ended)
    best = max(ended, key=lambda trial: max(trial.results.values()), default=None)
    told = "" if best is None else (
        f", {search.settings.by} at most {max(best.results.values()):.4f} (trial {best.number})"
    )  # fmt: skip
    return (
        f"search {search.name}: {len(trials)} trials, {end} to the end, "
        f"{len(trials) - len(ended)} failed{told}"
    )
