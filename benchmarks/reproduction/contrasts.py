"""Differences and ratios of runs with their intervals, by the product's own statistics.

Two runs are a pair when they share what a claim holds equal. Images, or patients, are drawn alike
for all runs of a contrast; repetitions and folds are averaged within each resample.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.reproduction.records import Records, Run
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.resampling import (
    percentile_interval,
    resample_auroc,
    resampled_weights,
    summarise_difference,
)
from nakt_dist.evaluation.summary import (
    bootstrap_interval,
    confidence_over_runs,
    knowledge_transfer_capability,
)

RESAMPLES, SEED = 1000, 0
Interval = tuple[float, float]
Pairs = Sequence[tuple[Run, Run]]


@dataclass(frozen=True)
class Estimate:
    """A number of ours, and how far it may be trusted.

    Attributes:
        value: in percent, percentage points, or percent of a training.
        drawn: 95 % interval over what is drawn anew: images, patients or trainings.
        over_repeats: mean ± 1.96 s / √n over repetitions; None for one.
        images: test images, or trainings, behind it.
        runs: evaluations behind it.
        repeats: trainings that differ in their fold or seed.
    """

    value: float
    drawn: Interval
    over_repeats: Interval | None
    images: int
    runs: int
    repeats: int

    @property
    def intervals(self) -> list[Interval]:
        """All that there are."""
        return [self.drawn] if self.over_repeats is None else [self.drawn, self.over_repeats]


def pair(
    first: Iterable[Run], second: Iterable[Run], same: Callable[[Run], Hashable]
) -> list[tuple[Run, Run]]:
    """Pairs runs that share what ``same`` returns.

    Raises:
        DatasetError: two runs of one side share it, so that chance would choose between them.
    """
    ours, theirs = by_key(first, same), by_key(second, same)
    return [(ours[key], theirs[key]) for key in ours if key in theirs]


def by_key(runs: Iterable[Run], same: Callable[[Run], Hashable]) -> dict[Hashable, Run]:
    """Returns runs by what ``same`` returns; refuses two that share it, as ``pair`` does."""
    found: dict[Hashable, Run] = {}
    for run in runs:
        other = found.setdefault(same(run), run)
        if other is not run:
            raise DatasetError(
                f"{other.name} and {run.name}: the claim tells them apart by nothing; say in "
                "benchmarks/reproduction which of them it is about"
            )
    return found


def difference_of_dice(records: Records, pairs: Pairs) -> Estimate | None:
    """Returns the mean Dice of the first less that of the second, image by image.

    Folds are put together: each image counts once, with the mean over the pairs that tested it.
    """
    if not pairs:
        return None
    of_pairs = [_difference_by_row(records, each) for each in pairs]
    values = _mean_by_row(of_pairs)
    repeats: dict[Hashable, list[float]] = {}
    for (ours, _), each in zip(pairs, of_pairs, strict=True):
        key = ours.seed, frozenset(each)  # folds may share a seed, and seeds a fold
        repeats.setdefault(key, []).append(float(np.mean(list(each.values()))))
    return Estimate(
        value=float(values.mean()),
        drawn=bootstrap_interval(values, RESAMPLES, SEED),
        over_repeats=_over_repeats([float(np.mean(each)) for each in repeats.values()]),
        images=len(values),
        runs=len({run.name for each in pairs for run in each}),
        repeats=len(repeats),
    )


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


def _over_repeats(values: Sequence[float]) -> Interval | None:
    half_width = confidence_over_runs(values)
    mean = float(np.mean(values))
    return None if half_width is None else (mean - half_width, mean + half_width)


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
    return ratio_or_gain(records, students, [teacher], knowledge_transfer_capability)


def gain_over_best(
    records: Records, student: Sequence[Run], teachers: Sequence[Sequence[Run]]
) -> Estimate | None:
    """Returns a student's Dice less that of the best of several teachers, chosen likewise."""
    return ratio_or_gain(records, [student], teachers, lambda ours, theirs: ours - theirs)


def ratio_or_gain(
    records: Records,
    ours: Sequence[Sequence[Run]],
    theirs: Sequence[Sequence[Run]],
    compare: Callable[[float, float], float],
) -> Estimate | None:
    """Compares the best of some networks with the best of others, each over folds and seeds."""
    tables = [[dice_by_row(records, runs) for runs in side if runs] for side in (ours, theirs)]
    if not all(tables):
        return None
    most = max(len(table) for side in tables for table in side)
    whole = [[table for table in side if len(table) == most] for side in tables]
    if not all(whole):
        return None
    rows = sorted(set.intersection(*(set(table) for side in whole for table in side)))
    if len(rows) < most:
        return None
    first, second = (np.array([[t[row] for row in rows] for t in side]) for side in whole)
    drawn = [
        np.array([compare(*pair) for pair in zip(_best(first, w), _best(second, w), strict=True)])
        for w in resampled_weights([None] * most, RESAMPLES, SEED)
    ]
    interval = percentile_interval(np.concatenate(drawn))
    assert interval is not None
    runs = [run for side in (ours, theirs) for each in side for run in each]
    repeats = {(run.seed, _rows(records, run)) for each in ours for run in each}
    value = compare(float(first.mean(1).max()), float(second.mean(1).max()))
    return Estimate(value, interval, None, most, len(runs), len(repeats))


