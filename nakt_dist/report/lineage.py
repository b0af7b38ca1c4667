"""What a network learnt from, step by step, and the part it plays in an experiment."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.report.fields import label_dataset, printable, read_field, read_names
from nakt_dist.report.following import NOBODY, Following, Kind, read_following
from nakt_dist.report.training_sets import TrainingSet, read_training_set
from nakt_dist.transfer.exclusion import ExclusionRule


class Role(StrEnum):
    """The part a network plays, in the order in which tables and figures show them."""

    TEACHER = "teacher"
    STUDENT = "student"
    DISTILLED = "student, distillation"
    ATTENTIVE = "student, attention transfer"
    DISTILLED_AND_ATTENTIVE = "student, attention transfer and distillation"
    FROM_SCRATCH = "from scratch"
    FINE_TUNED_STUDENT = "fine-tuned student"
    FINE_TUNED_TEACHER = "fine-tuned teacher"
    FINE_TUNED = "fine-tuned"
    FOREIGN = "foreign weights"
    OTHER = "other"


FOLLOWING = {
    Kind.DISTILLATION: Role.DISTILLED,
    Kind.ATTENTION: Role.ATTENTIVE,
    Kind.BOTH: Role.DISTILLED_AND_ATTENTIVE,
}
"""Roles of networks that learn annotations while they follow a teacher."""


@dataclass(frozen=True)
class TeacherName:
    """A teacher as a student's lineage names it; the weights alone tell teachers apart.

    Attributes:
        name: what the user called it.
        weights_sha256: of its weights file.
    """

    name: str = field(compare=False)
    weights_sha256: str


@dataclass(frozen=True)
class Training:
    """One training of a network.

    Attributes:
        dataset: name of the dataset.
        fingerprint: of its manifest.
        phantom: whether its images are procedural.
        samples: images learnt from.
        splits: splits used; None for all.
        teachers: who wrote the pseudo masks; empty where annotations were learnt.
        before_exclusion: images before exclusion, of pseudo masks only.
        pseudo_labels_fingerprint: of their manifest.
        exclusion: the rule, or None where nothing was excluded.
        following: whom it followed meanwhile, by attention transfer or distillation; or None.
    """

    dataset: str
    fingerprint: str
    phantom: bool
    samples: int
    splits: tuple[str, ...] | None
    teachers: tuple[TeacherName, ...] = ()
    before_exclusion: int | None = None
    pseudo_labels_fingerprint: str | None = None
    exclusion: ExclusionRule | None = None
    following: Following | None = None

    @property
    def label(self) -> str:
        """The dataset's name, marked where it is a phantom."""
        return label_dataset(self.dataset, self.phantom)


@dataclass(frozen=True)
class Lineage:
    """All trainings that led to a network.

    Attributes:
        trainings: the last one first; empty for weights that are not ours.
        ancestors: SHA-256 of the weights each training but a fresh one started from.
        starts_unknown: whether the first training started from weights of unknown origin.
        validated_on: the images the last training's epoch was chosen on; None where it is the
            last epoch.
    """

    trainings: tuple[Training, ...]
    ancestors: tuple[str, ...]
    starts_unknown: bool
    validated_on: TrainingSet | None = None

    @property
    def transfer(self) -> Training | None:
        """The last training on pseudo masks, if there was one."""
        return next((training for training in self.trainings if training.teachers), None)

    @property
    def teachers(self) -> tuple[TeacherName, ...]:
        """The teachers of every training on pseudo masks."""
        return tuple(teacher for training in self.trainings for teacher in training.teachers)

    @property
    def teachers_weights(self) -> set[str]:
        """SHA-256 of every network that wrote its pseudo masks or that it followed."""
        followed = [each.following.teacher for each in self.trainings if each.following]
        return {teacher.weights_sha256 for teacher in (*self.teachers, *followed)}

    def role(self, weights_sha256: str, teachers: Iterable[str]) -> Role:
        """Says which part the network plays.

        Args:
            weights_sha256: of its weights file.
            teachers: SHA-256 of every known teacher's weights file.
        """
        teachers = set(teachers)
        if not self.trainings:
            return Role.TEACHER if weights_sha256 in teachers else Role.FOREIGN
        last = self.trainings[0]
        if last.following is not None and not last.teachers and weights_sha256 not in teachers:
            return FOLLOWING[last.following.kind]
        if not self.ancestors:
            if last.teachers:
                return Role.STUDENT
            return Role.TEACHER if weights_sha256 in teachers else Role.FROM_SCRATCH
        if last.teachers:
            return Role.OTHER
        if self.transfer is not None:
            return Role.FINE_TUNED_STUDENT
        fine_tuned_teacher = teachers.intersection(self.ancestors)
        return Role.FINE_TUNED_TEACHER if fine_tuned_teacher else Role.FINE_TUNED

    def describe(self) -> str:
        """Says in words what the network learnt from, the first training first."""
        steps = ["weights of unknown origin"] if self.starts_unknown or not self.trainings else []
        for training in reversed(self.trainings):
            kind = "pseudo masks" if training.teachers else "annotations"
            step = f"{training.samples} {kind} of {training.label}"
            if training.following is not None:
                how = training.following.kind.value.lower()
                step += f" with {how} from {training.following.teacher.label}"
            steps.append(step)
        return ", then ".join(steps)


