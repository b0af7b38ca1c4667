"""Knowledge-transfer capability of a transferal dataset (paper A, section 5; tables 2 and 3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nakt_dist.evaluation.summary import knowledge_transfer_capability
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.lineage import Network
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.roles import Role
from nakt_dist.report.telling import grouped


@dataclass(frozen=True)
class Transfer:
    """What a capability belongs to; students with and without exclusion share it.

    Attributes:
        teachers: who wrote the pseudo masks.
        dataset: the transferal dataset as tables show it.
        fingerprint: of its manifest.
        tested_on: the test images.
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
        best: the best student.
        students: how many it is the best of.
        teacher: the teacher's evaluation on the same images, or None.
    """

    percent: float | None
    reason: str
    best: SegmentationRun
    students: int
    teacher: SegmentationRun | None


def students_of(evaluations: Iterable[SegmentationRun]) -> list[SegmentationRun]:
    """Returns those that learnt pseudo masks alone; fine-tuned students have seen annotations."""
    return [run for run in evaluations if run.role == Role.STUDENT]


def transfer_of(run: SegmentationRun) -> Transfer:
    """Returns what a student belongs to."""
    training = run.lineage.learnt
    return Transfer(training.teachers, training.label, training.fingerprint, run.tested_on)


def capabilities(evaluations: Sequence[SegmentationRun]) -> dict[Transfer, Capability]:
    """Computes the capability of every transferal dataset, per teacher and test set.

    Args:
        evaluations: all of them; the teachers' are found by their weights' SHA-256.
    """
    students = grouped(students_of(evaluations), transfer_of)
    return {
        transfer: _capability(transfer, group, evaluations) for transfer, group in students.items()
    }


def find_teacher(
    teacher: Network, tested_on: EvaluationSet, evaluations: Sequence[SegmentationRun]
) -> SegmentationRun | None:
    """Finds a teacher's evaluation on the same images, whatever it is called."""
    for run in evaluations:
        if run.weights_sha256 == teacher.weights_sha256 and run.tested_on == tested_on:
            return run
    return None


def _capability(
    transfer: Transfer, students: list[SegmentationRun], evaluations: Sequence[SegmentationRun]
) -> Capability:
    best = max(students, key=lambda run: run.mean)
    if len(transfer.teachers) > 1:
        reason = f"{len(transfer.teachers)} teachers: there is no single teacher's Dice"
        return Capability(None, reason, best, len(students), None)
    teacher = find_teacher(transfer.teachers[0], transfer.tested_on, evaluations)
    if teacher is None:
        name = transfer.teachers[0]
        reason = (
            f"no evaluation of the teacher “{name.name}” (weights {f'{name.weights_sha256}'[:12]}) "
            "on these test images"
        )
        return Capability(None, reason, best, len(students), None)
    if teacher.mean == 0:
        return Capability(None, "the teacher's Dice is 0", best, len(students), teacher)
    percent = knowledge_transfer_capability(best.mean, teacher.mean)
    return Capability(percent, "", best, len(students), teacher)
