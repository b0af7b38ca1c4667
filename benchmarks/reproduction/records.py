"""What is committed of a study: a line for each evaluation, and what it said of each image.

A folder of `benchmarks/results` holds

    about.json      the study, when, on what, which evaluations are planned and not run yet, how
                    many pseudo-labelled images a rule of exclusion leaves, and what the measures
                    of pseudo masks tell of their Dice
    runs.csv        a line per evaluation: its network, what that learnt from, what it reached
    values.parquet  per evaluation and image: Dice in percent, or for each finding the image's
                    place in the order of the probabilities, from which AUROC follows exactly
    images.csv      of classifiers: each image's patient and findings
    curves.csv      of classifiers: loss and AUROC of every validation

Images and patients are numbers: no name, identifier, probability or path is in these files.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256, read_json, value_sha256, write_bytes, write_json

ABOUT, RUNS, VALUES = "about.json", "runs.csv", "values.parquet"
IMAGES, CURVES = "images.csv", "curves.csv"
DICE = "dice"
COLLECTION_MARK = "@"
"""Behind it stands the number of the collection, from 2 on, in names of runs (see ``joining``)."""
_FILES = (ABOUT, RUNS, VALUES, IMAGES, CURVES)


@dataclass(frozen=True)
class Run:
    """One evaluation; what does not apply is empty or 0.

    Attributes:
        name: of the evaluation in its study.
        tested_on: the dataset.
        role: the part that its network plays, as the report names it.
        network: as the report names it.
        parameters: how many of it learn.
        start: where its first weights came from.
        learnt: the dataset, or datasets, of its last training.
        samples: images of that training.
        before: images before exclusion.
        rule: ``""``, or a word of ``collecting``: as printed in the paper, or what is calibrated.
        exclusion: the rule in words.
        transferal: the dataset whose pseudo-labels it or its parents learnt.
        teachers: how many wrote those, or were followed.
        teacher_start: where their first weights came from.
        teacher_learnt: what they learnt from.
        method: how it was trained, as the report names it.
        parts: which parts of it learn, and from whose findings.
        settings: of what it takes from a teacher, JSON.
        steps: of its training; 0 where nobody says.
        weights: first digits of the SHA-256 of its weights.
        taught_by: those of its teachers, and of its parents' teachers, joined.
        size: rows of the images.
        seed: of its training.
        images: how many test images count.
        mean: Dice or mean AUROC over them, in percent.
        low: lower limit of its 95 % interval, as ``nakt evaluate`` gives it.
        high: upper limit.
        met: how it may have met its test images.
        axes: the values of the study's axes in words, by name.
    """

    name: str
    tested_on: str
    role: str
    network: str
    parameters: int
    start: str
    learnt: str
    samples: int
    before: int
    rule: str
    exclusion: str
    transferal: str
    teachers: int
    teacher_start: str
    teacher_learnt: str
    method: str
    parts: str
    settings: str
    steps: int
    weights: str
    taught_by: str
    size: int
    seed: int
    images: int
    mean: float
    low: float
    high: float
    met: str
    axes: Mapping[str, str] = field(hash=False)

    @property
    def collection(self) -> str:
        """Which of several collections it is of; empty of the first."""
        return self.name.partition(COLLECTION_MARK)[2]


@dataclass(frozen=True)
class Values:
    """What one evaluation said of its images.

    Attributes:
        rows: int64 (N,), their numbers, increasing.
        values: float64 (N, K): Dice in percent (K = 1), or places in the order of the
            probabilities of each finding, NaN for one that it was not tested on.
    """

    rows: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Images:
    """The test images of classifiers.

    Attributes:
        findings: their names, K.
        patients: the number of each image's patient, by the image's number; empty where unknown.
        targets: float64 (images, K), 1 positive, 0 negative, NaN ignored.
    """

    findings: tuple[str, ...]
    patients: tuple[str, ...]
    targets: np.ndarray


@dataclass(frozen=True)
class Curve:
    """The validations of one training.

    Attributes:
        epochs: float64 (V,), increasing.
        loss: float64 (V,), cross-entropy on the validation images.
        auroc: float64 (V,), in percent.
    """

    epochs: np.ndarray
    loss: np.ndarray
    auroc: np.ndarray


@dataclass(frozen=True)
class Records:
    """All of one folder.

    Attributes:
        about: the study, its standing, and on what it ran.
        runs: by name.
        values: by name of the run.
        images: None of segmentation.
        curves: by name of the run whose network was trained so.
    """

    about: Mapping[str, Any]
    runs: tuple[Run, ...]
    values: Mapping[str, Values]
    images: Images | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """What tells these records from others."""
        return value_sha256([self.about, _table(self.runs)])

    def write(self, folder: Path) -> None:
        """Writes the files; those of an earlier collection are replaced."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            (folder / name).unlink(missing_ok=True)
        (folder / RUNS).write_text(_table(self.runs), encoding="utf-8")
        pq.write_table(self._values_table(), folder / VALUES, compression="zstd")
        if self.images is not None:
            write_bytes(folder / IMAGES, _images_text(self.images).encode())
            write_bytes(folder / CURVES, _curves_text(self.curves).encode())
        held = {name: file_sha256(folder / name) for name in _FILES if (folder / name).exists()}
        write_json(folder / ABOUT, {**self.about, "files": held})
        read_records.cache_clear()

    def _values_table(self) -> pa.Table:
        names = (DICE,) if self.images is None else self.images.findings
        kind = pa.float32() if self.images is None else pa.uint16()
        of_runs = [(run.name, self.values[run.name]) for run in self.runs]
        runs = [name for name, each in of_runs for _ in each.rows]
        rows = np.concatenate([each.rows for _, each in of_runs])
        values = np.concatenate([each.values for _, each in of_runs])
        columns = [pa.array(c, mask=np.isnan(c)).cast(kind, safe=False) for c in values.T]
        table = [pa.array(runs).dictionary_encode(), pa.array(rows).cast(pa.uint16()), *columns]
        return pa.table(table, names=["run", "row", *names])


