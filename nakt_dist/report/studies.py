"""Groups classifiers into the rows and columns of a study: what differs, and what repeats."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.evaluation.summary import confidence_over_runs
from nakt_dist.report.classifier_lineage import (
    ClassifierName,
    Kind,
    Method,
    Start,
    TrainingSet,
)
from nakt_dist.report.classifier_runs import ClassifiedRun, FindingSet


@dataclass(frozen=True)
class Setting:
    """A row of a study: everything but the method and the repetition.

    Attributes:
        tested_on: the test set.
        network: the student.
        trained_on: the images it learnt from.
        start: its first weights.
        findings: what it learnt to tell.
        policy: what unsure labels counted as while it learnt.
    """

    tested_on: FindingSet
    network: ClassifierName
    trained_on: TrainingSet
    start: Start
    findings: tuple[str, ...]
    policy: str

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by network, dataset, size and start."""
        trained_on = self.trained_on
        return (self.network.order, trained_on.label, trained_on.samples, self.start.label)

    @property
    def label(self) -> str:
        """Network and number of images, such as ``"DenseNet-121, 1,000 images"``."""
        return f"{self.network.label}, {self.trained_on.samples:,} images"


@dataclass(frozen=True)
class Repeats:
    """Runs that differ in their seeds alone.

    Attributes:
        runs: by repetition, each once.
    """

    runs: tuple[ClassifiedRun, ...]

    @property
    def values(self) -> list[float]:
        """The mean AUROC of each run, in percent."""
        return [run.auroc for run in self.runs]

    @property
    def mean(self) -> float:
        """Mean AUROC over the runs, in percent."""
        return float(np.mean(self.values))

    @property
    def half_width(self) -> float | None:
        """1.96 s / √n in percentage points (paper B); None for one run."""
        return confidence_over_runs(self.values)

    @property
    def text(self) -> str:
        """Mean and half-width as the paper prints them."""
        return show_mean(self.mean, self.half_width)

    @property
    def by_repetition(self) -> dict[tuple[int, int], ClassifiedRun]:
        """The runs by their seeds."""
        return {run.lineage.repetition: run for run in self.runs}


@dataclass(frozen=True)
class Study:
    """All students tested on one set, by setting and method.

    Attributes:
        tested_on: the test set.
        cells: the runs of each setting by method; settings and methods in order.
        methods: all methods, in the order of columns.
        others: evaluations of teachers, of networks that students started from, and of foreign
            weights.
    """

    tested_on: FindingSet
    cells: dict[Setting, dict[Method, Repeats]]
    methods: tuple[Method, ...]
    others: tuple[ClassifiedRun, ...]

    @property
    def runs(self) -> list[ClassifiedRun]:
        """Every run, students first."""
        students = [
            run for cell in self.cells.values() for each in cell.values() for run in each.runs
        ]
        return [*students, *self.others]

    def name(self, method: Method) -> str:
        """Names a method by what tells it from the others here."""
        return name_methods(self.methods)[method]


def make_studies(runs: Iterable[ClassifiedRun]) -> tuple[list[Study], list[tuple[str, str]]]:
    """Groups evaluations by test set, setting and method.

    Args:
        runs: all of them.

    Returns:
        The studies, those with most students first, and place and reason of runs that are left
        out: a second run of the same seed would make an interval look narrower than it is.
    """
    runs = sorted(runs, key=lambda run: run.order)
    lineages = [run.lineage for run in runs if run.lineage is not None]
    teachers = {each.method.teacher.weights_sha256 for each in lineages if each.method.teacher}
    starts = {each.start.weights_sha256 for each in lineages} - {None}
    left_out: list[tuple[str, str]] = []
    tests = dict.fromkeys(run.tested_on for run in runs)
    studies = []
    for tested_on in tests:
        here = [run for run in runs if run.tested_on == tested_on]
        students = [run for run in here if _is_student(run, teachers, starts)]
        cells = _cells(students, left_out)
        methods = dict.fromkeys(method for cell in cells.values() for method in cell)
        ordered = tuple(sorted(methods, key=lambda method: method.order))
        places = {run.place for run in students}
        others = tuple(run for run in here if run.place not in places)
        studies.append(Study(tested_on, cells, ordered, others))
    return sorted(studies, key=lambda study: -len(study.cells)), left_out