def describe_rule(rule: ExclusionRule | None) -> str:
    """Says in a few words which images a rule excludes."""
    if rule is None:
        return "no exclusion"
    parts = []
    if rule.alpha is not None:
        side = " at 384 × 384" if rule.scale_alpha else ""
        parts.append(f"N < {show_threshold(rule.alpha)}{side}")
    if rule.beta is not None:
        parts.append(f"E > {rule.beta:g} bits")
    return (" or " if rule.combine == "either" else " and ").join(parts) or "no exclusion"


def show_threshold(value: float) -> str:
    """Returns a threshold as text with at most one decimal, such as ``"256"`` or ``"7.1"``."""
    return f"{value:.1f}".removesuffix(".0")


def parse_lineage(value: Mapping[str, Any], known: Mapping[str, TrainingSet] = NOBODY) -> Lineage:
    """Reads the lineage a weights file carries.

    Args:
        value: as ``nakt train`` writes it; empty for weights that are not ours.
        known: what networks learnt from, by their weights, for what lineages leave out.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    trainings: list[Training] = []
    ancestors: list[str] = []
    chosen_on = value.get("validated_on")
    validated_on = None if chosen_on is None else read_training_set(chosen_on)
    while value:
        training = _parse_training(read_field(value, "trained_on", Mapping))
        if value.get("transfer") is not None:
            transfer = read_field(value, "transfer", Mapping)
            training = replace(training, following=read_following(transfer, known))
        trainings.append(training)
        parent = read_field(value, "parent", (Mapping, type(None)))
        if parent is None:
            return Lineage(tuple(trainings), tuple(ancestors), False, validated_on)
        ancestors.append(read_field(parent, "weights_sha256", str))
        value = read_field(parent, "lineage", Mapping)
    return Lineage(tuple(trainings), tuple(ancestors), True, validated_on)


def _parse_training(value: Mapping[str, Any]) -> Training:
    common = {
        "dataset": printable(read_field(value, "dataset", str)),
        "fingerprint": read_field(value, "fingerprint", str),
        "phantom": read_field(value, "phantom", bool),
        "samples": read_field(value, "samples", int),
        "splits": read_names(value, "splits"),
    }
    labels = read_field(value, "labels", str)
    if labels == "annotations":
        return Training(**common)
    if labels != "pseudo masks":
        raise DatasetError(f"labels is {labels!r:.60}, expected 'annotations' or 'pseudo masks'")
    teachers = tuple(
        TeacherName(
            printable(read_field(each, "name", str)), read_field(each, "weights_sha256", str)
        )
        for each in read_field(value, "teachers", list)
    )
    if not teachers:
        raise DatasetError("teachers is empty, expected at least one for pseudo masks")
    return Training(
        **common,
        teachers=teachers,
        before_exclusion=read_field(value, "before_exclusion", int),
        pseudo_labels_fingerprint=read_field(value, "pseudo_labels_fingerprint", str),
        exclusion=parse_rule(read_field(value, "exclusion", (Mapping, type(None)))),
    )


def parse_rule(value: Mapping[str, Any] | None) -> ExclusionRule | None:
    """Reads an exclusion rule; one without any threshold counts as none.

    Raises:
        DatasetError: a field is missing, unknown or of another type.
    """
    if value is None:
        return None
    number_or_none = (int, float, type(None))
    rule = ExclusionRule(
        alpha=read_field(value, "alpha", number_or_none),
        beta=read_field(value, "beta", number_or_none),
        combine=read_field(value, "combine", str),
        scale_alpha=read_field(value, "scale_alpha", bool),
    )
    for name, threshold in (("alpha", rule.alpha), ("beta", rule.beta)):
        if threshold is not None and not (math.isfinite(threshold) and threshold >= 0):
            raise DatasetError(f"{name} is {threshold!r}, expected a number of at least 0 or null")
    if rule.combine not in ("either", "both"):
        raise DatasetError(f"combine is {rule.combine!r:.60}, expected 'either' or 'both'")
    return None if rule.alpha is None and rule.beta is None else rule
