"""What counts as a repetition: a fold where there are several, else a seed; and how sure it makes.

Trainings of other seeds that are tested on the same fold share its images and its teacher: they
are averaged, and are no repetitions of their own.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from benchmarks.reproduction.records import Records, Run
from nakt_dist.evaluation.summary import confidence_over_runs

Interval = tuple[float, float]
Pairs = Sequence[tuple[Run, Run]]
Unit = Callable[[Run], Hashable]

_NORMAL = 1.96
_STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}
"""The 97.5 % point of Student's t by number of repetitions; that of six serves for more."""


def rows_of(records: Records, run: Run) -> tuple[int, ...]:
    """Returns the images that a run was tested on: what tells folds apart, whatever their name."""
    return tuple(records.values[run.name].rows.tolist())


def repetition(records: Records, runs: Sequence[Run]) -> Unit:
    """Returns what tells the repetition of a run: its fold where there are several, or its seed."""
    folds = {run.name: rows_of(records, run) for run in runs}
    if len(set(folds.values())) > 1:
        return lambda run: folds[run.name]
    return lambda run: run.seed


def setting(run: Run) -> Hashable:
    """Returns what a run shares with its repetitions.

    Of students, and of those that go on from one, the transferal dataset says what came before;
    exclusion leaves other numbers of its images in each fold.
    """
    before = (run.transferal, run.teacher_start) if run.transferal else (run.start, run.samples)
    return run.tested_on, run.network, run.learnt, run.size, before


def whole_block(pairs: Pairs, unit: Unit) -> Pairs:
    """Returns the largest part of the pairs in which every setting has every repetition.

    A mean over what happens to be done would change with what that is, and so would its spread:
    one repetition would be of two settings, the next of one.
    """
    have: dict[Hashable, set[Hashable]] = {}
    for ours, _ in pairs:
        have.setdefault(setting(ours), set()).add(unit(ours))
    shared = {frozenset(one & other) for one in have.values() for other in have.values()} - {
        frozenset()
    }

    def size(units: frozenset[Hashable]) -> tuple[int, int, str]:
        settings = sum(units <= each for each in have.values())
        return len(units) * settings, len(units), repr(sorted(map(repr, units)))

    chosen = max(shared, key=size, default=frozenset())
    return [
        pair for pair in pairs if unit(pair[0]) in chosen and chosen <= have[setting(pair[0])]
    ]  # fmt: skip


def around(value: float, repeats: Sequence[float]) -> Interval | None:
    """Returns value ± 1.96 s / √n over repetitions; None for one."""
    half_width = confidence_over_runs(repeats)
    return None if half_width is None else (value - half_width, value + half_width)


def by_student_t(interval: Interval, repeats: int) -> Interval:
    """Widens ± 1.96 s / √n to what Student's t gives for so few repetitions."""
    middle, half_width = np.mean(interval), np.ptp(interval) / 2
    factor = _STUDENT_T.get(repeats, _STUDENT_T[max(_STUDENT_T)]) / _NORMAL
    return float(middle - factor * half_width), float(middle + factor * half_width)
