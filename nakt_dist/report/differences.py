"""What attention transfer gives over transfer learning: over seeds, and over patients."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.evaluation.many_comparisons import holm
from nakt_dist.evaluation.resampling import LabelDifference, resample_auroc, summarise_difference
from nakt_dist.evaluation.summary import confidence_over_runs
from nakt_dist.records.lineage import Method
from nakt_dist.report.classification_tables import warn_of
from nakt_dist.report.document import NOTHING, WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import ClassifierRun
from nakt_dist.report.predictions import read_predictions
from nakt_dist.report.runs import LeftOut, read_each
from nakt_dist.report.studies import Setting, Study, baselines
from nakt_dist.report.wording import show_count
from nakt_dist.signals.kind import TRANSFER_LEARNING

_SAMPLES = (400, 2000)
_NUMBERS = 40_000_000
"""About how many probabilities may be looked at for each run, all resamples together."""

# Keys and patients of the images; probabilities and targets, float64 (N, K), NaN ignored.
_Predictions = tuple[list[str], list[str | None], tuple[np.ndarray, np.ndarray]]
_SEED = 0
_FEW = 3


@dataclass(frozen=True)
class Difference:
    """One method less another, in the same setting, repetition by repetition.

    Attributes:
        baseline: the method that follows no teacher.
        values: difference of each pair with the same seeds, in percentage points.
        over_patients: 95 % bootstrap interval of their mean, patients drawn for all runs alike;
            None where the predictions are not there.
        samples: resamples behind it.
        p_value: two-sided, from the same resamples; None without them.
        findings: the mean difference of each finding over the pairs, in percentage points; None
            where it lacks a class, and empty without predictions.
    """

    setting: Setting
    method: Method
    baseline: Method
    values: tuple[float, ...]
    over_patients: tuple[float, float] | None
    samples: int
    p_value: float | None = None
    findings: tuple[LabelDifference | None, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the pairs."""
        return float(np.mean(self.values))

    @property
    def over_seeds(self) -> tuple[float, float] | None:
        """Mean ± 1.96 s / √n over the pairs; None for one."""
        half_width = confidence_over_runs(self.values)
        return None if half_width is None else (self.mean - half_width, self.mean + half_width)

    @property
    def verdict(self) -> str:
        """Says in a word what both intervals agree in."""
        if self.over_seeds is None:
            return "undecided: only one seed"
        if self.over_patients is None:
            return "undecided: no interval over patients"
        intervals = (self.over_seeds, self.over_patients)
        if all(low > 0 for low, _ in intervals):
            return "better"
        if all(high < 0 for _, high in intervals):
            return "worse"
        return "undecided"


def find_differences(study: Study, left_out: list[LeftOut]) -> list[Difference]:
    """Compares every method that follows a teacher with every one that does not.

    Only pairs with the same seeds count; runs whose predictions cannot be used are left out.
    """
    resampled = _Resampled(left_out)
    return [
        difference
        for setting, cell in study.cells.items()
        for method in cell
        if method.kind != TRANSFER_LEARNING
        for baseline in baselines(cell)
        if (difference := _compare(setting, method, baseline, cell, resampled)) is not None
    ]


def _compare(
    setting: Setting, method: Method, baseline: Method, cell: Mapping, resampled: "_Resampled"
) -> Difference | None:
    first, second = cell[method].by_repetition, cell[baseline].by_repetition
    pairs = [(first[seed], second[seed]) for seed in first if seed in second]
    if not pairs:
        return None
    values = tuple(ours.mean - theirs.mean for ours, theirs in pairs)
    samples, drawn = _samples(pairs[0][0]), resampled.differences(pairs)
    if drawn is None:
        return Difference(setting, method, baseline, values, None, samples)
    whole = summarise_difference(float(np.mean(values)), drawn[:, 0])
    means = np.mean([_aurocs(ours) - _aurocs(theirs) for ours, theirs in pairs], axis=0)
    return Difference(
        setting,
        method,
        baseline,
        values,
        None if whole is None else whole.interval,
        samples,
        None if whole is None else whole.p_value,
        tuple(map(summarise_difference, means.tolist(), drawn[:, 1:].T)),
    )


