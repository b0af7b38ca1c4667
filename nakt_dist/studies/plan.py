"""Makes the graph of a study: every run with its settings, and who waits for whom."""

import heapq
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from nakt_dist.config import EvaluateConfig, StudyConfig, as_plain
from nakt_dist.config.axes import describe
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.runtime.files import value_sha256
from nakt_dist.studies.choices import Choice, check_alike, check_apart, check_metric
from nakt_dist.studies.expansion import Draft, Expansion, ParseConfig
from nakt_dist.studies.folder import Plan, PlannedRun
from nakt_dist.studies.paths import absolute, edges_of
from nakt_dist.studies.search import OneTrial
from nakt_dist.studies.steps import ChoiceStep, Launch, read_steps


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, with all that is needed to start it.

    Attributes:
        planned: what others see of it.
        place: where it stands in the file, for messages.
        config: its checked configuration; provisional where it depends on choices.
        choices: made before it starts.
        trial: which of a search it is, if any; its values are drawn before it starts.
        before: outputs of the runs that it waits for, by name.
    """

    planned: PlannedRun
    place: str
    config: Any
    choices: tuple[Choice, ...]
    launch: Launch
    resolve: Callable[[Mapping[str, Any]], Any]
    trial: OneTrial | None = None
    before: Mapping[str, str | None] = field(default_factory=dict)

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

        Args:
            names: as the study or ``nakt watch``, with the root's name before it, prints them.

        Raises:
            ConfigurationError: there is no run of a name; names the nearest.
        """
        known = {run.name: run for run in self.runs}
        root = f"{Path(self.config.root).name}/"
        wanted = {name if name in known else name.removeprefix(root) for name in names}
        for name in wanted:
            if name not in known:
                raise ConfigurationError(
                    f"the study has no run '{name}'{nearest_name(name, known)}; "
                    "--dry_run lists them"
                )
        return [run for run in self.runs if run.name in wanted]

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

    Raises:
        ConfigurationError: a step or a setting is wrong, two runs write to one output, runs wait
            for each other in a circle, or a choice is made by test images.
    """
    steps, choices = read_steps(config, stages)
    runs = Expansion(config, parse, steps, choices).all_runs()
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
    _check_alike(runs, choices)
    return Study(config, tuple(_with_edges(runs, config.root)))


def _check_alike(runs: Sequence[Draft], choices: Sequence[ChoiceStep]) -> None:
    """Refuses choices among runs that are judged by unlike images."""
    places = {choice.name: choice.place for choice in choices}
    configs = {str(_output(run)): run.config for run in runs}
    made = {
        (choice.name, *(each.output for each in choice.candidates)): choice
        for run in runs
        for choice in run.choices
    }
    for choice in made.values():
        check_alike(choice, configs, places[choice.name])


def _check_outputs(runs: Sequence[Draft]) -> None:
    """Refuses two runs that write to one folder.

    A page of ``report`` may be written several times, as more runs are done. Every other stage
    would refuse the second run once the first has taken hours, or do nothing.
    """
    first_of: dict[str, Draft] = {}
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


def _with_edges(drafts: Sequence[Draft], root: str) -> Iterator[StudyRun]:
    """Yields the runs, each behind those that it waits for, otherwise in the order of the file."""
    names = _names(drafts, root)
    edges = edges_of([draft.paths for draft in drafts])
    for number in _in_order([(*each.needs, *each.after) for each in edges], drafts):
        draft, waits = drafts[number], edges[number]
        before = {names[each]: _output(drafts[each]) for each in (*waits.needs, *waits.after)}
        planned = PlannedRun(
            name=names[number],
            stage=draft.step.stage,
            step=draft.step.number,
            group=draft.step.name,
            axes=describe(draft.combination),
            output=_output(draft),
            needs=tuple(names[each] for each in waits.needs),
            after=tuple(names[each] for each in waits.after),
            processes=draft.step.launch.processes,
        )
        yield StudyRun(
            planned, draft.place, draft.config, draft.choices, draft.step.launch, draft.resolve,
            draft.trial, before,
        )  # fmt: skip


def _output(draft: Draft) -> str | None:
    return getattr(draft.config, "output", None)


def _names(drafts: Sequence[Draft], root: str) -> list[str]:
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


def _in_order(before: Sequence[tuple[int, ...]], drafts: Sequence[Draft]) -> list[int]:
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