def _best(values: np.ndarray, weights: np.ndarray) -> list[float]:
    """Returns the mean of the best network in each resample; (K, N) by (N, S)."""
    return (values @ weights / weights.sum(0)).max(0).tolist()


def difference_of_auroc(records: Records, pairs: Pairs, less: Pairs = ()) -> Estimate | None:
    """Returns the mean AUROC of the first less that of the second, in percentage points.

    Args:
        less: pairs whose mean difference is taken off.

    Raises:
        DatasetError: not all were tested on the same images.
    """
    sides = [(pairs, 1.0), *([(less, -1.0)] if less else [])]
    if not pairs:
        return None
    drawn, values, by_seed = np.zeros(RESAMPLES), 0.0, _SeedMeans()
    for side, sign in sides:
        of_pairs = [_draws(records, ours) - _draws(records, theirs) for ours, theirs in side]
        drawn = drawn + sign * np.mean(of_pairs, axis=0)
        values += sign * float(np.mean([ours.mean - theirs.mean for ours, theirs in side]))
        by_seed.add(side, sign)
    _require_same_images(records, [run for side, _ in sides for each in side for run in each])
    found = summarise_difference(values, 100 * drawn)
    assert found is not None
    runs = {run.name: run for side, _ in sides for each in side for run in each}
    return Estimate(
        value=found.difference,
        drawn=found.interval,
        over_repeats=_over_repeats(by_seed.values) if by_seed.values else None,
        images=next(iter(runs.values())).images,
        runs=len(runs),
        repeats=len({run.seed for run in runs.values()}),
    )


class _SeedMeans:
    """The mean difference of each seed that every side has."""

    def __init__(self) -> None:
        self._sides: list[dict[int, float]] = []

    def add(self, pairs: Pairs, sign: float) -> None:
        found: dict[int, list[float]] = {}
        for ours, theirs in pairs:
            found.setdefault(ours.seed, []).append(sign * (ours.mean - theirs.mean))
        self._sides.append({seed: float(np.mean(each)) for seed, each in found.items()})

    @property
    def values(self) -> list[float]:
        shared = set.intersection(*map(set, self._sides))
        return [sum(side[seed] for side in self._sides) for seed in sorted(shared)]


_DRAWN: dict[tuple[str, str], np.ndarray] = {}


def _draws(records: Records, run: Run) -> np.ndarray:
    """Returns a run's mean AUROC in each resample of patients, in [0, 1], float64 (S,)."""
    key = records.digest, run.name
    if key not in _DRAWN:
        assert records.images is not None
        told = records.values[run.name]
        patients = [records.images.patients[row] or None for row in told.rows]
        targets = records.images.targets[told.rows]
        _DRAWN[key] = resample_auroc(told.values, targets, patients, RESAMPLES, SEED).mean
    return _DRAWN[key]


def _rows(records: Records, run: Run) -> tuple[int, ...]:
    return tuple(records.values[run.name].rows.tolist())


def _require_same_images(records: Records, runs: Iterable[Run]) -> None:
    rows = {_rows(records, run): run.name for run in runs}
    if len(rows) > 1:
        raise DatasetError(
            f"{' and '.join(sorted(rows.values()))} were tested on other images; AUROC is compared "
            "on the same ones"
        )


def later_least_loss(records: Records, pairs: Pairs) -> Estimate | None:
    """Returns by how much later the validation loss of the first is least, in % of the training.

    Trainings are drawn anew, in pairs.
    """
    known = [each for each in pairs if all(run.name in records.curves for run in each)]
    if not known:
        return None
    places = [[_least_loss(records, run) for run in each] for each in known]
    values = np.array([ours - theirs for ours, theirs in places])
    seeds = [ours.seed for ours, _ in known]
    by_seed = [float(values[np.equal(seeds, each)].mean()) for each in sorted(set(seeds))]
    return Estimate(
        value=float(values.mean()),
        drawn=bootstrap_interval(values, RESAMPLES, SEED),
        over_repeats=_over_repeats(by_seed),
        images=len(known),
        runs=len({run.name for each in known for run in each}),
        repeats=len(set(seeds)),
    )


def _least_loss(records: Records, run: Run) -> float:
    curve = records.curves[run.name]
    return float(100 * curve.epochs[curve.loss.argmin()] / curve.epochs[-1])
