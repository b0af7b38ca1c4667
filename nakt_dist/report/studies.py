"""Groups classifiers into the rows and columns of a study: what differs, and what repeats."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from nakt_dist.evaluation.summary import confidence_over_runs
from nakt_dist.records.evaluation_set import EvaluationSet, describe_splits
from nakt_dist.records.fields import label_dataset
from nakt_dist.records.lineage import Lineage, Method, Start, TrainingSet
from nakt_dist.report.document import WARNING
from nakt_dist.report.evaluations import ClassifierRun, NetworkName
from nakt_dist.report.methods import name_methods
from nakt_dist.report.trained import Settings, differing
from nakt_dist.report.wording import (
    describe_findings,
    describe_packing,
    describe_policy,
    list_some,
    tell_apart,
)
from nakt_dist.signals.kind import TRANSFER_LEARNING

Value = TypeVar("Value")
NOT_KNOWN: Settings = {}


@dataclass(frozen=True)
class Setting:
    """What students share that may be compared: everything but the method and the repetition.

    Images without labels are a method's.
    """

    network: NetworkName
    trained_on: TrainingSet
    start: Start
    findings: tuple[str, ...]
    policy: str

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by network, dataset, size and start."""
        trained_on = self.trained_on
        return (self.network.order, trained_on.label, trained_on.samples, self.start.label)


Arranged = dict[Setting, dict[Method, Value]]


def arrange(
    items: Iterable[tuple[NetworkName, Lineage, Value]],
) -> tuple[Arranged[list[Value]], list[tuple[Value, Value]]]:
    """Puts what is known of trainings in the order of settings, methods and repetitions.

    Returns:
        By setting and method; and of each repetition that is there again, the later and the
        first, which counts.
    """
    found: Arranged[dict[tuple[int, int], Value]] = {}
    again = []
    for network, lineage, value in items:
        images, start = lineage.labelled, lineage.start
        setting = Setting(network, images, start, lineage.findings, lineage.policy)
        repeats = found.setdefault(setting, {}).setdefault(lineage.method, {})
        first = repeats.setdefault(lineage.repetition, value)
        if first is not value:
            again.append((value, first))
    arranged = {
        setting: {
            method: [value for _, value in sorted(found[setting][method].items())]
            for method in sorted(found[setting], key=lambda method: method.order)
        }
        for setting in sorted(found, key=lambda setting: setting.order)
    }
    return arranged, again


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Returns the mean of those that are numbers; None where there is none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class Repeats:
    """Runs that differ in their seeds alone, by repetition, each once."""

    runs: tuple[ClassifierRun, ...]

    @property
    def values(self) -> list[float]:
        """The mean AUROC of each run, in percent."""
        return [run.mean for run in self.runs]

    @property
    def mean(self) -> float:
        """Mean AUROC over the runs, in percent."""
        return float(np.mean(self.values))

    @property
    def half_width(self) -> float | None:
        """1.96 s / √n in percentage points (paper B); None for one run."""
        return confidence_over_runs(self.values)

    def mean_of(self, number: Callable[[ClassifierRun], float | None]) -> float | None:
        """Returns the mean over the runs of which a number is known; None where there is none."""
        return mean_of_known(map(number, self.runs))

    def auroc_of(self, finding: int) -> float | None:
        """Returns the mean AUROC of the finding of a number, in percent; None where unknown."""
        return self.mean_of(lambda run: run.result.findings[finding].auroc)

    @property
    def text(self) -> str:
        """Mean and half-width as the paper prints them."""
        half_width = self.half_width
        return f"{self.mean:.2f}" + ("" if half_width is None else f" ± {half_width:.2f}")

    @property
    def warnings(self) -> tuple[str, ...]:
        """How networks may have met their test images, each way once."""
        return tuple(dict.fromkeys(words for run in self.runs for words in run.warnings))

    @property
    def warned(self) -> str:
        """The mark behind their number or name; empty where there is nothing to warn of."""
        return f" {WARNING}" if self.warnings else ""

    @property
    def by_repetition(self) -> dict[tuple[int, int], ClassifierRun]:
        """The runs by their seeds."""
        return {run.lineage.repetition: run for run in self.runs}


