"""Sets of pseudo-labels below the watched folders, and their statistics as compact bytes."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.errors import DatasetError
from nakt_dist.records.fields import printable
from nakt_dist.records.pseudo_sets import PseudoSet, read_pseudo_set
from nakt_dist.report import paper
from nakt_dist.runtime.files import read_json
from nakt_dist.shards.manifest import (
    MANIFEST_NAME,
    MOST_MANIFEST_BYTES,
    PseudoLabelManifest,
    ShardManifest,
)

_MOST_SAMPLES = 2_000_000  # what a browser still draws while a slider moves
_ALIGNMENT = 8
_COLUMNS = {
    "target_pixels": "<f8",  # exact for every mask, and NaN where a table has none
    "entropy": "<f8",  # as it is stored: a rule compares it with β to the last digit
    "mean_confidence": "<f4",
    "teacher_disagreement": "<f4",
    "expected_dice": "<f4",
}
_WORDS = {
    "target_pixels": "no count of target pixels: α excludes none of them",
    "entropy": "no entropy: β excludes none of them",
    "mean_confidence": "no mean confidence",
    "teacher_disagreement": "no disagreement of the teachers",
    "expected_dice": "no expected Dice",
}


@dataclass(frozen=True)
class FoundSet:
    """A set of pseudo-labels that was found.

    Attributes:
        place: its folder, from the watched folder's name on; no two sets have one place.
        folder: its folder on this machine.
        manifest: what it is; None where that cannot be read.
        problem: why not, without the machine's paths.
    """

    place: str
    folder: Path
    manifest: PseudoLabelManifest | None
    problem: str | None = None

    def describe(self) -> dict[str, Any]:
        """Says what a page shows of it before it asks for the statistics."""
        if self.manifest is None:
            return {"place": self.place, "problem": self.problem}
        manifest = self.manifest
        pseudo = PseudoSet(self.folder.name, manifest, pa.table({}))
        printed = paper.find_exclusion(manifest.dataset)
        return {
            "place": self.place,
            "label": pseudo.label,
            "name": printable(self.folder.name),
            "samples": manifest.num_samples,
            "height": manifest.height,
            "width": manifest.width,
            "soft": manifest.soft,
            "teachers": [_describe_teacher(teacher) for teacher in manifest.teachers],
            "paper": printed and {
                "dataset": paper.dataset_name(manifest.dataset),
                "before": printed[0],
                "after": printed[1],
            },
        }  # fmt: skip


def _describe_teacher(teacher: Any) -> dict[str, Any]:
    return {
        "name": printable(str(teacher["name"])),
        "weight": teacher.get("weight"),
        "output": teacher.get("output"),
    }


def find_sets(folders: Sequence[Path]) -> dict[str, FoundSet]:
    """Finds every set of pseudo-labels below some folders, by place, as the report finds them.

    Hidden folders and links to folders are not entered. A set whose manifest is damaged is there
    with its problem.
    """
    found: dict[str, FoundSet] = {}
    for place, folder, format_name in _manifests(folders):
        if format_name != PseudoLabelManifest.FORMAT or any(
            each.folder == folder for each in found.values()
        ):
            continue
        while place in found:  # of two watched folders of one name
            place += " (another)"
        try:
            found[place] = FoundSet(place, folder, PseudoLabelManifest.read(folder))
        except DatasetError as error:
            found[place] = FoundSet(place, folder, None, without_folder(error, folder))
    return found


def find_dataset(folders: Sequence[Path], fingerprint: str) -> Path | None:
    """Finds the packed dataset of a fingerprint below some folders; None where there is none."""
    for _, folder, format_name in _manifests(folders):
        if format_name == ShardManifest.FORMAT:
            try:
                if ShardManifest.read(folder).fingerprint == fingerprint:
                    return folder
            except DatasetError:
                continue
    return None


def _manifests(folders: Sequence[Path]) -> Iterator[tuple[str, Path, str]]:
    """Yields place, folder and format of every manifest that can be read."""
    for root in folders:
        base = root.resolve()
        for name, subfolders, files in os.walk(base):
            subfolders[:] = sorted(each for each in subfolders if not each.startswith("."))
            if MANIFEST_NAME not in files:
                continue
            folder = Path(name)
            try:
                value = read_json(folder / MANIFEST_NAME, "manifest", MOST_MANIFEST_BYTES)
            except DatasetError:
                continue
            place = printable(str(Path(base.name) / folder.relative_to(base)))
            yield place, folder, str(value.get("format"))


def without_folder(error: Exception, folder: Path) -> str:
    """Returns an error's message without where on the machine the folder lies."""
    return printable(str(error).replace(f"{folder}/", "").replace(str(folder), folder.name))