@cache
def read_records(folder: Path) -> Records:
    """Reads a folder.

    Raises:
        DatasetError: a file is absent, or not the one that ``about.json`` names.
    """
    about = read_json(folder / ABOUT, "standing of a study")
    for name, sha256 in about.pop("files").items():
        if not (folder / name).is_file() or file_sha256(folder / name) != sha256:
            raise DatasetError(
                f"{folder / name}: not the file that {ABOUT} names; collect the study again with "
                "python -m benchmarks.reproduction"
            )
    images = _read_images(folder / IMAGES) if (folder / IMAGES).exists() else None
    runs = tuple(_read_runs(folder / RUNS))
    values = _read_values(folder / VALUES, [run.name for run in runs])
    curves = {} if images is None else _read_curves(folder / CURVES)
    return Records(about, runs, values, images, curves)


def csv_text(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Returns a table as comma-separated text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return stream.getvalue()


def _table(runs: Iterable[Run]) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, Mapping):
            return json.dumps(value, sort_keys=True)
        return f"{value:.4f}" if isinstance(value, float) else str(value)

    names = [each.name for each in fields(Run)]
    return csv_text(names, ([shown(getattr(run, name)) for name in names] for run in runs))


def _read_runs(path: Path) -> Iterable[Run]:
    types = get_type_hints(Run)
    with path.open(encoding="utf-8", newline="") as stream:
        for line in csv.DictReader(stream):
            axes = json.loads(line.pop("axes"))
            plain = {name: types[name](text) for name, text in line.items()}
            yield Run(**plain, axes=axes)


def _read_values(path: Path, names: Sequence[str]) -> dict[str, Values]:
    table = pq.read_table(path)
    runs = np.asarray(table["run"].combine_chunks().dictionary_decode().to_pylist())
    rows = table["row"].to_numpy().astype(np.int64)
    columns = [table[name].to_numpy() for name in table.column_names[2:]]
    values = np.stack(columns, axis=1).astype(np.float64)
    found = {name: np.flatnonzero(runs == name) for name in names}
    return {name: Values(rows[places], values[places]) for name, places in found.items()}


def _images_text(images: Images) -> str:
    def lines() -> Iterable[list[Any]]:
        for row, (patient, targets) in enumerate(zip(images.patients, images.targets, strict=True)):
            yield [row, patient, *("" if np.isnan(each) else int(each) for each in targets)]

    return csv_text(["row", "patient", *images.findings], lines())


def _read_images(path: Path) -> Images:
    with path.open(encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream)
    targets = [[float(each) if each else np.nan for each in line[2:]] for line in lines]
    return Images(tuple(header[2:]), tuple(line[1] for line in lines), np.array(targets))


def _curves_text(curves: Mapping[str, Curve]) -> str:
    lines = (
        [name, f"{epoch:.3f}", f"{loss:.5f}", f"{auroc:.3f}"]
        for name, curve in sorted(curves.items())
        for epoch, loss, auroc in zip(curve.epochs, curve.loss, curve.auroc, strict=True)
    )
    return csv_text(["run", "epoch", "loss", "auroc"], lines)


def _read_curves(path: Path) -> dict[str, Curve]:
    with path.open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream))[1:]
    by_run: dict[str, list[list[float]]] = {}
    for name, *numbers in lines:
        by_run.setdefault(name, []).append([float(each) for each in numbers])
    return {name: Curve(*np.array(rows).T) for name, rows in by_run.items()}
