"""Repeats the steps of a study over their axes: each run with its settings and its choices."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nakt_dist.config import StudyConfig
from nakt_dist.config.axes import (
    PREVIOUS,
    Combination,
    agrees,
    combinations,
    describe,
    previous_round,
)
from nakt_dist.config.placeholders import check_names, defined, fill_in
from nakt_dist.config.repeated import RepeatedReader
from nakt_dist.config.searching import TRIAL, read_search
from nakt_dist.errors import ConfigurationError
from nakt_dist.records.fields import sorted_json
from nakt_dist.studies.choices import Candidate, Choice, check_trials_alike
from nakt_dist.studies.paths import Paths, absolute, paths_of
from nakt_dist.studies.search import OneTrial, Search, SearchChoice, check_search, length_of
from nakt_dist.studies.steps import ChoiceStep, Step

ParseConfig = Callable[[str, Any], Any]
"""Builds the configuration of a stage, by its name, from nested values."""


@dataclass(frozen=True)
class Draft:
    """A run before it is known what it waits for.

    Attributes:
        combination: the values of its step's axes.
        place: where it stands in the file, for messages.
        config: its checked configuration; provisional where it depends on choices.
        paths: what it reads and writes, what its choices compare included.
        choices: made before it starts.
        resolve: builds the configuration once the choices are made.
        trial: which of a search it is, if any.
    """

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


class Expansion:
    """Repeats each step over its axes, those first whose runs others choose among.

    Args:
        parse: builds the configuration of a stage.

    Raises:
        ConfigurationError: a definition has a name that cannot be.
    """

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
        self._drafts: dict[str, list[Draft]] = {}
        self._open: list[str] = []

    def all_runs(self) -> list[Draft]:
        """Returns all runs, in the order of the file.

        Raises:
            ConfigurationError: an axis, a search, a choice or a setting is wrong.
        """
        return [draft for step in self._steps for draft in self._runs_of(step)]

    def _runs_of(self, step: Step) -> list[Draft]:
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

    def _trials(self, step: Step) -> list[Draft]:
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
            check_trials_alike([end.config for end in ends])
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
    ) -> Draft:
        words = " ".join(f"{name}={value}" for name, value in describe(combination).items())
        place = f"{step.place} ({words})" if words else step.place
        own = self._values(step, place, combination) | dict(drawn or {})
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

        return Draft(step, combination, place, config, _all_paths(config, used), used, resolve)

    def _values(self, step: Step, place: str, combination: Combination) -> dict[str, Any]:
        """Returns the values of a run by name, those of choices and searches apart."""
        values = {**self._names, **combination}
        if "rounds" in step.axes:
            with _at(place):
                values[PREVIOUS] = previous_round(step.axes["rounds"], values)
        for name in values:
            if name in self._choices:
                raise ConfigurationError(f"{place}: '{name}' is an axis and a choice; rename one")
        return values

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
        if "exclude" in step.axes:
            _check_balanced(choice, candidates)
        return Choice(choice.name, choice.by, candidates)


def _check_balanced(choice: ChoiceStep, candidates: Sequence[Candidate]) -> None:
    """Refuses to compare means of which some are over runs that others lack."""
    numbers: dict[str, list[str]] = {}
    for each in candidates:
        numbers.setdefault(sorted_json(each.values), []).append(each.name)
    fewest, most = (pick(numbers.values(), key=len) for pick in (min, max))
    if len(fewest) < len(most):
        raise ConfigurationError(
            f"{choice.place}: exclude leaves {len(fewest)} of the runs that are averaged with "
            f"{fewest[0]}, and {len(most)} with {most[0]}, so that their means are of unlike runs. "
            "Leave out alike of each value, or name the other axes in over, too"
        )


def _choice_of_trials(choice: ChoiceStep, drafts: Sequence[Draft], search: Search) -> Choice:
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