def pack_statistics(found: FoundSet) -> bytes:
    """Returns the statistics of a set as a browser reads them at once.

    Four bytes hold the length of a JSON header, little-endian; then the header, and from the next
    multiple of 8 on the columns, each beginning at such a multiple. The header holds ``rows``,
    ``columns`` (of each its name, type ``f8``, ``f4`` or ``u2``, and offset behind the header),
    ``splits`` (the words for the numbers in column ``split``) and ``remarks``. Where a table holds
    nothing, a column holds NaN. No key is among them: it may name a patient.

    Raises:
        DatasetError: the table is absent, damaged, or larger than a browser can draw.
    """
    pseudo = read_pseudo_set(found.folder)
    table = pseudo.statistics
    if table.num_rows > _MOST_SAMPLES:
        raise DatasetError(
            f"{table.num_rows} pseudo-labels, more than the {_MOST_SAMPLES} that a page can draw. "
            "Use nakt inspect"
        )
    split = table["split"].combine_chunks().dictionary_encode()
    names = split.dictionary.to_pylist()
    order = sorted(range(len(names)), key=lambda number: str(names[number]))
    rank = np.argsort(order).astype("<u2") if names else np.empty(0, "<u2")
    columns = {"split": rank[split.indices.to_numpy(zero_copy_only=False).astype(int)]}
    for name, kind in _COLUMNS.items():
        columns[name] = table[name].to_numpy().astype(kind)
    splits = [printable(str(names[number])) for number in order]
    return _joined(columns, {"splits": splits, "remarks": remarks(pseudo)})


def _joined(columns: dict[str, np.ndarray], header: dict[str, Any]) -> bytes:
    parts, places, offset = [], [], 0
    for name, values in columns.items():
        data = values.tobytes()
        places.append({"name": name, "type": values.dtype.str[1:], "offset": offset})
        data += bytes(-len(data) % _ALIGNMENT)
        parts.append(data)
        offset += len(data)
    rows = len(columns["split"])
    text = json.dumps({**header, "rows": rows, "columns": places}).encode()
    text += b" " * (-(4 + len(text)) % _ALIGNMENT)
    return b"".join([len(text).to_bytes(4, "little"), text, *parts])


def remarks(pseudo: PseudoSet) -> list[str]:
    """Returns sentences on what a rule cannot do with these masks, or a page cannot show."""
    manifest, table = pseudo.manifest, pseudo.statistics
    sentences = []
    if not manifest.soft:
        sentences.append("Every teacher gave binary masks: β does not apply.")
    elif any(teacher.get("output") != "soft" for teacher in manifest.teachers):
        sentences.append("Some teachers gave binary masks, not all: β applies to their mean.")
    if len(manifest.teachers) == 1:
        sentences.append("One teacher wrote these masks: there is no disagreement to show.")
    for name, words in _WORDS.items():
        missing = table[name].null_count + int(np.isnan(table[name].drop_null().to_numpy()).sum())
        if missing:
            sentences.append(f"{missing} of {table.num_rows} images have {words}.")
    return sentences
