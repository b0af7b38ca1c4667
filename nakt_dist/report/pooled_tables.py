"""Tables of runs pooled over folds and seeds: Dice, capability, and paired differences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nakt_dist.evaluation.many_comparisons import holm
from nakt_dist.evaluation.resampling import (
    percentile_interval,
    resampled_weights,
    summarise_difference,
)
from nakt_dist.report.differences import signed
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import SegmentationRun, show_interval
from nakt_dist.report.pooled import Pooled, find_alike, shared_images
from nakt_dist.report.roles import Role, describe_rule
from nakt_dist.report.wording import grouped, show_count, show_range
from nakt_dist.transfer.exclusion import ExclusionRule

_SAMPLES, _SEED = 2000, 0
_REMARKS = (
    "Runs that differ in their fold or seed alone, as one; * stands for what differs between their "
    "names. Every image of all folds counts once, with its mean Dice over the runs it was tested "
    f"in. Intervals: 95 % bootstrap over these images, {_SAMPLES:,} resamples; they do not express "
    "the choice of training images and seed, over which the runs scatter as the last column says.",
    "KTC: 100 × Dice of this student / Dice of its teacher, on the same images, with the interval "
    "of that ratio when both see the same resamples. The paper takes the best student.",
)


def pooled_table(pooled: Sequence[Pooled]) -> Table | None:
    """Shows each group of several runs in one row; None where there is none."""
    rows = [each for each in pooled if len(each.runs) > 1]
    if not rows:
        return None
    several = len({each.first.tested_on.dataset for each in rows}) > 1
    columns = (
        Column("Role", lambda each: each.first.role.value),
        Column("Runs", lambda each: each.name),
        Column("Network", lambda each: each.first.network.label),
        Column("Test images", lambda each: f"{len(each.keys)}"),
        Column("Dice %", _dice),
        Column("95 % interval", lambda each: show_interval(_interval(each))),
        Column("KTC %", lambda each: _capability(each, pooled)),
        Column("Test set", lambda each: each.first.tested_on.dataset, shown=several, minor=True),
        Column("Exclusion", lambda each: _exclusion(each.runs), minor=True),
        Column("Images learnt", _learnt, minor=True),
        Column("Folds and runs", _repeats, minor=True),
    )
    return tabulate("Pooled over folds and seeds", columns, rows, _REMARKS)


def _dice(each: Pooled) -> Cell:
    warned = f" {WARNING}" if any(run.warnings for run in each.runs) else ""
    return Cell(f"{each.mean:.2f} ± {each.dice.std():.2f}{warned}", strong=True)


def _repeats(each: Pooled) -> str:
    means = [run.mean for run in each.runs]
    of_folds = {len(runs) for runs in grouped(each.runs, lambda run: run.tested_on.splits).values()}
    runs = f"{len(means)} runs"
    if each.folds > 1:
        alike = len(of_folds) == 1
        runs = f"{each.folds} × {of_folds.pop()}" if alike else f"{runs} of {each.folds} folds"
    return f"{runs}: {min(means):.1f} to {max(means):.1f}"


def _learnt(each: Pooled) -> str:
    learnt = [run.lineage.learnt for run in each.runs]
    counts = show_range(one.samples for one in learnt)
    before = {one.before_exclusion for one in learnt if one.exclusion}
    return f"{counts}{f' of {show_range(before)}' if before else ''} {learnt[0].label}"


def _exclusion(runs: Sequence[SegmentationRun]) -> str:
    """Describes a rule; of a β that was found in each fold, its range."""
    rules = [_rule(run) for run in runs]
    first = rules[0]
    if first is None:
        return NOTHING if runs[0].transfer is None else "no"
    betas = sorted(rule.beta for rule in rules if rule is not None and rule.beta is not None)
    told = describe_rule(first)
    if len(set(betas)) > 1:
        told = told.replace(f"E > {first.beta:g}", f"E > {betas[0]:.2f} to {betas[-1]:.2f}")
    return told


def _rule(run: SegmentationRun) -> ExclusionRule | None:
    parts = run.transfer.parts if run.transfer else ()
    return next((part.exclusion for part in parts if part.exclusion), None)


def _resampled(*dice: np.ndarray) -> list[np.ndarray]:
    """Returns the mean of each, float64 (S,), in the same resamples of the same images."""
    count = len(dice[0])
    parts = [
        [weights.T @ each / count for each in dice]
        for weights in resampled_weights([None] * count, _SAMPLES, _SEED)
    ]
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def _interval(each: Pooled) -> tuple[float, float]:
    interval = percentile_interval(_resampled(each.dice)[0])
    assert interval is not None, "no mean is undefined"
    return interval


def _capability(student: Pooled, pooled: Sequence[Pooled]) -> Cell:
    """Returns the capability of a student of one teacher, tested on all its images, too."""
    teachers = student.alike.teachers
    teacher = find_alike(pooled, teachers[0], student) if len(teachers) == 1 else None
    if student.first.role != Role.STUDENT or teacher is None:
        return Cell("")
    if len(shared_images(student, teacher)) < len(student.keys):
        return Cell("")
    theirs = teacher.dice_of(student.keys)
    drawn, of_teacher = _resampled(student.dice, theirs)
    if not theirs.mean():
        return Cell("")
    interval = percentile_interval(100 * drawn / np.where(of_teacher > 0, of_teacher, np.nan))
    notes = (show_interval(interval),) if interval else ()
    return Cell(f"{100 * student.mean / theirs.mean():.1f}", notes)


@dataclass(frozen=True)
class Pair:
    """One group of runs and another, and what they differ in."""

    what: str
    first: Pooled
    second: Pooled

    @property
    def images(self) -> list[str]:
        """Those that both were tested on."""
        return shared_images(self.first, self.second)


def pairs(pooled: Sequence[Pooled]) -> Iterator[Pair]:
    """Yields what the paper compares: exclusion, fine-tuning, and several teachers."""
    several = [each for each in pooled if len(each.runs) > 1]
    students = [each for each in several if each.first.role == Role.STUDENT]
    for group in grouped(students, lambda each: (each.alike.without_rule, each.scored)).values():
        ordered = sorted(group, key=lambda each: _rule(each.first) is not None)
        for number, second in enumerate(ordered):
            yield from (
                Pair("exclusion", first, second)
                for first in ordered[number + 1 :]
                if first.alike != second.alike
            )
    scratch = [each for each in several if each.first.role == Role.FROM_SCRATCH]
    for first in several:
        if first.first.role == Role.FINE_TUNED_STUDENT:
            yield from (
                Pair("fine-tuning", first, second)
                for second in scratch
                if second.first.network == first.first.network
                and _annotated(second) == _annotated(first)
            )
    for first in students:
        found = [find_alike(pooled, made, first) for made in first.alike.teachers]
        teachers = [each for each in found if each is not None]
        if len(found) > 1 and teachers:
            best = max(teachers, key=lambda each: each.mean)
            yield Pair("several teachers", first, best)


def _annotated(each: Pooled) -> tuple[str, int]:
    learnt = each.first.lineage.learnt
    return learnt.fingerprint, learnt.samples


def pooled_differences(pooled: Sequence[Pooled]) -> Table | None:
    """Shows the paired difference of each pair; None where there is none."""
    found = []
    for pair in pairs(pooled):
        if not pair.images:
            continue
        ours, theirs = (each.dice_of(pair.images) for each in (pair.first, pair.second))
        drawn, others = _resampled(ours, theirs)
        difference = summarise_difference(float(ours.mean() - theirs.mean()), drawn - others)
        assert difference is not None, "no mean is undefined"
        found.append((pair, difference))
    if not found:
        return None
    corrected = holm([difference.p_value for _, difference in found])
    rows = [(*each, p_value) for each, p_value in zip(found, corrected, strict=True)]
    columns = (
        Column("What", lambda row: row[0].what),
        Column("Runs", lambda row: row[0].first.name),
        Column("Less", lambda row: row[0].second.name),
        Column("Difference", lambda row: Cell(signed(row[1].difference), strong=row[2] < 0.05)),
        Column("95 % interval", lambda row: " to ".join(map(signed, row[1].interval))),
        Column("p, Holm", lambda row: f"{row[2]:.2g}"),
        Column("Test images", lambda row: str(len(row[0].images)), minor=True),
    )
    remarks = (
        "Mean Dice of the runs less that of the others, in percentage points, image by image over "
        "those that both were tested on: both see the same resamples. Several teachers: less the "
        "best of them; of those that differ in their seed alone, less their mean.",
        "p: two-sided, corrected by Holm's method for "
        f"{show_count(len(rows), 'comparison')}, those of this table. Bold: below 0.05.",
    )
    return tabulate("Pooled differences", columns, rows, remarks)
