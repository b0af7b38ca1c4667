"""Tables in the shape of the paper's tables 2 to 6, its own figures beside ours."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from nakt_dist.records.evaluation_set import describe_splits
from nakt_dist.records.lineage import Network, TrainingSet
from nakt_dist.report import paper
from nakt_dist.report.capability import (
    Capability,
    Transfer,
    find_teacher,
    transfer_of,
)
from nakt_dist.report.document import WARNING, Cell, Table
from nakt_dist.report.evaluations import EvaluatedRun
from nakt_dist.report.network_names import NetworkName
from nakt_dist.report.roles import Role, describe_rule
from nakt_dist.report.tables import NOTHING, show_capability

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
_STAR = "* marks students whose transferal images were chosen by exclusion, as in the paper."
_PAPER_SETS = (
    f"The paper's table 2 tests on {paper.BREAST_LESION_2}, its table 3 on {paper.BAHEYA}."
)
_ONE_TEST_SET = ("table 2", "table 3", "table 4", "table 5")
_TUNED = (Role.FROM_SCRATCH, Role.FINE_TUNED_STUDENT, Role.FINE_TUNED_TEACHER, Role.FINE_TUNED)


def single_teacher_tables(
    evaluations: Sequence[EvaluatedRun], capabilities: Mapping[Transfer, Capability]
) -> list[Table]:
    """Shows students of one teacher (paper A, tables 2 and 3), a table per teacher and test set."""
    students = [run for run in evaluations if run.role == Role.STUDENT and len(_teachers(run)) == 1]
    groups = _grouped(students, lambda run: (run.tested_on, _teachers(run)))
    return [_single_teacher(group, evaluations, capabilities) for group in groups.values()]


def _single_teacher(
    students: list[EvaluatedRun],
    evaluations: Sequence[EvaluatedRun],
    capabilities: Mapping[Transfer, Capability],
) -> Table:
    tested_on, (teacher,) = students[0].tested_on, _teachers(students[0])
    networks = _networks(students)
    best = {capability.best for capability in capabilities.values()}
    rows = []
    for transfer, group in _grouped(students, transfer_of).items():
        capability = _capability_cell(capabilities[transfer], transfer)
        for excluded, runs in _grouped(group, lambda run: run.excluded).items():
            cells = [_cell_of(runs, network, "student", best) for network in networks]
            rows.append((_dataset_cell(runs, excluded), *cells, capability))
            capability = Cell("")
    found = find_teacher(teacher, tested_on, evaluations)
    remarks = [_teacher_sentence(teacher, found, tested_on.dataset), _STAR]
    if len(paper.counterpart_test_sets(tested_on.dataset)) > 1:
        remarks.append(_PAPER_SETS)
    if any(capabilities[transfer].students > 1 for transfer in _grouped(students, transfer_of)):
        remarks.append(
            "KTC takes the best of several students by their Dice on the test images themselves, "
            "as the paper does, and is therefore optimistic."
        )
    return Table(
        f"Tables 2 and 3: students of teacher “{teacher.name}”, tested on {tested_on.label}",
        ("Transferal dataset", *(network.label for network in networks), "KTC %"),
        tuple(rows),
        tuple(remarks),
    )


def _capability_cell(capability: Capability, transfer: Transfer) -> Cell:
    notes = [capability.reason] if capability.reason else [f"best: {capability.best.name}"]
    training = capability.best.transfer
    theirs = paper.find_capability(transfer.tested_on.dataset, training.dataset)
    notes += [f"paper: {each}" for each in theirs]
    return Cell(show_capability(capability), tuple(notes), strong=capability.percent is not None)


def _teacher_sentence(teacher: Network, found: EvaluatedRun | None, tested: str) -> str:
    theirs = _printed(paper.find_dice(tested, "teacher", "DeepLabv3+"))
    printed = f" The paper's DeepLabv3+: {' and '.join(theirs)}." if theirs else ""
    if found is None:
        return f"Teacher “{teacher.name}” was not evaluated on these images.{printed}"
    return (
        f"Teacher “{teacher.name}”, {found.network.label}: {found.dice} %, 95 % interval "
        f"{found.interval}, {found.images} images.{printed}"
    )


def fine_tuning_tables(evaluations: Sequence[EvaluatedRun]) -> list[Table]:
    """Shows networks fine-tuned on few annotated images beside ones trained on them alone.

    Paper A, tables 4 and 5: a table per test set and choice of annotated images.
    """
    tuned = [run for run in evaluations if run.role in _TUNED]

    def annotated(run: EvaluatedRun) -> tuple[Hashable, ...]:
        last = run.lineage.trainings[0]
        return run.tested_on, last.fingerprint, last.samples, last.splits

    return [_fine_tuning(group) for group in _grouped(tuned, annotated).values()]


def _fine_tuning(runs: list[EvaluatedRun]) -> Table:
    tested_on, annotated = runs[0].tested_on, runs[0].lineage.trainings[0]
    networks = _networks(runs)
    rows = []
    for role, label in (
        (Role.FROM_SCRATCH, "Trained from scratch"),
        (Role.FINE_TUNED_STUDENT, None),
        (Role.FINE_TUNED_TEACHER, "Teacher, fine-tuned"),
        (Role.FINE_TUNED, "Another network, fine-tuned"),
    ):
        group = [run for run in runs if run.role == role]
        for (_, excluded), part in _grouped(group, _transfer_key).items():
            cells = [_cell_of(part, network, role.value) for network in networks]
            name = Cell(label) if label else _dataset_cell(part, excluded)
            rows.append((name, *cells))
    number = {paper.BAHEYA: "Table 4", "Thyroid Nodule": "Table 5"}.get(
        paper.dataset_name(tested_on.dataset), "Tables 4 and 5"
    )
    title = (
        f"{number}: fine-tuned on {annotated.samples} annotated images of {annotated.label}"
        f"{_unlike_training_splits(annotated)}, or trained on them alone; tested on "
        f"{tested_on.label}"
    )
    header = ("Started from", *(network.label for network in networks))
    return Table(title, header, tuple(rows), (_STAR,))


def _unlike_training_splits(annotated: TrainingSet) -> str:
    """Names the splits that were learnt from, where these are not the usual ones."""
    return "" if annotated.splits == ("train",) else f", {describe_splits(annotated.splits)}"


def _transfer_key(run: EvaluatedRun) -> tuple[Hashable, bool]:
    training = run.transfer
    return (training and (training.teachers, training.label, training.fingerprint)), run.excluded


def several_teachers_tables(evaluations: Sequence[EvaluatedRun]) -> list[Table]:
    """Shows several teachers beside the student of them all (paper A, table 6)."""
    students = [run for run in evaluations if run.role == Role.STUDENT and len(_teachers(run)) > 1]
    return [
        _several_teachers(teachers, group, evaluations)
        for teachers, group in _grouped(students, _teachers).items()
    ]


def _several_teachers(
    teachers: tuple[Network, ...],
    students: list[EvaluatedRun],
    evaluations: Sequence[EvaluatedRun],
) -> Table:
    def column(run: EvaluatedRun) -> tuple[NetworkName, str, bool]:
        return run.network, run.transfer.label, run.excluded

    columns = list(_grouped(students, column))
    rows, remarks = [], [_STAR]
    for tested_on, group in _grouped(students, lambda run: run.tested_on).items():
        found = [find_teacher(teacher, tested_on, evaluations) for teacher in teachers]
        cells = [
            _dice_cell([run], "one of several teachers") if run else Cell("not evaluated")
            for run in found
        ]
        for wanted in columns:
            runs = [run for run in group if column(run) == wanted]
            cells.append(_dice_cell(runs, "student of several teachers"))
        rows.append((Cell(tested_on.label), *cells))
        if all(found):
            remarks.append(_best_against_best(group, found, tested_on.label))
    names = [f"Teacher “{teacher.name}”" for teacher in teachers]
    names += [
        f"Student {network.label}, {dataset}{'*' if excluded else ''}"
        for network, dataset, excluded in columns
    ]
    title = f"Table 6: one student of {len(teachers)} teachers"
    return Table(title, ("Test set", *names), tuple(rows), tuple(remarks))


def _best_against_best(
    students: Sequence[EvaluatedRun], teachers: Sequence[EvaluatedRun], tested_on: str
) -> str:
    gain = max(run.dice_mean for run in students) - max(run.dice_mean for run in teachers)
    side = "above" if gain >= 0 else "below"
    return (
        f"On {tested_on} the best student's mean Dice lies {abs(gain):.2f} points {side} that of "
        "the best teacher."
    )


def _cell_of(
    runs: Iterable[EvaluatedRun],
    network: NetworkName,
    role: str,
    best: Iterable[EvaluatedRun] = (),
) -> Cell:
    return _dice_cell([run for run in runs if run.network == network], role, best)


def _dice_cell(runs: Sequence[EvaluatedRun], role: str, best: Iterable[EvaluatedRun] = ()) -> Cell:
    """Shows one Dice, or the best of several with the others below it."""
    if not runs:
        return Cell(NOTHING)
    first, *others = sorted(runs, key=lambda run: -run.dice_mean)
    notes = [f"the best of {len(runs)}: {first.name}"] if others else []
    notes += [f"95 %: {first.interval}", f"{first.images} images"]
    notes += [f"{run.name}: {run.dice}" for run in others]
    if first.network.paper_name is not None:
        theirs = paper.find_dice(
            first.tested_on.dataset,
            role,
            first.network.paper_name,
            first.transfer.dataset if first.transfer else None,
            first.excluded,
        )
        notes += [f"paper: {each}" for each in _printed(theirs)]
    warned = f" {WARNING}" if first.seen_before() else ""
    notes += [each for each in (first.seen_before(),) if each is not None]
    return Cell(f"{first.dice}{warned}", tuple(notes), strong=first in best)


def _printed(scores: Iterable[paper.PaperDice]) -> list[str]:
    return [
        f"{score.mean:.2f} ± {score.std:.2f} ({score.where}"
        f"{'' if score.where in _ONE_TEST_SET else f', {score.test_set}'})"
        for score in scores
    ]


def _dataset_cell(runs: Sequence[EvaluatedRun], excluded: bool) -> Cell:
    """Names a transferal dataset, starred where images were excluded, with its numbers."""
    trainings: list[TrainingSet] = list(dict.fromkeys(run.transfer for run in runs))
    counts = sorted({training.samples for training in trainings})
    notes = [f"{' or '.join(map(str, counts))} images"]
    notes += dict.fromkeys(describe_rule(training.exclusion) for training in trainings)
    teachers = " + ".join(teacher.name for teacher in trainings[0].teachers)
    return Cell(trainings[0].label + ("*" if excluded else ""), (*notes, f"teacher: {teachers}"))


def _teachers(run: EvaluatedRun) -> tuple[Network, ...]:
    return run.transfer.teachers if run.transfer else ()


def _networks(runs: Iterable[EvaluatedRun]) -> list[NetworkName]:
    return sorted({run.network for run in runs}, key=lambda network: network.order)


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Groups items by a key, in the order in which the keys first appear."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
