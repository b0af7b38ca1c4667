"""The part a network plays in an experiment, and in words what it learnt from."""

from collections.abc import Iterable
from enum import StrEnum

from nakt_dist.records.lineage import ANNOTATIONS, NO_LABELS, Lineage, TrainingSet
from nakt_dist.signals.kind import Kind, following_kinds
from nakt_dist.transfer.confidence import EVERYTHING, ConfidenceRule
from nakt_dist.transfer.exclusion import ExclusionRule


def _following(kind: Kind) -> str:
    return f"student, {kind.value.lower()}"


class Role(StrEnum):
    """The part a network plays, in the order in which tables and figures show them."""

    _ignore_ = "_kind"
    TEACHER = "teacher"
    STUDENT = "student"
    for _kind in following_kinds():
        vars()["_AND_".join(_kind.signals).upper()] = _following(_kind)
    MIXED_STUDENT = "student, annotations besides"
    FROM_SCRATCH = "from scratch"
    FINE_TUNED_STUDENT = "fine-tuned student"
    FINE_TUNED_TEACHER = "fine-tuned teacher"
    FINE_TUNED = "fine-tuned"
    FOREIGN = "foreign weights"
    OTHER = "other"


FOLLOWING = {kind: Role(_following(kind)) for kind in following_kinds()}
"""Roles of networks that learn annotations while they follow a teacher."""


def role_of(lineage: Lineage, weights_sha256: str, teachers: Iterable[str]) -> Role:
    """Says which part a network plays, given the SHA-256 of every known teacher's weights."""
    teachers = set(teachers)
    if not lineage.trainings:
        return Role.TEACHER if weights_sha256 in teachers else Role.FOREIGN
    last = lineage.trainings[0]
    if lineage.following is not None and not last.teachers and weights_sha256 not in teachers:
        return FOLLOWING[lineage.following.kind]
    if not lineage.ancestors:
        if last.teachers:
            return Role.MIXED_STUDENT if last.with_annotations else Role.STUDENT
        return Role.TEACHER if weights_sha256 in teachers else Role.FROM_SCRATCH
    if last.teachers:
        return Role.OTHER
    if lineage.transfer is not None:
        return Role.FINE_TUNED_STUDENT
    fine_tuned_teacher = teachers.intersection(lineage.ancestors)
    return Role.FINE_TUNED_TEACHER if fine_tuned_teacher else Role.FINE_TUNED


def describe_lineage(lineage: Lineage) -> str:
    """Says in words what a network learnt from, the first training first."""
    steps = [] if lineage.generations[-1].is_whole else ["weights of unknown origin"]
    for each in reversed(lineage.generations):
        if (learnt := each.trained_on) is None:
            continue
        step = " and ".join(map(_describe_images, learnt.parts))
        if each.following is not None:
            how = each.following.kind.value.lower()
            step += f" with {how} from {each.following.teacher.label}"
        steps.append(step)
    return ", then ".join(steps)


def _describe_images(learnt: TrainingSet) -> str:
    if not learnt.samples:
        return learnt.label
    kind = learnt.taught if learnt.teachers else ANNOTATIONS
    if learnt.taught == NO_LABELS:
        kind = "images without labels"
    return f"{learnt.samples} {kind} of {learnt.label}"


def describe_rule(rule: ExclusionRule | None) -> str:
    """Says in a few words which images a rule excludes."""
    if rule is None:
        return "no exclusion"
    found = {rule.calibration.threshold: f" ({rule.calibration.share})"} if rule.calibration else {}
    parts = []
    if rule.alpha is not None:
        side = " at 384 × 384" if rule.scale_alpha else ""
        parts.append(f"N < {show_threshold(rule.alpha)}{side}")
    if rule.beta is not None:
        parts.append(f"E > {rule.beta:g} bits{found.get('beta', '')}")
    words = (" or " if rule.combine == "either" else " and ").join(parts)
    for name, side in (
        ("smallest_confidence", "confidence <"),
        ("smallest_expected_dice", "expected Dice <"),
        ("largest_disagreement", "disagreement >"),
    ):
        if (limit := getattr(rule, name)) is not None:
            words += f"{' or ' if words else ''}{side} {limit:g}{found.get(name, '')}"
    if not words or rule.judged == "image":
        return words or "no exclusion"
    which = "every" if rule.judged == "any_class" else "any"  # an image is left out where …
    of = f" of {', '.join(rule.classes)}" if rule.classes else ""
    return f"{words} in {which} class{of}"


def describe_confidence(rule: ConfidenceRule | None) -> str:
    """Says in a few words which pseudo-findings are not learnt, and as what the others are."""
    rule = rule or EVERYTHING
    parts = []
    if rule.positive is not None and rule.negative is not None:
        parts.append(f"{rule.negative:g} < p < {rule.positive:g}")
    if rule.largest_disagreement is not None:
        parts.append(f"disagreement > {rule.largest_disagreement:g}")
    words = f"findings of {' or '.join(parts)}" if parts else "no exclusion"
    return words + (", others as 0 or 1" if rule.targets == "hard" else "")


def describe_rules(training: TrainingSet) -> str:
    """Says which pseudo-labelled images were excluded, by source where rules differ."""
    taught = [part for part in training.parts if part.teachers]
    rules = dict.fromkeys(describe_rule(part.exclusion) for part in taught)
    if len(rules) > 1:
        rules = dict.fromkeys(f"{p.label}: {describe_rule(p.exclusion)}" for p in taught)
    return "; ".join(rules)


def show_threshold(value: float) -> str:
    """Returns a threshold as text with at most one decimal, such as ``"256"`` or ``"7.1"``."""
    return f"{value:.1f}".removesuffix(".0")
