"""Tables in the shape of the paper's tables 2 to 6, its own figures beside ours."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial

from nakt_dist.records.evaluation_set import describe_splits
from nakt_dist.records.lineage import Network
from nakt_dist.report import paper
from nakt_dist.report.document import NOTHING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import NetworkName, SegmentationRun, show_interval
from nakt_dist.report.roles import Role, describe_rules
from nakt_dist.report.tables import (
    Capability,
    Transfer,
    capabilities,
    find_teacher,
    show_capability,
    students_of,
    transfer_of,
)
from nakt_dist.report.wording import grouped

_STAR = "* marks students whose transferal images were chosen by exclusion, as in the paper."
_PAPER_SETS = (
    f"The paper's table 2 tests on {paper.BREAST_LESION_2}, its table 3 on {paper.BAHEYA}."
)
_ONE_TEST_SET = ("table 2", "table 3", "table 4", "table 5")
_STARTED_FROM = {
    Role.FROM_SCRATCH: "Trained from scratch",
    Role.FINE_TUNED_STUDENT: "",
    Role.FINE_TUNED_TEACHER: "Teacher, fine-tuned",
    Role.FINE_TUNED: "Another network, fine-tuned",
}
"""Names the rows of networks that learnt few annotations; students' by what they learnt before."""


def single_teacher_tables(evaluations: Sequence[SegmentationRun]) -> list[Table]:
    """Shows students of one teacher (paper A, tables 2 and 3), a table per teacher and test set."""
    students = [run for run in students_of(evaluations) if len(_teachers(run)) == 1]
    groups = grouped(students, lambda run: (run.tested_on, _teachers(run)))
    return [_single_teacher(group, evaluations) for group in groups.values()]


def _single_teacher(
    students: list[SegmentationRun], evaluations: Sequence[SegmentationRun]
) -> Table:
    tested_on, (teacher,) = students[0].tested_on, _teachers(students[0])
    found = capabilities(evaluations)
    best = {capability.best for capability in found.values()}
    transfers = grouped(students, transfer_of)
    rows = [
        runs
        for together in transfers.values()
        for runs in grouped(together, lambda run: run.excluded).values()
    ]
    first = {together[0]: transfer for transfer, together in transfers.items()}

    def capability(runs: list[SegmentationRun]) -> Cell:
        transfer = first.get(runs[0])
        return Cell("") if transfer is None else _capability_cell(found[transfer], transfer)

    columns = (
        Column("Transferal dataset", _dataset_cell),
        *_network_columns(students, lambda _: "student", best),
        Column("KTC %", capability),
    )
    run = find_teacher(teacher, tested_on, evaluations)
    remarks = [_teacher_sentence(teacher, run, tested_on.dataset), _STAR]
    if len(paper.counterpart_test_sets(tested_on.dataset)) > 1:
        remarks.append(_PAPER_SETS)
    if any(found[transfer].students > 1 for transfer in transfers):
        remarks.append(
            "KTC takes the best of several students by their Dice on the test images themselves, "
            "as the paper does, and is therefore optimistic."
        )
    title = f"Tables 2 and 3: students of teacher “{teacher.name}”, tested on {tested_on.label}"
    return tabulate(title, columns, rows, remarks)


def _capability_cell(capability: Capability, transfer: Transfer) -> Cell:
    notes = [capability.reason] if capability.reason else [f"best: {capability.best.name}"]
    ours = capability.best.lineage.learnt.dataset
    theirs = paper.find_capability(transfer.tested_on.dataset, ours)
    notes += [f"paper: {each}" for each in theirs]
    return Cell(show_capability(capability), tuple(notes), strong=capability.percent is not None)


def _teacher_sentence(teacher: Network, found: SegmentationRun | None, tested: str) -> str:
    theirs = _printed(paper.find_dice(tested, "teacher", "DeepLabv3+"))
    printed = f" The paper's DeepLabv3+: {' and '.join(theirs)}." if theirs else ""
    if found is None:
        return f"Teacher “{teacher.name}” was not evaluated on these images.{printed}"
    return (
        f"Teacher “{teacher.name}”, {found.network.label}: {found.dice} %, 95 % interval "
        f"{show_interval(found.interval)}, {found.images} images.{printed}"
    )


def fine_tuning_tables(evaluations: Sequence[SegmentationRun]) -> list[Table]:
    """Shows networks fine-tuned on few annotated images beside ones trained on them alone.

    Paper A, tables 4 and 5: a table per test set and choice of annotated images.
    """
    tuned = [run for run in evaluations if run.role in _STARTED_FROM]

    def annotated(run: SegmentationRun) -> tuple[Hashable, ...]:
        last = run.lineage.trainings[0]
        return run.tested_on, last.fingerprint, last.samples, last.splits

    return [_fine_tuning(group) for group in grouped(tuned, annotated).values()]


def _fine_tuning(runs: list[SegmentationRun]) -> Table:
    tested_on, annotated = runs[0].tested_on, runs[0].lineage.trainings[0]
    by_role = grouped(runs, lambda run: run.role)
    rows = [
        part
        for role in _STARTED_FROM
        for part in grouped(by_role.get(role, []), _transfer_key).values()
    ]
    columns = (
        Column("Started from", _started_from),
        *_network_columns(runs, lambda part: part[0].role.value),
    )
    number = {paper.BAHEYA: "Table 4", "Thyroid Nodule": "Table 5"}.get(
        paper.dataset_name(tested_on.dataset) or "", "Tables 4 and 5"
    )
    usual = annotated.splits == ("train",)
    title = (
        f"{number}: fine-tuned on {annotated.samples} annotated images of {annotated.label}"
        f"{'' if usual else f', {describe_splits(annotated.splits)}'}, or trained on them alone; "
        f"tested on {tested_on.label}"
    )
    return tabulate(title, columns, rows, (_STAR,))


