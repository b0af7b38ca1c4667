"""Keyed hashes in place of everything that names a patient, a study or a file.

A hash without a key hides nothing: whoever has the list of a hospital's patient numbers hashes
them all and compares. With a key (HMAC-SHA256) only its holder can, and the same key gives the
same hashes in every dataset, so that a patient stays the same patient.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.sources.files import IMAGE_SUFFIXES, SYSTEM_FILES
from nakt_dist.sources.listing import SourceRecord

METHOD = "HMAC-SHA256, first 96 bits"
HIDDEN_DETAIL = (
    "left out, as it could name a patient; packed without deidentify, the same input tells it"
)
"""Stands in place of a problem's words: they quote file names, and cells of tables."""

KEPT_LABELS = frozenset(
    {
        "age", "age_approx", "anatom_site_general", "benign_malignant", "class", "diagnosis",
        "diagnosis_1", "diagnosis_2", "diagnosis_3", "diagnosis_4", "diagnosis_5",
        "melanocytic", "metadata", "projection", "sex", "view",
    }
)  # fmt: skip
"""Facts that stay as published; every other label of a record is replaced by its hash."""

_DIGITS = 24
_OUTSIDE = "image outside of "
_PLAIN_SUFFIXES = frozenset(
    {
        ".csv", ".gz", ".htm", ".html", ".json", ".md", ".npy", ".pdf", ".tar", ".txt", ".xlsx",
        ".xml", ".yaml", ".yml", ".zip", "no suffix", "hidden",
        "link to a folder inside the dataset", *IMAGE_SUFFIXES, *SYSTEM_FILES,
    }
)  # fmt: skip


class Pseudonyms:
    """Gives each identifier its keyed hash.

    Of n identifiers two have one hash with a probability of about n² / 2⁹⁷: 1 in 10¹⁵ for ten
    million. It would make two patients one, so it is noticed rather than hoped against.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._given: dict[str, str] = {}

    def of(self, kind: str, identifier: str) -> str:
        """Returns ``KIND-HASH``, the hash of 24 hexadecimal digits.

        Args:
            kind: what is named, such as ``"patient"``; equal names of different kinds differ.

        Raises:
            DatasetError: another identifier has this hash.
        """
        message = f"{kind}\0{identifier}".encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key, message, hashlib.sha256).hexdigest()
        pseudonym = f"{kind}-{digest[:_DIGITS]}"
        if self._given.setdefault(pseudonym, identifier) != identifier:
            raise DatasetError(
                f"two different identifiers have the hash {pseudonym}; pack with another key "
                "(deidentify_key)"
            )
        return pseudonym

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits by which two uses of one key are told; they do not give it away."""
        return hmac.new(self._key, b"fingerprint of the key", hashlib.sha256).hexdigest()[:16]


def deidentify(records: Sequence[SourceRecord], pseudonyms: Pseudonyms) -> list[SourceRecord]:
    """Returns the records with hashes for what names an image, a patient or a study.

    The paths of the files stay, so that they can be read; nothing writes them.

    Raises:
        DatasetError: two identifiers have one hash.
    """
    return [_without_identifiers(record, pseudonyms) for record in records]


def without_names(counts: Mapping[str, int]) -> dict[str, int]:
    """Returns the counts of files by suffix, those of unusual suffixes summed up.

    What follows the last dot of ``scan.MILLER`` or of a DICOM identifier is no suffix.
    """
    kept: Counter[str] = Counter()
    for words, count in counts.items():
        if words.startswith(_OUTSIDE):
            words = f"{_OUTSIDE}the folder of images"
        elif words not in _PLAIN_SUFFIXES:
            words = "other suffixes"
        kept[words] += count
    return dict(sorted(kept.items()))


def _without_identifiers(record: SourceRecord, pseudonyms: Pseudonyms) -> SourceRecord:
    suffix = PurePosixPath(record.name).suffix.lower()
    name = pseudonyms.of("image", record.name)
    return replace(
        record,
        name=f"{name}{suffix}" if suffix in IMAGE_SUFFIXES else name,
        patient_id=record.patient_id and pseudonyms.of("patient", record.patient_id),
        labels={label: _fact(label, value, pseudonyms) for label, value in record.labels.items()},
        problem=record.problem and (record.problem[0], HIDDEN_DETAIL),
    )


def _fact(label: str, value: Any, pseudonyms: Pseudonyms) -> Any:
    if label in KEPT_LABELS or value is None:
        return value
    return pseudonyms.of(label, str(value))
