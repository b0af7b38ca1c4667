"""What a claim is, and the rule by which it is judged. The rule was written before any figure.

A row is *supported* where all its 95 % intervals (over images, patients or trainings drawn anew;
and over repetitions, where there are several) lie above the threshold that its claim names, *not
supported* where all lie below it, else *undecided*. A claim is not supported where one of the rows
that decide it is not, supported where all are, *not run yet* where none has a figure, else
undecided. What Student's t would make of few repetitions is said beside it and decides nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.reproduction.contrasts import Estimate
from benchmarks.reproduction.repetitions import Interval


class Verdict(StrEnum):
    """What the rule says."""

    SUPPORTED = "supported"
    NOT_SUPPORTED = "not supported"
    UNDECIDED = "undecided"
    NOT_RUN = "not run yet"
    NOT_TESTABLE = "not testable here"


Printed = tuple[float, str]


@dataclass(frozen=True)
class Row:
    """One figure of ours beside the paper's.

    Attributes:
        key: a short word; with the claim's key it names the figure in the prose.
        label: what it is about.
        estimate: ours; None where it is not run yet.
        printed: the paper's figures, and where it prints each.
        decides: whether the claim hangs on it.
        obstacle: why it cannot be tested here; empty where it can.
    """

    key: str
    label: str
    estimate: Estimate | None
    printed: tuple[Printed, ...] = ()
    decides: bool = True
    obstacle: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper.

    Attributes:
        key: a short word.
        paper: ``A`` or ``B``.
        words: the claim.
        where: the paper says it.
        measure: what is measured, and in which unit.
        unit: in a few words, for figures.
        threshold: above which the figure supports it.
        rows: the figures.
        drawn: what is drawn anew.
        counted: what the figures are means over.
    """

    key: str
    paper: str
    words: str
    where: str
    measure: str
    unit: str
    threshold: float
    rows: tuple[Row, ...]
    drawn: str = "images"
    counted: str = "images"

    def show(self, value: float) -> str:
        """Returns a value as text, differences with their sign."""
        return f"{value:.1f}" if self.threshold else signed(value)

    def judge(self, row: Row) -> Verdict:
        """Judges one figure."""
        if row.obstacle:
            return Verdict.NOT_TESTABLE
        if row.estimate is None:
            return Verdict.NOT_RUN
        return self._read(row.estimate.intervals)

    def judge_by_student_t(self, row: Row) -> Verdict:
        """Judges it with Student's t in place of 1.96."""
        told = self.judge(row)
        return told if row.estimate is None else self._read(row.estimate.wider_intervals)

    def _read(self, intervals: Sequence[Interval]) -> Verdict:
        if all(low > self.threshold for low, _ in intervals):
            return Verdict.SUPPORTED
        if all(high < self.threshold for _, high in intervals):
            return Verdict.NOT_SUPPORTED
        return Verdict.UNDECIDED

    @property
    def verdict(self) -> Verdict:
        """Judges the claim."""
        return _join(self.judge(row) for row in self.rows if row.decides)

    @property
    def verdict_by_student_t(self) -> Verdict:
        """Judges the claim with Student's t in place of 1.96."""
        return _join(self.judge_by_student_t(row) for row in self.rows if row.decides)


def _join(verdicts: Iterable[Verdict]) -> Verdict:
    found = set(verdicts)
    if Verdict.NOT_SUPPORTED in found:
        return Verdict.NOT_SUPPORTED
    return found.pop() if len(found) == 1 else Verdict.UNDECIDED if found else Verdict.NOT_RUN


def signed(value: float) -> str:
    """Returns points with their sign."""
    return f"{value:+.2f}".replace("-", "−")
