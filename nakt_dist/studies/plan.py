"""Makes the graph of a study: every run with its settings, and who waits for whom."""

import heapq
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from nakt_dist.config import EvaluateConfig, StudyConfig, as_plain
from nakt_dist.config.axes import Combination, agrees, combinations, describe
from nakt_dist.config.placeholders import check_names, defined, fill_in
from nakt_dist.config.repeated import RepeatedReader
from nakt_dist.config.searching import TRIAL, read_search
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.runtime.files import value_sha256
from nakt_dist.studies.choices import Candidate, Choice, check_apart, check_metric
from nakt_dist.studies.folder import Plan, PlannedRun
from nakt_dist.studies.paths import Paths, absolute, edges_of, paths_of
from nakt_dist.studies.search import (
    OneTrial,
    Search,
    SearchChoice,
    check_search,
    length_of,
)
from nakt_dist.studies.steps import ChoiceStep, Launch, Step, read_steps

ParseConfig = Callable[[str, Any], Any]
"""Builds the configuration of a stage, by its name, from nested values."""


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, with all that is needed to start it.

    Attributes:
        planned: what others see of it.
        place: where it stands in the file, for messages.
        config: its checked configuration; provisional where it depends on choices.
        choices: made before it starts.
        launch: how it is started.
        trial: which of a search it is, if any; its values are drawn before it starts.
    """

    planned: PlannedRun
    place: str
    config: Any
    choices: tuple[Choice, ...]
    launch: Launch
    resolve: Callable[[Mapping[str, Any]], Any]
    trial: OneTrial | None = None

    @property
    def name(self) -> str:
        """The run's name in the study."""
        return self.planned.name

    def decided(self) -> tuple[Any, dict[str, Any]]:
        """Makes the choices from the records of what was run before.

        Returns:
            The configuration to start with, and of each choice what was taken, and of which
            values of its metric.

        Raises:
            DatasetError: a record is absent or lacks the metric, or it is a trial that is not
                drawn.
        """
        if not self.choices and self.trial is None:
            return self.config, {}
        found = {choice.name: choice.decide() for choice in self.choices}
        told = {
            choice.name: {"by": choice.by, "taken": found[choice.name][0],
                          "compared": found[choice.name][1]}
            for choice in self.choices
        }  # fmt: skip
        taken: dict[str, Any] = {name: values for name, (values, _) in found.items()}
        if self.trial is None:
            return self.resolve(taken), told
        trial = self.trial.drawn()
        return self.trial.config_of(trial, self.resolve({**taken, **trial.values})), told


@dataclass(frozen=True)
class Study:
    """All runs, each behind those that it waits for."""

    config: StudyConfig
    runs: tuple[StudyRun, ...]

    @property
    def plan(self) -> Plan:
        """What is written for those who watch."""
        return Plan(
            name=self.config.study_name,
            root=self.config.root,
            runs=tuple(run.planned for run in self.runs),
        )

    def by_name(self, names: Sequence[str]) -> list[StudyRun]:
        """Returns runs by their names, in the order of the study.

        Raises:
            ConfigurationError: there is no run of a name; names the nearest.
        """
        known = {run.name: run for run in self.runs}
        for name in names:
            if name not in known:
                raise ConfigurationError(
                    f"the study has no run '{name}'{nearest_name(name, known)}; "
                    "--dry_run lists them"
                )
        return [run for run in self.runs if run.name in set(names)]

    def with_needs(self, chosen: Sequence[StudyRun]) -> list[StudyRun]:
        """Returns runs and all that they need, in the order of the study."""
        wanted = {run.name for run in chosen}
        for run in reversed(self.runs):
            wanted.update(run.planned.needs if run.name in wanted else ())
        return [run for run in self.runs if run.name in wanted]


def settings_sha256(config: Any) -> str:
    """Returns the SHA-256 of a resolved configuration."""
    return value_sha256(as_plain(config))