def _is_student(run: ClassifiedRun, teachers: set[str], starts: set[str]) -> bool:
    """Teachers are no students; nor are networks from elsewhere that students started from."""
    if run.lineage is None or run.weights_sha256 in teachers:
        return False
    at_home = run.lineage.trained_on.fingerprint == run.tested_on.fingerprint
    return at_home or run.weights_sha256 not in starts


def _cells(
    runs: Sequence[ClassifiedRun], left_out: list[tuple[str, str]]
) -> dict[Setting, dict[Method, Repeats]]:
    found: dict[Setting, dict[Method, dict[tuple[int, int], ClassifiedRun]]] = {}
    for run in runs:
        lineage = run.lineage
        setting = Setting(
            run.tested_on, run.network, lineage.trained_on, lineage.start, lineage.findings,
            lineage.policy,
        )  # fmt: skip
        repeats = found.setdefault(setting, {}).setdefault(lineage.method, {})
        first = repeats.setdefault(lineage.repetition, run)
        if first is not run:
            seed = lineage.repetition[0]
            reason = f"repeats seed {seed} of {first.place}, which is counted"
            left_out.append((run.place, reason))
    return {
        setting: {
            method: Repeats(tuple(run for _, run in sorted(found[setting][method].items())))
            for method in sorted(found[setting], key=lambda method: method.order)
        }
        for setting in sorted(found, key=lambda setting: setting.order)
    }


def show_mean(mean: float, half_width: float | None) -> str:
    """Returns a mean with half its interval, such as ``"73.05 ± 0.10"``."""
    return f"{mean:.2f}" if half_width is None else f"{mean:.2f} ± {half_width:.2f}"


def baselines(cell: dict[Method, Repeats]) -> list[Method]:
    """Returns the methods of a setting that follow no teacher."""
    return [method for method in cell if method.kind == Kind.TRANSFER_LEARNING]


def name_methods(methods: Sequence[Method]) -> dict[Method, str]:
    """Names methods in a few words; parts and settings only where they tell some apart."""
    several_parts = len({method.parts for method in methods}) > 1
    return {
        method: ", ".join(
            [
                method.kind.value,
                *_telling_teacher(method, methods),
                *_telling_parts(method, several_parts),
                *_telling_settings(method, methods),
            ]
        )
        for method in methods
    }


def _telling_teacher(method: Method, methods: Sequence[Method]) -> list[str]:
    teacher = method.teacher
    if teacher is None:
        return []
    others = {each.teacher for each in methods} - {None}
    alike = [each for each in others if each.label == teacher.label]
    digits = f" {teacher.weights_sha256[:6]}" if len(alike) > 1 else ""
    return [f"teacher {teacher.label}{digits}"]


def _telling_parts(method: Method, several: bool) -> list[str]:
    if method.parts != "all layers":
        return [method.parts]
    return [method.parts] if several and method.teacher is None else []


def _telling_settings(method: Method, methods: Sequence[Method]) -> list[str]:
    """Names the settings that differ between methods which are otherwise the same."""
    place = (method.kind, method.parts, method.teacher)
    alike = [each for each in methods if (each.kind, each.parts, each.teacher) == place]
    ours, others = json.loads(method.settings), [json.loads(each.settings) for each in alike]
    keys = sorted({key for each in others for key in each})
    differing = [key for key in keys if any(each.get(key) != ours.get(key) for each in others)]
    return [f"{key.split('.', 1)[1]} {json.dumps(ours.get(key))}"[:60] for key in differing]
