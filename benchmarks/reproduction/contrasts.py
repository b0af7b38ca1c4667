"""Differences and ratios of runs with their intervals, by the product's own statistics.

Two runs are a pair when they share what a claim holds equal. Images, or patients, are drawn alike
for all runs of a contrast; repetitions and folds are averaged within each resample. A mean is of
settings that all have the same repetitions.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import (
    Interval,
    Pairs,
    around,
    by_student_t,
    repetition,
    rows_of,
    whole_block,
)
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.resampling import percentile_interval, resampled_weights
from nakt_dist.evaluation.summary import bootstrap_interval, knowledge_transfer_capability
from nakt_dist.report.wording import grouped

RESAMPLES, SEED = 1000, 0
_capability = np.vectorize(knowledge_transfer_capability, otypes=[float])


@dataclass(frozen=True)
class Estimate:
    """A number of ours, and how far it may be trusted.

    Attributes:
        value: in percent, percentage points, or percent of a training.
        drawn: 95 % interval over what is drawn anew: images, patients or trainings.
        over_repeats: value ± 1.96 s / √n over repetitions; None for one.
        images: test images, or trainings, behind it.
        runs: evaluations behind it.
        repeats: folds where there are several, else seeds.
        waiting: evaluations that are there, and count once their like are.
        met: how networks behind it may have met their test images.
    """

    value: float
    drawn: Interval
    over_repeats: Interval | None
    images: int
    runs: int
    repeats: int
    waiting: int = 0
    met: tuple[str, ...] = ()

    @property
    def intervals(self) -> list[Interval]:
        """All that there are."""
        return [self.drawn] if self.over_repeats is None else [self.drawn, self.over_repeats]

    @property
    def wider_intervals(self) -> list[Interval]:
        """The same, with Student's t over repetitions."""
        if self.over_repeats is None:
            return [self.drawn]
        return [self.drawn, by_student_t(self.over_repeats, self.repeats)]


def basis(counted: Iterable[Run], there: Iterable[Run]) -> dict[str, Any]:
    """Returns what an estimate rests on, of the runs that are there, by field."""
    runs = {run.name: run for run in counted}
    return {
        "runs": len(runs),
        "waiting": len({run.name for run in there} - runs.keys()),
        "met": tuple(dict.fromkeys(run.met for run in runs.values() if run.met)),
    }


def flat(pairs: Pairs) -> list[Run]:
    """Returns the runs of both sides."""
    return [run for pair in pairs for run in pair]


def pair(
    first: Iterable[Run], second: Iterable[Run], same: Callable[[Run], Hashable]
) -> list[tuple[Run, Run]]:
    """Pairs runs of one collection that share what ``same`` returns.

    Raises:
        DatasetError: two runs of one side share it, so that chance would choose between them.
    """
    ours, theirs = by_key(first, same), by_key(second, same)
    return [(ours[key], theirs[key]) for key in ours if key in theirs]


def by_key(runs: Iterable[Run], same: Callable[[Run], Hashable]) -> dict[Hashable, Run]:
    """Returns runs by collection and ``same``; refuses two that share both, as ``pair`` does."""
    found: dict[Hashable, Run] = {}
    for run in runs:
        other = found.setdefault((run.collection, same(run)), run)
        if other is not run:
            raise DatasetError(
                f"{other.name} and {run.name}: the claim tells them apart by nothing; say in "
                "benchmarks/reproduction which of them it is about"
            )
    return found


def of_one_collection(runs: Iterable[Run]) -> list[Run]:
    """Returns the runs of that collection which has the most of them, the first of equals."""
    return max(grouped(runs, lambda run: run.collection).values(), key=len, default=[])


def difference_of_dice(records: Records, pairs: Pairs) -> Estimate | None:
    """Returns the mean Dice of the first less that of the second, image by image.

    Folds are put together: each image counts once, with the mean over the pairs that tested it.
    """
    counted = whole_pairs(records, pairs)
    if not counted:
        return None
    unit = repetition(records, flat(counted))
    of_pairs = [_difference_by_row(records, each) for each in counted]
    values = _mean_by_row(of_pairs)
    repeats: dict[Hashable, list[float]] = {}
    for (ours, _), each in zip(counted, of_pairs, strict=True):
        repeats.setdefault(unit(ours), []).append(float(np.mean(list(each.values()))))
    value = float(values.mean())
    return Estimate(
        value=value,
        drawn=bootstrap_interval(values, RESAMPLES, SEED),
        over_repeats=around(value, [float(np.mean(each)) for each in repeats.values()]),
        images=len(values),
        repeats=len(repeats),
        **basis(flat(counted), flat(pairs)),
    )


def whole_pairs(records: Records, pairs: Pairs) -> Pairs:
    """Returns those pairs of segmentation that count: all settings in the same folds or seeds."""
    return whole_block(pairs, repetition(records, flat(pairs)))


def _difference_by_row(records: Records, runs: tuple[Run, Run]) -> dict[int, float]:
    ours, theirs = (dice_by_row(records, [run]) for run in runs)
    return {row: ours[row] - theirs[row] for row in ours.keys() & theirs.keys()}