def make_study(config: StudyConfig, parse: ParseConfig, stages: Sequence[str]) -> Study:
    """Reads a study: all runs are checked before the first begins.

    Args:
        parse: builds the configuration of a stage.
        stages: names of all stages.

    Raises:
        ConfigurationError: a step or a setting is wrong, two runs write to one output, runs wait
            for each other in a circle, or a choice is made by test images.
    """
    steps, choices = read_steps(config, stages)
    runs = _Expansion(config, parse, steps, choices).all_runs()
    _check_outputs(runs)
    compares = {(choice.place, choice.of, choice.by) for choice in choices}
    compares |= {(run.step.place, run.step.name, run.trial.search.settings.by)
                 for run in runs if run.trial is not None}  # fmt: skip
    tests = [run.config for run in runs if isinstance(run.config, EvaluateConfig)]
    for place, name, by in sorted(compares):
        chosen = [run.config for run in runs if run.step.name == name]
        compared = {each.output for each in chosen}
        check_metric(by, chosen, place)
        check_apart(chosen, [test for test in tests if test.output not in compared], place)
    return Study(config, tuple(_with_edges(runs, config.root)))


@dataclass(frozen=True)
class _Draft:
    """A run before it is known what it waits for."""

    step: Step
    combination: Combination
    place: str
    config: Any
    paths: Paths
    choices: tuple[Choice, ...]
    resolve: Callable[[Mapping[str, Any]], Any]
    trial: OneTrial | None = None


class _Names(dict[str, Any]):
    """Names and their values, those of choices included, which notes the choices that are used.

    Args:
        values: by name.
        choices: names of choices.
        choose: returns the choice of a name.
    """

    def __init__(
        self, values: Mapping[str, Any], choices: Sequence[str], choose: Callable[[str], Choice]
    ) -> None:
        super().__init__({**values, **dict.fromkeys(choices)})
        self._choices, self._choose = frozenset(choices), choose
        self.used: dict[str, Choice] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._choices:
            return super().__getitem__(name)
        if name not in self.used:
            self.used[name] = self._choose(name)
        return self.used[name].provisional


