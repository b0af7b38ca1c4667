"""Pseudo-findings from a table of what a network of others says: its file is not at hand."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.config import FindingsTableConfig
from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.shared_job import Done
from nakt_dist.shards.pseudo_findings import write_sidecar
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources.csv_tables import TableRow, column_names, quoted, read_rows
from nakt_dist.sources.files import FoundFile
from nakt_dist.sources.findings import canonical_finding
from nakt_dist.stages.network_card import lineage_of_card
from nakt_dist.stages.opening import Opening, tell_weights

_DECIMAL = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
"""What every program reads alike, unlike Python's ``0_1``."""


@dataclass(frozen=True)
class AnswersInTable:
    """What a network of others says of the images of a dataset.

    Attributes:
        findings: K that the table and the dataset know, in the order of the table.
        probability: float64 (N, K) of the dataset's samples; NaN where the table has none.
        provenance: what a manifest says about the network.
        lineage: what its card says it learnt from.
    """

    findings: tuple[str, ...]
    probability: np.ndarray
    provenance: Mapping[str, Any]
    lineage: Mapping[str, Any]

    def write(
        self, images: IndexedShards, numbers: Iterable[int], folder: Path, staging: Path
    ) -> Done:
        """Writes the sidecars of shards, for which no image is read.

        Args:
            folder: of the pseudo-labels.

        Yields:
            Each one's number and receipt.
        """
        for number in numbers:
            rows = np.flatnonzero(images.shard_numbers == number)
            keys = images.column("key").take(rows).to_pylist()
            path = folder / f"pseudo-{number:06d}.parquet"
            split, values = images.manifest.shards[number].split, self.probability[rows]
            entry = write_sidecar(path, split, keys, values, np.zeros_like(values), staging)
            yield number, {"entry": asdict(entry)}


def open_table(
    table: FindingsTableConfig, images: IndexedShards, opening: Opening
) -> AnswersInTable:
    """Reads a table and finds the images of a dataset in it.

    Raises:
        DatasetError: as ``read_answers``, or a list that its card names cannot be read.
    """
    path = Path(table.file)
    findings, probability = read_answers(table, images)
    lineage, told = lineage_of_card(table.card)
    sha256 = file_sha256(path)
    opening.facts["table"] = f"{table.name}: {tell_weights(path, sha256)}, {', '.join(findings)}"
    opening.note(f"{table.name}: {told}")
    known = int((~np.isnan(probability)).any(1).sum())
    if known < len(images):
        opening.note(
            f"{table.name}: the table has {known} of the {len(images)} images; of the others there "
            "is nothing to learn"
        )
    provenance = {
        "name": table.name,
        "weights_sha256": sha256,  # of the table: all that is known of them
        "architecture": {"name": "known by its answers alone"},
        "weight": 1.0,
        "output": "soft",
        "findings": list(findings),
    }
    return AnswersInTable(findings, probability, provenance, lineage)


def read_answers(
    table: FindingsTableConfig, images: IndexedShards
) -> tuple[tuple[str, ...], np.ndarray]:
    """Reads what a table says of the images of a dataset; they are found by their files' names.

    Returns:
        The findings that both know, in the order of the table; probabilities float64 (N, K), NaN
        where a cell is empty or no row is of the image.

    Raises:
        DatasetError: the table is absent or damaged, knows no finding or no image of the dataset,
            has an image twice, or holds something else than probabilities; or images of the
            dataset share a name, or have none.
    """
    path = Path(table.file)
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; expected a table of probabilities")
    file = FoundFile(path.name, path)
    columns = _columns(table, file, images)
    places = _places(images)
    probability = np.full((len(images), len(columns)), np.nan)
    seen = set[str]()
    for row in read_rows(file, (table.image, *columns)):
        if row.fault:
            raise DatasetError(f"{path}: line {row.line}: {row.fault}")
        name = row.cells[0].rpartition("/")[2]
        if name in seen:
            raise DatasetError(f"{path}: line {row.line}: {quoted(name)} is there twice")
        seen.add(name)
        if name in places:
            probability[places[name]] = _probabilities(path, row, columns)
    if np.isnan(probability).all():
        raise DatasetError(
            f"{path}: its column '{table.image}' names none of the {len(images)} images of "
            f"{images.root}, whose first is {quoted(next(iter(places)))}"
        )
    return tuple(columns.values()), probability


def _columns(table: FindingsTableConfig, file: FoundFile, images: IndexedShards) -> dict[str, str]:
    """Returns the columns of findings that the dataset has, and what they are called there."""
    names = column_names(file, (table.image,))
    stated = {
        name: canonical_finding(name.removeprefix(table.prefix))
        for name in names
        if name != table.image and name.startswith(table.prefix)
    }
    known = {
        name: finding for name, finding in stated.items() if finding in images.manifest.findings
    }
    if not known or len(set(known.values())) < len(known):
        raise DatasetError(
            f"{file.path}: its columns that begin with {table.prefix!r} are "
            f"{', '.join(stated) or 'none'}; expected one for each of some findings of "
            f"{images.root} ({', '.join(images.manifest.findings)}). Set table.prefix"
        )
    return known


def _places(images: IndexedShards) -> dict[str, int]:
    """Returns the number of each image by the name of its file."""
    names = [str(name or "").rpartition("/")[2] for name in images.column("source").to_pylist()]
    places = {name: number for number, name in enumerate(names) if name}
    if len(places) < len(images):
        raise DatasetError(
            f"{images.root}: {len(places)} different names of files for {len(images)} images, so "
            "that a table cannot say which it means; pack it without deidentify, and images of "
            "one name apart"
        )
    return places


def _probabilities(path: Path, row: TableRow, columns: Iterable[str]) -> list[float]:
    values = []
    for column, cell in zip(columns, row.cells[1:], strict=True):
        value = float(cell) if _DECIMAL.fullmatch(cell) else math.nan
        if cell and not 0 <= value <= 1:
            raise DatasetError(
                f"{path}: line {row.line} has {quoted(cell)} in column {quoted(column)}, expected "
                "a probability: a decimal number from 0 to 1, such as 0.25 or 2.5e-1"
            )
        values.append(value)
    return values
