"""What evaluations said of each image, with numbers in place of the images' names."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from benchmarks.reproduction.records import DICE, Images, Values
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.report.evaluations import ClassifierRun, Evaluation
from nakt_dist.report.predictions import read_predictions

Told = tuple[list[tuple[str, str]], np.ndarray]
"""Names of images, with their dataset, and float64 (N, K)."""


class DiceReader:
    """Reads the Dice of each image."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    def __call__(self, run: Evaluation) -> Told:
        """Returns the images of a run by name, and the Dice of each in percent, (N, 1)."""

        def read(table: pa.Table) -> tuple[Told, int, float]:
            values = 100 * table[DICE].cast(pa.float64()).to_numpy()
            counted = ~np.isnan(values)
            keys = [(run.tested_on.dataset, key) for key in table["key"].to_pylist()]
            kept = [key for key, counts in zip(keys, counted, strict=True) if counts]
            return (kept, values[counted, None]), int(counted.sum()), float(values[counted].mean())

        told = read_predictions(run, read, "Dice per image", ["key", DICE])
        self._seen.update(told[0])
        return told

    def numbers(self) -> dict[tuple[str, str], int]:
        """Returns the number of each image, in an order that says nothing of its name."""
        return in_no_order(self._seen)

    def images(self, numbers: Mapping[tuple[str, str], int]) -> Images | None:
        """Masks are not told."""
        return None


class PlacesReader:
    """Reads each image's place in the order of the probabilities of each finding."""

    def __init__(self, runs: Sequence[ClassifierRun]) -> None:
        sets = [run.tested_on.findings for run in runs]
        self._findings = max(sets, key=len, default=())
        self._seen: dict[tuple[str, str], tuple[str | None, np.ndarray]] = {}

    def __call__(self, run: Evaluation) -> Told:
        """Returns the images of a run by name, and the place of each for each finding, (N, K).

        Of findings that it was not tested on there is no number.
        """
        found = run.tested_on.findings
        if unknown := sorted(set(found) - set(self._findings)):
            raise DatasetError(f"tested on {', '.join(unknown)}, which other runs were not")
        columns = [self._findings.index(name) for name in found]

        def spread(values: Iterable[np.ndarray]) -> np.ndarray:
            own = np.stack(list(values), axis=1)
            whole = np.full((len(own), len(self._findings)), np.nan)
            whole[:, columns] = own
            return whole

        def read(table: pa.Table) -> tuple[Told, int, float]:
            def named(kind: str) -> list[np.ndarray]:
                of_kind = (table[f"{kind} {name}"] for name in found)
                return [column.cast(pa.float64()).to_numpy() for column in of_kind]

            keys = [(run.tested_on.dataset, key) for key in table["key"].to_pylist()]
            targets = spread(named("target"))
            places = spread(np.unique(p, return_inverse=True)[1] for p in named("probability"))
            self._note(keys, table["patient_id"].to_pylist(), targets)
            mean = mean_auroc_percent(places[:, columns], targets[:, columns])
            return (keys, places), len(keys), mean

        return read_predictions(run, read, "AUROC", metric="AUROC ", tolerance=1e-6)

    def _note(
        self, keys: Sequence[tuple[str, str]], patients: Sequence[str | None], targets: np.ndarray
    ) -> None:
        for key, patient, own in zip(keys, patients, targets, strict=True):
            _, before = self._seen.get(key, (patient, own))
            self._seen[key] = patient, np.where(np.isnan(own), before, own)

    def numbers(self) -> dict[tuple[str, str], int]:
        """Returns the number of each image, in an order that says nothing of its name."""
        return in_no_order(self._seen)

    def images(self, numbers: Mapping[tuple[str, str], int]) -> Images | None:
        """Returns patients and findings by the numbers of images."""
        told = [self._seen[key] for key in numbers]
        of_patients = in_no_order(("patient", name) for name, _ in told if name is not None)
        patients = ["" if name is None else str(of_patients["patient", name]) for name, _ in told]
        return Images(self._findings, tuple(patients), np.stack([each for _, each in told]))


def mean_auroc_percent(places: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean AUROC of float (N, K) in percent, or NaN."""
    mean = mean_auroc(places, targets).mean
    return np.nan if mean is None else 100 * mean


def in_no_order(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Numbers images, one dataset after the other: a later one does not move an earlier one's."""

    def hashed(key: tuple[str, str]) -> tuple[str, str]:
        return key[0], hashlib.sha256("\0".join(key).encode()).hexdigest()

    return {key: number for number, key in enumerate(sorted(set(keys), key=hashed))}


def numbered(
    keys: Sequence[tuple[str, str]], values: np.ndarray, numbers: Mapping[tuple[str, str], int]
) -> Values:
    """Returns values by the numbers of their images, in order."""
    rows = np.array([numbers[key] for key in keys], dtype=np.int64)
    order = np.argsort(rows)
    return Values(rows[order], values[order])