def _aurocs(run: ClassifierRun) -> np.ndarray:
    """Returns the AUROC of each finding in percent, float64 (K,); NaN where it lacks a class."""
    return np.array([each.auroc for each in run.result.findings], dtype=np.float64)


def _samples(run: ClassifierRun) -> int:
    """Returns how many resamples are affordable; the same for all runs of a test set."""
    least, most = _SAMPLES
    return min(most, max(least, _NUMBERS // (run.images * len(run.tested_on.findings))))


class _Resampled:
    """The AUROC of runs in the same bootstrap resamples of patients, each computed once."""

    def __init__(self, left_out: list[LeftOut]) -> None:
        self._left_out = left_out
        self._found: dict[str, list[tuple[int, np.ndarray]]] = {}

    def differences(
        self, pairs: Sequence[tuple[ClassifierRun, ClassifierRun]]
    ) -> np.ndarray | None:
        """Returns the mean difference over pairs in each resample, in percentage points.

        Returns:
            float64 (S, 1 + K): of the mean AUROC, and of each finding's; None where predictions
            are not there.
        """
        found = [each for pair in pairs for run in pair for each in self._resample(run)]
        # Only the same images in the same order are resampled alike.
        if len(found) < 2 * len(pairs) or len({images for images, _ in found}) > 1:
            return None
        drawn = [resampled for _, resampled in found]
        return 100 * np.subtract(drawn[::2], drawn[1::2]).mean(axis=0)

    def _resample(self, run: ClassifierRun) -> list[tuple[int, np.ndarray]]:
        if run.place not in self._found:
            self._found[run.place] = read_each([run], _resample, self._left_out)
        return self._found[run.place]


def _resample(run: ClassifierRun) -> tuple[int, np.ndarray]:
    """Returns a number that tells a run's images, and its AUROC in each resample.

    That is float64 (S, 1 + K): the mean, and each finding's.

    Raises:
        DatasetError: the predictions are absent, damaged, or not what the record sums up.
    """

    def read(table: pa.Table) -> tuple[_Predictions, int, float]:
        scores = _columns(table, run, "probability"), _columns(table, run, "target")
        auroc = mean_auroc(*scores).mean
        keys, patients = table["key"].to_pylist(), table["patient_id"].to_pylist()
        return (keys, patients, scores), len(keys), np.nan if auroc is None else 100 * auroc

    keys, patients, scores = read_predictions(
        run, read, "interval over patients", metric="AUROC ", tolerance=1e-3
    )
    resampled = resample_auroc(*scores, patients, _samples(run), _SEED)
    return hash((*keys, *patients)), np.column_stack((resampled.mean, resampled.labels))


def _columns(table: pa.Table, run: ClassifierRun, kind: str) -> np.ndarray:
    """Returns what a run has for each image and finding, float64 (N, K); null becomes NaN."""
    names = run.tested_on.findings
    columns = [table[f"{kind} {name}"].cast(pa.float64()) for name in names]
    return np.stack([column.to_numpy() for column in columns], axis=1)


def differences_table(study: Study, differences: Sequence[Difference]) -> Table | None:
    """Shows what following a teacher gives; None where nothing is paired."""
    if not differences:
        return None
    several = len({each.baseline for each in differences}) > 1
    tested = [each for each in differences if each.p_value is not None]
    corrected = dict(zip(map(id, tested), _show_corrected(tested), strict=True))

    def difference(each: Difference) -> Cell:
        warned = f" {WARNING}" if warnings_of(study, each) else ""
        return Cell(f"{signed(each.mean)}{warned}", strong=each.verdict == "better")

    columns = (
        Column("Network", lambda each: each.setting.network.label),
        Column("Training images", lambda each: _size(study, each.setting)),
        Column("First weights", lambda each: each.setting.start.label),
        Column("Method", lambda each: study.name(each.method)),
        Column("Over", lambda each: study.name(each.baseline), shown=several),
        Column("Difference", difference),
        Column("95 % over seeds", lambda each: _show(each.over_seeds)),
        Column("95 % over patients", lambda each: _show(each.over_patients)),
        Column("p, Holm", lambda each: corrected.get(id(each), NOTHING)),
        Column("Seeds", lambda each: str(len(each.values))),
        Column("Reading", lambda each: each.verdict),
    )
    first = study.name(differences[0].baseline)
    remarks = [
        f"Mean AUROC of the method less that of {'the other' if several else first.lower()}, in "
        "percentage points, pairs of runs with the same seed.",
        "Over seeds: ± 1.96 s / √n of the pairs' differences. Over patients: bootstrap of the "
        f"mean difference, {differences[0].samples:,} resamples in which whole patients are "
        "drawn, the same for all runs. Better or worse only where both intervals lie on one side "
        "of 0.",
    ]
    if tested:
        remarks.append(
            "p, Holm: two-sided, over patients, corrected by Holm's method for "
            f"{show_count(len(tested), 'comparison')}, those of this table; the intervals and the "
            "reading are of each alone."
        )
    if any(1 < len(each.values) <= _FEW for each in differences):
        remarks.append(
            "With three seeds or fewer 1.96 s / √n is too narrow: Student's t would make it 2.2 "
            "times as wide for three, 6.5 times for two."
        )
    remarks += warn_of(study)
    return tabulate(f"What a teacher gives, on {study.label}", columns, differences, remarks)


def _show_corrected(differences: Sequence[Difference]) -> list[str]:
    values = [each.p_value for each in differences if each.p_value is not None]
    return [f"{value:.2g}" for value in holm(values)]


def _size(study: Study, setting: Setting) -> str:
    dataset = f" of {setting.trained_on.label}" if study.names_datasets else ""
    return f"{study.size(setting)}{dataset}"


def signed(value: float) -> str:
    """Returns points with their sign."""
    return f"{value:+.2f}".replace("-", "−")


def _show(interval: tuple[float, float] | None) -> str:
    return NOTHING if interval is None else f"{signed(interval[0])} to {signed(interval[1])}"


def summarise_differences(study: Study, differences: Sequence[Difference]) -> Iterator[str]:
    """Says each comparison in a sentence that does not name the test set."""
    for each in differences:
        cell = study.cells[each.setting]
        ours, theirs = cell[each.method], cell[each.baseline]
        intervals = [
            f"{_show(interval)} over {what}"
            for interval, what in (
                (each.over_seeds, f"{len(each.values)} seeds"),
                (each.over_patients, "patients"),
            )
            if interval is not None
        ]
        certain = f" (95 %: {'; '.join(intervals)})" if intervals else ""
        yield (
            f"{study.label_of(each.setting)}, {each.setting.start.phrase}: "
            f"{study.name(each.method)}, reaches {ours.mean:.2f} %, "
            f"{study.name(each.baseline).lower()}, {theirs.mean:.2f} %"
            f"; difference {signed(each.mean)} points{certain}: {each.verdict}."
            f"{''.join(f' {WARNING} {words}.' for words in warnings_of(study, each))}"
        )


def warnings_of(study: Study, difference: Difference) -> list[str]:
    """Says how runs of either side of a comparison may have met their test images."""
    cell = study.cells[difference.setting]
    ours, theirs = (cell[method].warnings for method in (difference.method, difference.baseline))
    both = [f"Both: {words}" for words in ours if words in theirs]
    own = [f"{study.name(difference.method)}: {words}" for words in ours if words not in theirs]
    other = [f"{study.name(difference.baseline)}: {words}" for words in theirs if words not in ours]
    return [*both, *own, *other]