@contextmanager
def _at(place: str) -> Iterator[None]:
    """Says where a setting stands that is wrong."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


class _Expansion:
    """Repeats each step over its axes, those first whose runs others choose among."""

    def __init__(
        self,
        config: StudyConfig,
        parse: ParseConfig,
        steps: Sequence[Step],
        choices: Sequence[ChoiceStep],
    ) -> None:
        folders = {"root": config.root, "data": config.data}
        check_names(config.definitions, "definitions", folders)
        self._names = {**folders, **config.definitions}
        self._steps, self._choices = steps, {choice.name: choice for choice in choices}
        self._readers: dict[str, RepeatedReader] = {}
        self._parse = parse
        self._drafts: dict[str, list[_Draft]] = {}
        self._open: list[str] = []

    def all_runs(self) -> list[_Draft]:
        """Returns all runs, in the order of the file."""
        return [draft for step in self._steps for draft in self._runs_of(step)]

    def _runs_of(self, step: Step) -> list[_Draft]:
        if step.name not in self._drafts:
            if step.name in self._open:
                circle = " → ".join([*self._open, step.name])
                raise ConfigurationError(f"{step.place}: chooses among itself ({circle})")
            self._open.append(step.name)
            if step.search is None:
                with _at(step.place):
                    repeats = combinations(step.axes, self._names)
                self._drafts[step.name] = [self._draft(step, each) for each in repeats]
            else:
                self._drafts[step.name] = self._trials(step)
            self._open.pop()
        return self._drafts[step.name]

    def _trials(self, step: Step) -> list[_Draft]:
        """Returns a draft for each trial; what will be drawn is checked at the ends of ranges."""
        with _at(step.place):
            settings = read_search(fill_in(step.search, self._names))
            check_names(settings.values, "search.values", {**self._names, **self._choices})
        ends = [self._draft(step, {TRIAL: 0}, corner) for corner in settings.corners]
        with _at(step.place):
            if len({end.paths.writes for end in ends}) > 1:
                raise ConfigurationError(
                    "output holds what is drawn, which is not known yet; name it by ${trial}"
                )
            for end in ends:
                check_search(settings, end.config)
        reads = tuple(dict.fromkeys(path for end in ends for path in end.paths.reads))
        first = settings.corners[0]
        drafts = [self._draft(step, {TRIAL: each}, first) for each in range(settings.count)]
        outputs = tuple(str(draft.config.output) for draft in drafts)
        length = length_of(ends[0].config)
        search = Search(step.name, step.number, settings, length, outputs)
        return [
            replace(draft, paths=replace(draft.paths, reads=reads), trial=OneTrial(search, number))
            for number, draft in enumerate(drafts)
        ]

    def _draft(
        self, step: Step, combination: Combination, drawn: Mapping[str, Any] | None = None
    ) -> _Draft:
        words = " ".join(f"{name}={value}" for name, value in describe(combination).items())
        place = f"{step.place} ({words})" if words else step.place
        for name in combination:
            if name in self._choices:
                raise ConfigurationError(f"{place}: '{name}' is an axis and a choice; rename one")
        own = {**self._names, **combination, **(drawn or {})}
        names, of_output = (
            _Names(own, list(self._choices), lambda name: self._choice(name, combination))
            for _ in range(2)
        )
        with _at(place):
            config = self._reader(step.stage).read(fill_in(step.config, names))
            settings = defined(step.config, own)
            output = settings.get("output") if isinstance(settings, Mapping) else None
            fill_in(output, of_output)
        for name in of_output.used:
            raise ConfigurationError(
                f"{place}: output holds ${{{name}…}}, which is known only when it is chosen; "
                "name the output by the axes alone"
            )
        used = tuple(names.used.values())

        def resolve(taken: Mapping[str, Any]) -> Any:
            return self._parse(step.stage, fill_in(step.config, {**own, **taken}))

        return _Draft(step, combination, place, config, _all_paths(config, used), used, resolve)

    def _reader(self, stage: str) -> RepeatedReader:
        if stage not in self._readers:
            self._readers[stage] = RepeatedReader(lambda values: self._parse(stage, values))
        return self._readers[stage]

    def _choice(self, name: str, combination: Combination) -> Choice:
        """Returns what a run with these axes would choose among."""
        choice = self._choices[name]
        (step,) = [each for each in self._steps if each.name == choice.of]
        drafts = self._runs_of(step)
        if drafts[0].trial is not None:
            return _choice_of_trials(choice, drafts, drafts[0].trial.search)
        for axis in choice.over:
            if axis not in drafts[0].combination:
                raise ConfigurationError(
                    f"{choice.place}: over names '{axis}', which is no axis of '{choice.of}' "
                    f"({', '.join(drafts[0].combination) or 'it has none'})"
                )
        shared = [
            name for name in combination
            if name in drafts[0].combination and name not in choice.over
        ]  # fmt: skip
        candidates = tuple(
            Candidate(
                str(draft.config.output),
                {axis: draft.combination[axis] for axis in choice.over},
                str(draft.config.output),
            )
            for draft in drafts
            if all(_is_same(draft.combination[name], combination[name]) for name in shared)
        )
        if not candidates:
            raise ConfigurationError(
                f"{choice.place}: '{choice.of}' has no run with "
                f"{', '.join(f'{name} {combination[name]!r:.40}' for name in shared)} to choose"
            )
        return Choice(choice.name, choice.by, candidates)


def _choice_of_trials(choice: ChoiceStep, drafts: Sequence[_Draft], search: Search) -> Choice:
    """Returns the choice of the best trial, whatever was drawn for it."""
    if list(choice.over) != [TRIAL]:
        raise ConfigurationError(
            f"{choice.place}: over is [{', '.join(choice.over)}], and '{choice.of}' is a search; "
            f"expected [{TRIAL}]. ${{{choice.name}.NAME}} is then what was drawn for the best"
        )
    first = search.settings.corners[0]
    candidates = tuple(
        Candidate(output, {**draft.combination, **first}, output)
        for draft, output in zip(drafts, search.outputs, strict=True)
    )
    return SearchChoice(choice.name, choice.by, candidates, search)


def _is_same(value: Any, wanted: Any) -> bool:
    """Says whether two steps' values of an axis are one; of groups, their names tell."""
    if isinstance(wanted, Mapping) and "name" not in wanted:
        return bool(value == wanted)
    return agrees(value, wanted)