def _started_from(runs: Sequence[SegmentationRun]) -> Cell:
    label = _STARTED_FROM[runs[0].role]
    return Cell(label) if label else _dataset_cell(runs)


def _transfer_key(run: SegmentationRun) -> tuple[Hashable, bool]:
    training = run.transfer
    return (training and (training.teachers, training.label, training.fingerprint)), run.excluded


def several_teachers_tables(evaluations: Sequence[SegmentationRun]) -> list[Table]:
    """Shows several teachers beside the student of them all (paper A, table 6)."""
    students = [run for run in students_of(evaluations) if len(_teachers(run)) > 1]
    return [
        _several_teachers(teachers, group, evaluations)
        for teachers, group in grouped(students, _teachers).items()
    ]


def _several_teachers(
    teachers: tuple[Network, ...],
    students: list[SegmentationRun],
    evaluations: Sequence[SegmentationRun],
) -> Table:
    def kind(run: SegmentationRun) -> tuple[NetworkName, str, bool]:
        return run.network, run.lineage.learnt.label, run.excluded

    def teacher_cell(tests: Sequence[SegmentationRun], teacher: Network) -> Cell:
        run = find_teacher(teacher, tests[0].tested_on, evaluations)
        return _dice_cell([run], "one of several teachers") if run else Cell("not evaluated")

    def student_cell(
        tests: Sequence[SegmentationRun], wanted: tuple[NetworkName, str, bool]
    ) -> Cell:
        runs = [run for run in tests if kind(run) == wanted]
        return _dice_cell(runs, "student of several teachers")

    columns = [Column("Test set", lambda tests: tests[0].tested_on.label)]
    for each in teachers:
        columns.append(Column(f"Teacher “{each.name}”", partial(teacher_cell, teacher=each)))
    for wanted in grouped(students, kind):
        network, dataset, excluded = wanted
        name = f"Student {network.label}, {dataset}{'*' if excluded else ''}"
        columns.append(Column(name, partial(student_cell, wanted=wanted)))
    by_test = grouped(students, lambda run: run.tested_on)
    remarks = [_STAR]
    for tested_on, tests in by_test.items():
        found = [run for each in teachers if (run := find_teacher(each, tested_on, evaluations))]
        if len(found) == len(teachers):
            remarks.append(_best_against_best(tests, found, tested_on.label))
    title = f"Table 6: one student of {len(teachers)} teachers"
    return tabulate(title, columns, by_test.values(), remarks)


def _best_against_best(
    students: Sequence[SegmentationRun], teachers: Sequence[SegmentationRun], tested_on: str
) -> str:
    gain = max(run.mean for run in students) - max(run.mean for run in teachers)
    side = "above" if gain >= 0 else "below"
    return (
        f"On {tested_on} the best student's mean Dice lies {abs(gain):.2f} points {side} that of "
        "the best teacher."
    )


def _network_columns(
    runs: Iterable[SegmentationRun],
    role: Callable[[Sequence[SegmentationRun]], str],
    best: Iterable[SegmentationRun] = (),
) -> Iterator[Column]:
    """Makes a column for each network; a row is some runs, the role what the paper calls them."""
    for network in sorted({run.network for run in runs}, key=lambda network: network.order):

        def show(row: Sequence[SegmentationRun], network: NetworkName = network) -> Cell:
            return _dice_cell([run for run in row if run.network == network], role(row), best)

        yield Column(network.label, show)


def _dice_cell(
    runs: Sequence[SegmentationRun], role: str, best: Iterable[SegmentationRun] = ()
) -> Cell:
    """Shows one Dice, or the best of several with the others below it."""
    if not runs:
        return Cell(NOTHING)
    first, *others = sorted(runs, key=lambda run: -run.mean)
    notes = [f"the best of {len(runs)}: {first.name}"] if others else []
    notes += [f"95 %: {show_interval(first.interval)}", f"{first.images} images"]
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
    notes += [first.warning] if first.warning else []
    return Cell(f"{first.dice}{first.warned}", tuple(notes), strong=first in best)


def _printed(scores: Iterable[paper.PaperDice]) -> list[str]:
    return [
        f"{score.mean:.2f} ± {score.std:.2f} ({score.where}"
        f"{'' if score.where in _ONE_TEST_SET else f', {score.test_set}'})"
        for score in scores
    ]


def _dataset_cell(runs: Sequence[SegmentationRun]) -> Cell:
    """Names a transferal dataset, starred where images were excluded, with its numbers."""
    trainings = list(dict.fromkeys(run.transfer for run in runs if run.transfer))
    counts = sorted({training.samples for training in trainings})
    notes = [f"{' or '.join(map(str, counts))} images"]
    notes += dict.fromkeys(map(describe_rules, trainings))
    teachers = " + ".join(teacher.name for teacher in trainings[0].teachers)
    star = "*" if runs[0].excluded else ""
    return Cell(f"{trainings[0].label}{star}", (*notes, f"teacher: {teachers}"))


def _teachers(run: SegmentationRun) -> tuple[Network, ...]:
    return run.transfer.teachers if run.transfer else ()
