"""What evaluations said of each image, with numbers in place of the images' names."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from benchmarks.reproduction.records import DICE, Images, Values
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.report.evaluations import Evaluation
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
        return _in_no_order(self._seen)

    def images(self, numbers: Mapping[tuple[str, str], int]) -> Images | None:
        """Masks are not told."""
        return None


class PlacesReader:
    """Reads each image's place in the order of the probabilities of each finding."""

    def __init__(self) -> None:
        self._findings: tuple[str, ...] = ()
        self._seen: dict[tuple[str, str], tuple[str, np.ndarray]] = {}

    def __call__(self, run: Evaluation) -> Told:
        """Returns the images of a run by name, and the place of each for each finding, (N, K)."""
        found = run.tested_on.findings
        self._findings = self._findings or found
        if found != self._findings:
            raise DatasetError("tested on other findings than the runs before it")

        def columns(table: pa.Table, kind: str) -> np.ndarray:
            named = [table[f"{kind} {name}"].cast(pa.float64()) for name in found]
            return np.stack([column.to_numpy() for column in named], axis=1)

        def read(table: pa.Table) -> tuple[Told, int, float]:
            keys = [(run.tested_on.dataset, key) for key in table["key"].to_pylist()]
            patients, targets = table["patient_id"].to_pylist(), columns(table, "target")
            probabilities = columns(table, "probability")
            places = [np.unique(each, return_inverse=True)[1] for each in probabilities.T]
            self._seen |= dict(zip(keys, zip(patients, targets, strict=True), strict=True))
            told = keys, np.stack(places, axis=1).astype(np.float64)
            return told, len(keys), mean_auroc_percent(told[1], targets)

        return read_predictions(run, read, "AUROC", metric="AUROC ", tolerance=1e-6)

    def numbers(self) -> dict[tuple[str, str], int]:
        """Returns the number of each image, in an order that says nothing of its name."""
        return _in_no_order(self._seen)

    def images(self, numbers: Mapping[tuple[str, str], int]) -> Images | None:
        """Returns patients and findings by the numbers of images."""
        told = [self._seen[key] for key in numbers]
        of_patients = _in_no_order(("patient", name) for name, _ in told if name is not None)
        patients = ["" if name is None else str(of_patients["patient", name]) for name, _ in told]
        return Images(self._findings, tuple(patients), np.stack([each for _, each in told]))


def mean_auroc_percent(places: np.ndarray, targets: np.ndarray) -> float:
    """Returns the mean AUROC of float (N, K) in percent, or NaN."""
    mean = mean_auroc(places, targets).mean
    return np.nan if mean is None else 100 * mean


def _in_no_order(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    def hashed(key: tuple[str, str]) -> str:
        return hashlib.sha256("\0".join(key).encode()).hexdigest()

    return {key: number for number, key in enumerate(sorted(set(keys), key=hashed))}


def numbered(
    keys: Sequence[tuple[str, str]], values: np.ndarray, numbers: Mapping[tuple[str, str], int]
) -> Values:
    """Returns values by the numbers of their images, in order."""
    rows = np.array([numbers[key] for key in keys], dtype=np.int64)
    order = np.argsort(rows)
    return Values(rows[order], values[order])