def _all_paths(config: Any, choices: Sequence[Choice]) -> Paths:
    """Returns what a run reads; trials among which is chosen must have ended, however."""
    paths = paths_of(config)
    trials, others = (
        [absolute(each.output) for choice in choices for each in choice.candidates
         if isinstance(choice, SearchChoice) is searched]
        for searched in (True, False)
    )  # fmt: skip
    reads = [
        path for path in paths.reads
        if not any(path == trial or path.startswith(f"{trial}/") for trial in trials)
    ]  # fmt: skip
    return Paths(paths.writes, tuple(dict.fromkeys((*reads, *others))), (*paths.searches, *trials))


def _check_outputs(runs: Sequence[_Draft]) -> None:
    """Refuses two runs that write to one folder.

    A page of ``report`` may be written several times, as more runs are done. Every other stage
    would refuse the second run once the first has taken hours, or do nothing.
    """
    first_of: dict[str, _Draft] = {}
    for run in runs:
        if run.paths.writes is None:
            continue
        first = first_of.setdefault(run.paths.writes, run)
        if first is run or first.step.stage == run.step.stage == "report":
            continue
        raise ConfigurationError(
            f"{run.place}: its output {run.config.output} is also that of {first.place}; give each "
            "run an output of its own, with every axis in it, as in runs/student-${seed}"
        )


def _with_edges(drafts: Sequence[_Draft], root: str) -> Iterator[StudyRun]:
    """Yields the runs, each behind those that it waits for, otherwise in the order of the file."""
    names = _names(drafts, root)
    edges = edges_of([draft.paths for draft in drafts])
    for number in _in_order([(*each.needs, *each.after) for each in edges], drafts):
        draft, waits = drafts[number], edges[number]
        planned = PlannedRun(
            name=names[number],
            stage=draft.step.stage,
            step=draft.step.number,
            group=draft.step.name,
            axes=describe(draft.combination),
            output=getattr(draft.config, "output", None),
            needs=tuple(names[each] for each in waits.needs),
            after=tuple(names[each] for each in waits.after),
            processes=draft.step.launch.processes,
            estimate_seconds=None,
        )
        yield StudyRun(
            planned, draft.place, draft.config, draft.choices, draft.step.launch, draft.resolve,
            draft.trial,
        )  # fmt: skip


def _names(drafts: Sequence[_Draft], root: str) -> list[str]:
    """Returns a name for each run: its output below the root, or its stage and a number."""
    names: list[str] = []
    taken: set[str] = set()
    for draft in drafts:
        path = draft.paths.writes
        base = f"{draft.step.stage}-{draft.step.number}"
        if path is not None:
            inside = os.path.relpath(path, absolute(root)) if "://" not in path else path
            base = path.strip("/") if inside.startswith("..") else inside
            base = draft.step.stage if base == "." else base
        name, count = base, 2
        while name in taken:
            name, count = f"{base}-{count}", count + 1
        taken.add(name)
        names.append(name)
    return names


def _in_order(before: Sequence[tuple[int, ...]], drafts: Sequence[_Draft]) -> list[int]:
    sorter: TopologicalSorter[int] = TopologicalSorter(dict(enumerate(before)))
    try:
        sorter.prepare()
    except CycleError as error:
        circle = " → ".join(drafts[number].place for number in error.args[1])
        raise ConfigurationError(
            f"runs wait for each other in a circle: {circle}; one of them reads what the other "
            "writes. Give them outputs of their own"
        ) from None
    order: list[int] = []
    ready = list(sorter.get_ready())
    heapq.heapify(ready)
    while ready:
        order.append(heapq.heappop(ready))
        sorter.done(order[-1])
        for number in sorter.get_ready():
            heapq.heappush(ready, number)
    return order
