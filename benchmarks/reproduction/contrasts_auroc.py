"""Differences of classifiers: of their AUROC on the same images, and of their learning curves."""

from collections.abc import Iterable

import numpy as np

from benchmarks.reproduction.contrasts import RESAMPLES, SEED, Estimate, basis, flat
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import Pairs, around, rows_of, whole_block
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.resampling import resample_auroc, summarise_difference
from nakt_dist.evaluation.summary import bootstrap_interval


def difference_of_auroc(records: Records, pairs: Pairs, less: Pairs = ()) -> Estimate | None:
    """Returns the mean AUROC of the first less that of the second, in percentage points.

    Args:
        less: pairs whose mean difference is taken off.

    Raises:
        DatasetError: not all were tested on the same images.
    """
    counted = [whole_block(side, _seed) for side in (pairs, less)]
    if not counted[0]:
        return None
    sides = [(side, sign) for side, sign in zip(counted, (1.0, -1.0), strict=True) if side]
    drawn, value, by_seed = np.zeros(RESAMPLES), 0.0, _SeedMeans()
    for side, sign in sides:
        of_pairs = [_draws(records, ours) - _draws(records, theirs) for ours, theirs in side]
        drawn = drawn + sign * np.mean(of_pairs, axis=0)
        value += sign * float(np.mean([ours.mean - theirs.mean for ours, theirs in side]))
        by_seed.add(side, sign)
    runs = [run for side, _ in sides for run in flat(side)]
    _require_same_images(records, runs)
    found = summarise_difference(value, 100 * drawn)
    assert found is not None
    return Estimate(
        value=found.difference,
        drawn=found.interval,
        over_repeats=around(value, by_seed.values),
        images=runs[0].images,
        repeats=len(by_seed.values),
        **basis(runs, [*flat(pairs), *flat(less)]),
    )


def _seed(run: Run) -> int:
    return run.seed


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


def _require_same_images(records: Records, runs: Iterable[Run]) -> None:
    rows = {rows_of(records, run): run.name for run in runs}
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
    counted = whole_block(known, _seed)
    if not counted:
        return None
    places = [[_least_loss(records, run) for run in each] for each in counted]
    values = np.array([ours - theirs for ours, theirs in places])
    seeds = [ours.seed for ours, _ in counted]
    by_seed = [float(values[np.equal(seeds, each)].mean()) for each in sorted(set(seeds))]
    value = float(values.mean())
    return Estimate(
        value=value,
        drawn=bootstrap_interval(values, RESAMPLES, SEED),
        over_repeats=around(value, by_seed),
        images=len(counted),
        repeats=len(by_seed),
        **basis(flat(counted), flat(pairs)),
    )


def _least_loss(records: Records, run: Run) -> float:
    curve = records.curves[run.name]
    return float(100 * curve.epochs[curve.loss.argmin()] / curve.epochs[-1])