@dataclass(frozen=True)
class Study:
    """All students tested on one set, by setting and method.

    Attributes:
        label: of the test set, with what tells it from the others of the report.
        cells: the runs of each setting by method; settings and methods in order.
        methods: in the order of columns.
        others: teachers, networks that students started from, and foreign weights.
    """

    tested_on: EvaluationSet
    label: str
    cells: dict[Setting, dict[Method, Repeats]]
    methods: tuple[Method, ...]
    others: tuple[ClassifierRun, ...]

    @property
    def runs(self) -> list[ClassifierRun]:
        """Every run, students first."""
        students = [
            run for cell in self.cells.values() for each in cell.values() for run in each.runs
        ]
        return [*students, *self.others]

    def name(self, method: Method) -> str:
        """Names a method by what tells it from the others here."""
        return name_methods(self.methods)[method]

    @property
    def names_datasets(self) -> bool:
        """Whether it matters which dataset students learnt from."""
        datasets = {setting.trained_on.label for setting in self.cells}
        home = label_dataset(self.tested_on.dataset, self.tested_on.phantom)
        return bool(datasets - {home})

    def told(self, setting: Setting) -> str:
        """Says what tells a setting from those of its network, dataset, size and start."""
        return tell_settings(self.cells)[setting]

    def size(self, setting: Setting) -> str:
        """Returns how many images were learnt from, and what tells a setting from its likes."""
        told = self.told(setting)
        return f"{setting.trained_on.samples:,}{f', {told}' if told else ''}"

    def label_of(self, setting: Setting) -> str:
        """Names a setting, such as ``"DenseNet-121, 1,000 images"``, without its first weights."""
        images = f"{setting.trained_on.samples:,} images"
        if self.names_datasets:
            images += f" of {setting.trained_on.label}"
        told = self.told(setting)
        return ", ".join([setting.network.label, images, *([told] if told else [])])


def make_studies(
    runs: Iterable[ClassifierRun], settings: Settings = NOT_KNOWN
) -> tuple[list[Study], list[tuple[str, str]]]:
    """Groups evaluations by test set, setting and method.

    Args:
        settings: of their trainings, as far as they are known.

    Returns:
        The studies, those with most students first, and place and reason of runs that are left
        out: a second run of the same seed would make an interval look narrower than it is.
    """
    runs = sorted(runs, key=lambda run: run.order)
    lineages = [run.lineage for run in runs]
    teachers = {each.method.teacher.weights_sha256 for each in lineages if each.method.teacher}
    starts = {each.start.weights_sha256 for each in lineages} - {None}
    left_out: list[tuple[str, str]] = []
    tests = dict.fromkeys(run.tested_on for run in runs)
    labels = _label_tests(tests)
    studies = []
    for tested_on in tests:
        here = [run for run in runs if run.tested_on == tested_on]
        students = [run for run in here if _is_student(run, teachers, starts)]
        cells, again = arrange((run.network, run.lineage, run) for run in students)
        left_out += [(run.place, _repeats(run, first, settings)) for run, first in again]
        methods = dict.fromkeys(method for cell in cells.values() for method in cell)
        ordered = tuple(sorted(methods, key=lambda method: method.order))
        places = {run.place for run in students}
        others = tuple(run for run in here if run.place not in places)
        repeats = {
            setting: {method: Repeats(tuple(found)) for method, found in cell.items()}
            for setting, cell in cells.items()
        }
        studies.append(Study(tested_on, labels[tested_on], repeats, ordered, others))
    return sorted(studies, key=lambda study: -len(study.cells)), left_out


def _repeats(run: ClassifierRun, first: ClassifierRun, settings: Settings) -> str:
    seed, names = first.lineage.repetition[0], differing((first, run), settings)
    otherwise = f", though trained with other settings: {list_some(names)}" if names else ""
    return f"repeats seed {seed} of {first.place}, which is counted{otherwise}"


def _is_student(run: ClassifierRun, teachers: set[str | None], starts: set[str | None]) -> bool:
    """Teachers are no students; nor are networks from elsewhere that students started from."""
    if not run.lineage.is_whole or run.weights_sha256 in teachers:
        return False
    at_home = run.lineage.learnt.fingerprint == run.tested_on.fingerprint
    return at_home or run.weights_sha256 not in starts


def baselines(cell: dict[Method, Repeats]) -> list[Method]:
    """Returns the methods of a setting that follow no teacher."""
    return [method for method in cell if method.kind == TRANSFER_LEARNING]


def _label_tests(tests: Iterable[EvaluationSet]) -> dict[EvaluationSet, str]:
    """Names test sets; where names are the same, says what differs."""
    findings = describe_findings(each.findings for each in tests)

    def describe(each: EvaluationSet) -> Mapping[str, str]:
        return {
            "findings": findings[each.findings],
            **describe_policy(each.policy),
            "size": f"{each.height} × {each.width} pixels",
            "packing": describe_packing(each.fingerprint),
        }

    told = tell_apart(tests, lambda each: each.label, describe)
    return {each: f"{each.label}{f', {words}' if words else ''}" for each, words in told.items()}


def tell_settings(settings: Iterable[Setting]) -> dict[Setting, str]:
    """Says what differs between settings of one network, dataset, size and start."""
    findings = describe_findings(each.findings for each in settings)

    def name(each: Setting) -> tuple[Any, ...]:
        trained_on = each.trained_on
        return each.network, trained_on.label, trained_on.samples, each.start

    def describe(each: Setting) -> Mapping[str, str]:
        return {
            "findings": findings[each.findings],
            **describe_policy(each.policy),
            "splits": describe_splits(each.trained_on.splits),
            "packing": describe_packing(each.trained_on.fingerprint),
        }

    return tell_apart(settings, name, describe)
