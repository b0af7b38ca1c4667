"""Which trial of a search begins next, and which goes on: asynchronous successive halving (ASHA).

Everything here is a function of what the trials have reached: with one trial at a time the whole
search is a function of its seed and the results.
"""

import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Trial:
    """A trial that was drawn.

    Attributes:
        number: from 0.
        length: epochs, or steps, that it is to reach now.
        results: the metric by the lengths that it has reached.
        failed: it ended without a result.
    """

    number: int
    values: Mapping[str, Any]
    length: int
    results: Mapping[int, float] = field(default_factory=dict)
    failed: bool = False

    @property
    def waits(self) -> bool:
        """Whether it has come to where it was to come, and may go on."""
        return not self.failed and self.length in self.results


@dataclass(frozen=True)
class Move:
    """A trial, known or new, and the length to which it is trained next."""

    number: int
    length: int


def next_move(
    trials: Sequence[Trial], running: Container[int], count: int, rungs: Sequence[int], factor: int
) -> Move | None:
    """Says what begins next.

    First what was begun and not ended, by a study that was killed. Then, at the highest rung where
    there is one, a trial among the best ``1 / factor`` of those that have come so far. Then a new
    trial. When there are no more, and none runs, the best of the highest rung goes on alone.

    Args:
        running: numbers of those that run now.
        count: of all trials.
        rungs: ascending lengths; the last is the end.

    Returns:
        None when nothing may begin: where none runs either, the search is over.
    """
    here = [trial for trial in trials if trial.number not in running]
    for trial in here:
        if not trial.failed and not trial.waits:
            return Move(trial.number, trial.length)
    for lower, upper in reversed(list(itertools.pairwise(rungs))):
        ranked = _ranked(trials, lower)
        for trial in ranked[: len(ranked) // factor]:
            if trial.number not in running and trial.waits and trial.length == lower:
                return Move(trial.number, upper)
    drawn = {trial.number for trial in trials}
    new = next((number for number in range(count) if number not in drawn), None)
    if new is not None:
        return Move(new, rungs[0])
    waiting = [trial for trial in here if trial.waits]
    if len(here) < len(trials) or not waiting:
        return None
    top = max(trial.length for trial in waiting)
    higher = [rung for rung in rungs if rung > top]
    best = _ranked([trial for trial in waiting if trial.length == top], top)[0]
    return Move(best.number, higher[0]) if higher else None


def _ranked(trials: Sequence[Trial], length: int) -> list[Trial]:
    """Returns those that have come to a length, the best first, of equal ones the first drawn."""
    reached = [trial for trial in trials if length in trial.results]
    return sorted(reached, key=lambda trial: (-trial.results[length], trial.number))
