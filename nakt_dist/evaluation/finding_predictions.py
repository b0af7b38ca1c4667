"""The predictions of a classifier's evaluation: their columns, and those of another evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.image_metadata import METADATA
from nakt_dist.evaluation.scores import PREDICTIONS_NAME, read_reference
from nakt_dist.records.run_record import RECORD_NAME, RunRecord
from nakt_dist.shards.tables import read_table

_KINDS = {"age": pa.int32()}


def predictions_schema(names: Sequence[str]) -> pa.Schema:
    """Returns the columns of the predictions of some labels.

    Key, patient (null where unknown) and the number of its picture, per label the probability and
    the target (null where ignored), and sex, age in years, view and projection, null where the
    dataset does not say.
    """
    per_label = [
        column
        for name in names
        for column in ((f"probability {name}", pa.float64()), (f"target {name}", pa.int8()))
    ]
    known = [("key", pa.string()), ("patient_id", pa.string()), ("picture", pa.int64())]
    metadata = [(name, _KINDS.get(name, pa.string())) for name in METADATA]
    return pa.schema([*known, *per_label, *metadata])


def label_columns(table: pa.Table, kind: str, names: Sequence[str]) -> np.ndarray:
    """Returns the columns ``probability NAME`` or ``target NAME``: float64 (N, K), NaN for null."""
    columns = [table[f"{kind} {name}"].cast(pa.float64()).to_numpy() for name in names]
    return np.stack(columns, axis=1)


def read_evaluation(
    folder: Path,
    setting: str,
    fields: Sequence[str],
    identity: Mapping[str, Any],
    labels: Sequence[str],
    needs: str,
) -> tuple[RunRecord, pa.Table]:
    """Reads the record and the predictions of another evaluation that a setting names.

    Args:
        fields: of its inputs that must be those of this evaluation, ``identity``.
        labels: of this evaluation, one of which it must have.
        needs: what the setting needs, for messages.

    Raises:
        DatasetError: it is absent, damaged or no match.
    """
    problem = f"{folder}: {setting} needs {needs}"
    record = read_reference(folder / RECORD_NAME, fields, identity, problem)
    names = record.inputs["labels"]
    if not set(names) & set(labels):
        raise DatasetError(
            f"{folder}: {setting} shares no label: it has {', '.join(names)}; this one "
            f"{', '.join(labels)}"
        )
    try:
        return record, read_table(folder / PREDICTIONS_NAME, predictions_schema(names))
    except DatasetError as error:
        raise DatasetError(
            f"{error}. {setting} needs it: delete the folder and evaluate that network again"
        ) from None


@dataclass(frozen=True)
class EvaluatedImages:
    """Who the images of an evaluation are.

    Attributes:
        dataset: its name; patients are known by it and by theirs.
        fingerprint: of its packing; keys are known by it.
        table: with the columns ``key``, ``patient_id`` and ``picture``.
    """

    dataset: str
    fingerprint: str
    table: pa.Table

    @classmethod
    def of(cls, identity: Mapping[str, Any], table: pa.Table) -> "EvaluatedImages":
        """Returns those of an evaluation with such inputs."""
        return cls(identity["dataset"], identity["dataset_fingerprint"], table)

    def shared_with(self, other: "EvaluatedImages") -> str:
        """Says how many images, or patients, are in both; empty where none is.

        Pictures have the same numbers in all packings. Patients of datasets with different names
        are different ones.
        """
        judged = (
            ("key", "images", self.fingerprint == other.fingerprint),
            ("picture", "images", True),
            ("patient_id", "patients", self.dataset == other.dataset),
        )
        for column, what, comparable in judged:
            both = _values(self.table, column) & _values(other.table, column)
            if comparable and both:
                return f"{len(both)} {what}"
        return ""


def _values(table: pa.Table, column: str) -> set[Any]:
    return set(table[column].to_pylist()) - {None}
