"""Capability, the main table of segmentation, and the counts before and after exclusion."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nakt_dist.evaluation.summary import knowledge_transfer_capability
from nakt_dist.records.evaluation_set import EvaluationSet, describe_splits
from nakt_dist.records.lineage import Network, TrainingSet
from nakt_dist.records.pseudo_sets import PseudoSet, apply_rule
from nakt_dist.records.seen_images import seen_otherwise
from nakt_dist.report import paper
from nakt_dist.report.cautions import meetings
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import SegmentationRun, show_interval
from nakt_dist.report.roles import Role, describe_lineage, describe_rule, describe_rules
from nakt_dist.report.wording import grouped
from nakt_dist.transfer.exclusion import ExclusionRule

_DICE = (
    "Dice: mean ± standard deviation over the test images, in percent; the interval is a 95 % "
    "bootstrap interval of the mean."
)
_CAPABILITY = (
    "KTC, the knowledge-transfer capability of a transferal dataset, is 100 × the Dice of the "
    "best student trained on it, with or without exclusion, / the Dice of the teacher that wrote "
    "its pseudo masks, on the same test images. It stands in the row of that student, whose Dice "
    "is in bold."
)


@dataclass(frozen=True)
class Transfer:
    """What a capability belongs to; students with and without exclusion share it.

    Attributes:
        dataset: the transferal dataset as tables show it.
    """

    teachers: tuple[Network, ...]
    dataset: str
    fingerprint: str
    tested_on: EvaluationSet


@dataclass(frozen=True)
class Capability:
    """The capability of one transferal dataset.

    Attributes:
        percent: 100 × best student's Dice / teacher's Dice; None where there is no teacher.
        reason: why there is none; empty where there is one.
        best: the best of so many students.
        teacher: its evaluation on the same images, or None.
    """

    percent: float | None
    reason: str
    best: SegmentationRun
    students: int
    teacher: SegmentationRun | None = None


def students_of(evaluations: Iterable[SegmentationRun]) -> list[SegmentationRun]:
    """Returns those that learnt pseudo masks alone; fine-tuned students have seen annotations."""
    return [run for run in evaluations if run.role == Role.STUDENT]


def transfer_of(run: SegmentationRun) -> Transfer:
    """Returns what a student belongs to."""
    training = run.lineage.learnt
    return Transfer(training.teachers, training.label, training.fingerprint, run.tested_on)


def capabilities(evaluations: Sequence[SegmentationRun]) -> dict[Transfer, Capability]:
    """Computes the capability of every transferal dataset, per teacher and test set."""
    students = grouped(students_of(evaluations), transfer_of)
    return {
        transfer: _capability(transfer, group, evaluations) for transfer, group in students.items()
    }


def find_teacher(
    teacher: Network, tested_on: EvaluationSet, evaluations: Sequence[SegmentationRun]
) -> SegmentationRun | None:
    """Finds a teacher's evaluation on the same images, seen as it saw those that it taught with."""
    tests = _tests_of(teacher, tested_on, evaluations)
    return next((run for run in tests if not _seen_otherwise(teacher, run)), None)


def _tests_of(
    teacher: Network, tested_on: EvaluationSet, evaluations: Sequence[SegmentationRun]
) -> list[SegmentationRun]:
    """Returns a teacher's evaluations on the same images, whatever it is called."""
    return [
        run
        for run in evaluations
        if teacher.weights_sha256 in run.files and run.tested_on == tested_on
    ]


def _seen_otherwise(teacher: Network, run: SegmentationRun) -> str:
    return seen_otherwise(teacher.seen, run.seen, (run.tested_on.height, run.tested_on.width))


def _capability(
    transfer: Transfer, students: list[SegmentationRun], evaluations: Sequence[SegmentationRun]
) -> Capability:
    best = max(students, key=lambda run: run.mean)
    if len(transfer.teachers) > 1:
        reason = f"{len(transfer.teachers)} teachers: there is no single teacher's Dice"
        return Capability(None, reason, best, len(students))
    teacher = find_teacher(transfer.teachers[0], transfer.tested_on, evaluations)
    if teacher is None:
        name = transfer.teachers[0]
        reason = (
            f"no evaluation of the teacher “{name.name}” (weights {f'{name.weights_sha256}'[:12]}) "
            "on these test images"
        )
        if tests := _tests_of(name, transfer.tested_on, evaluations):
            reason += f" as it saw images when it taught ({_seen_otherwise(name, tests[0])})"
        return Capability(None, reason, best, len(students))
    if teacher.mean == 0:
        return Capability(None, "the teacher's Dice is 0", best, len(students), teacher)
    percent = knowledge_transfer_capability(best.mean, teacher.mean)
    return Capability(percent, "", best, len(students), teacher)