def dice_by_row(records: Records, runs: Iterable[Run]) -> dict[int, float]:
    """Returns the Dice of each image, the mean over the runs that tested it, in percent."""
    told = [records.values[run.name] for run in runs]
    by_row = [dict(zip(each.rows.tolist(), each.values[:, 0], strict=True)) for each in told]
    rows = sorted({row for each in by_row for row in each})
    return dict(zip(rows, _mean_by_row(by_row).tolist(), strict=True))


def _mean_by_row(tables: Sequence[Mapping[int, float]]) -> np.ndarray:
    """Returns the mean over the tables that have a row, of each row in order, float64 (rows,)."""
    rows = sorted({row for each in tables for row in each})
    return np.array([np.mean([each[row] for each in tables if row in each]) for row in rows])


def capability(
    records: Records, students: Sequence[Sequence[Run]], teacher: Sequence[Run]
) -> Estimate | None:
    """Returns the knowledge-transfer capability, 100 × the best student's Dice / its teacher's.

    The best is chosen anew in each resample, so that the interval holds what the choice costs.
    It is chosen among those that tested most of the images, all of which the teacher tested.

    Args:
        students: of each student its runs, over folds and seeds.
        teacher: its runs, over folds.
    """
    return _compare_best(records, students, [teacher], _capability)


def gain_over_best(
    records: Records, student: Sequence[Run], teachers: Sequence[Sequence[Run]]
) -> Estimate | None:
    """Returns a student's Dice less that of the best of several teachers, chosen likewise."""
    return _compare_best(records, [student], teachers, np.subtract)


def _compare_best(
    records: Records,
    ours: Sequence[Sequence[Run]],
    theirs: Sequence[Sequence[Run]],
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Estimate | None:
    """Compares the best of some networks with the best of others, each over folds and seeds."""

    def tested(runs: Sequence[Run]) -> set[int]:
        return {row for run in runs for row in rows_of(records, run)}

    rows = max(map(tested, (*ours, *theirs)), key=len, default=set())
    first, second = ([runs for runs in side if tested(runs) == rows] for side in (ours, theirs))
    if not (rows and first and second):
        return None

    def statistic(means: np.ndarray) -> np.ndarray:
        return compare(means[: len(first)].max(0), means[len(first) :].max(0))

    there = [run for runs in (*ours, *theirs) for run in runs]
    return _estimate(records, [*first, *second], statistic, there)


def capability_gain(
    records: Records,
    ours: Sequence[Run],
    our_teacher: Sequence[Run],
    theirs: Sequence[Run],
    their_teacher: Sequence[Run],
) -> Estimate | None:
    """Returns the capability of one student less that of another, each of its own teacher's."""
    groups = [ours, our_teacher, theirs, their_teacher]
    if len({frozenset(dice_by_row(records, runs)) for runs in groups}) > 1:
        return None  # an evaluation of some images is not there yet

    def statistic(means: np.ndarray) -> np.ndarray:
        return _capability(means[0], means[1]) - _capability(means[2], means[3])

    return _estimate(records, groups, statistic, [run for runs in groups for run in runs])


def _estimate(
    records: Records,
    groups: Sequence[Sequence[Run]],
    statistic: Callable[[np.ndarray], np.ndarray],
    there: Iterable[Run],
) -> Estimate:
    """Computes a number from the mean Dice of several networks, all on the same images.

    Over repetitions, that is folds, by leaving out one at a time (the jackknife): of a difference
    of means this is value ± 1.96 s / √n of the folds' differences.

    Args:
        groups: of each network its runs, over folds and seeds.
        statistic: of means, float64 (networks, S), in each of S resamples.
    """
    tables = [dice_by_row(records, runs) for runs in groups]
    rows = list(tables[0])
    values = np.array([[table[row] for row in rows] for table in tables])
    folds = _number_folds(records, groups[0], rows)

    def of(weights: np.ndarray) -> np.ndarray:
        return statistic(values @ weights / weights.sum(0))

    drawn = [of(weights) for weights in resampled_weights([None] * len(rows), RESAMPLES, SEED)]
    interval = percentile_interval(np.concatenate(drawn))
    assert interval is not None
    value, count = float(of(np.ones((len(rows), 1)))[0]), int(folds.max()) + 1
    without = [of((folds != each)[:, None].astype(float))[0] for each in range(count) if count > 1]
    return Estimate(
        value=value,
        drawn=interval,
        over_repeats=around(value, [float(count * value - (count - 1) * w) for w in without]),
        images=len(rows),
        repeats=count,
        **basis([run for runs in groups for run in runs], there),
    )


def _number_folds(records: Records, runs: Iterable[Run], rows: Sequence[int]) -> np.ndarray:
    """Returns the number of each image's fold, int64 (rows,)."""
    folds = dict.fromkeys(rows_of(records, run) for run in runs)
    number = {row: fold for fold, own in enumerate(folds) for row in own}
    return np.array([number[row] for row in rows])