def main_table(evaluations: Sequence[SegmentationRun]) -> Table:
    """Shows every evaluation in one row, by the part its network plays."""
    several = len({run.tested_on for run in evaluations}) > 1
    leading = {each.best: each for each in capabilities(evaluations).values()}

    def dice(run: SegmentationRun) -> Cell:
        return Cell(f"{run.dice}{run.warned}", strong=run in leading)

    def capability(run: SegmentationRun) -> Cell:
        found = leading.get(run)
        if found is None:
            return Cell("")
        return Cell(show_capability(found), strong=found.percent is not None)

    columns = (
        Column("Role", lambda run: run.role.value),
        Column("Run", lambda run: run.name),
        Column("Network", lambda run: run.network.label),
        Column("Dice %", dice),
        Column("95 % interval", lambda run: show_interval(run.interval)),
        Column("KTC %", capability),
        Column("Test set", lambda run: run.tested_on.label, shown=several, minor=True),
        Column("Test images", _count_images, minor=True),
        Column("Learnt from", lambda run: describe_lineage(run.lineage), minor=True),
        Column("Exclusion", _exclusion, minor=True),
    )
    remarks = [_DICE, _CAPABILITY, *(f"{WARNING} {each}" for each in meetings(evaluations))]
    remarks += [
        f"No KTC for {run.lineage.learnt.label}: {leading[run].reason}."
        for run in evaluations
        if run in leading and leading[run].percent is None
    ]
    remarks += [
        f"The KTC of {run.name} is of Dice over {run.images} images by Dice over "
        f"{found.teacher.images}: images without a defined Dice are others for its teacher."
        for run, found in leading.items()
        if found.percent is not None and found.teacher and found.teacher.images != run.images
    ]
    title = "All evaluations" if several else f"Tested on {evaluations[0].tested_on.label}"
    return tabulate(title, columns, evaluations, dict.fromkeys(remarks))


def show_capability(capability: Capability) -> str:
    """Returns a capability as text, or a dash where there is none."""
    return NOTHING if capability.percent is None else f"{capability.percent:.2f}"


def _exclusion(run: SegmentationRun) -> str:
    if run.transfer is None:
        return NOTHING
    return describe_rules(run.transfer) if run.excluded else "no"


def _count_images(run: SegmentationRun) -> str:
    left_out = f" (+ {run.images_left_out} without a defined Dice)" if run.images_left_out else ""
    return f"{run.images}{left_out}"


@dataclass(frozen=True)
class _Counted:
    """Images before and after a rule; excluded by N < α alone, by E > β alone, and by both."""

    dataset: str
    name: Cell
    rule: ExclusionRule
    before: int
    after: int
    alone: tuple[str, ...]

    @property
    def share(self) -> str:
        """Images that stay, in percent."""
        return f"{100 * self.after / self.before:.1f}" if self.before else NOTHING


def exclusion_table(
    trainings: Iterable[TrainingSet], pseudo_sets: Sequence[PseudoSet]
) -> Table | None:
    """Counts images before and after exclusion (paper A, table 7); None where there are none.

    Counts come from the statistics beside the pseudo-labels where those are among the folders
    given, else from the lineage of the networks that learnt from them.
    """
    trainings = [training for training in dict.fromkeys(trainings) if training.exclusion]
    by_set = grouped(trainings, lambda training: training.pseudo_labels_fingerprint)
    rows = [
        _count_statistics(pseudo, training)
        for pseudo in pseudo_sets
        for training in by_set.pop(pseudo.manifest.fingerprint, [None])
    ]
    rows += [
        _read_lineage(training, training.exclusion)
        for training in trainings
        if training.exclusion and training.pseudo_labels_fingerprint in by_set
    ]
    if not rows:
        return None
    columns = (
        Column("Transferal dataset", lambda row: row.name),
        Column("Rule", lambda row: describe_rule(row.rule)),
        Column("Before", lambda row: str(row.before)),
        Column("After", lambda row: str(row.after)),
        Column("Kept %", lambda row: row.share),
        Column("N < α alone", lambda row: row.alone[0]),
        Column("E > β alone", lambda row: row.alone[1]),
        Column("Both", lambda row: row.alone[2]),
        Column("The paper's table 7", _printed_counts),
    )
    remarks = (
        "N: pixels above 0.5 of the stored pseudo mask. E: grey-level entropy of it, in bits.",
        "The paper's counts are of other images and another teacher; only the share compares, "
        "and only roughly.",
    )
    return tabulate("Table 7: images before and after exclusion", columns, rows, remarks)


def _count_statistics(pseudo: PseudoSet, training: TrainingSet | None) -> _Counted:
    rule = (training and training.exclusion) or paper.EXCLUSION
    splits = training.splits if training else None
    counts = apply_rule(pseudo, rule).counts(pseudo.in_splits(splits))
    notes = [f"pseudo-labels {pseudo.name}", describe_splits(splits)]
    if training is None:
        notes.append("no network here learnt from them with exclusion: the paper's thresholds")
    elif training.samples < counts["after"]:
        notes.append(f"{training.samples} of those kept were used")
    if "unsure" in counts:
        notes.append(f"of {counts['unsure']} the teachers are not sure")
    alone = ("below_alpha_alone", "above_beta_alone", "below_alpha_and_above_beta")
    return _Counted(
        pseudo.manifest.dataset, Cell(pseudo.label, tuple(notes)), rule, counts["before"],
        counts["after"], tuple(str(counts[name]) for name in alone),
    )  # fmt: skip


def _read_lineage(training: TrainingSet, rule: ExclusionRule) -> _Counted:
    notes = (describe_splits(training.splits), "from the lineage: after a count, if one was set")
    return _Counted(
        training.dataset, Cell(training.label, notes), rule,
        training.before_exclusion, training.samples, (NOTHING,) * 3,
    )  # fmt: skip


def _printed_counts(row: _Counted) -> Cell:
    theirs = paper.find_exclusion(row.dataset)
    if theirs is None:
        return Cell(NOTHING)
    before, after = theirs
    share = f"{100 * after / before:.1f} % kept"
    return Cell(f"{before:,} → {after:,}", (f"{paper.dataset_name(row.dataset)}", share))
