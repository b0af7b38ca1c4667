"""The manifests that make a folder of tars a dataset, or a set of pseudo-labels for one.

A manifest is written last and atomically: a folder without one is not finished. It holds
no path of the machine that wrote it and no time, so equal inputs give equal bytes.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import file_sha256, json_bytes, read_json, value_sha256, write_bytes
from nakt_dist.shards.absent import explain_absent

MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.parquet"
REJECTED_NAME = "rejected.parquet"
MOST_MANIFEST_BYTES = 2**26
"""Enough for 300,000 shards."""

_LONGEST_NAME_BYTES = 255  # of most file systems
_LONGEST_SIDE = 2**16


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a dataset.

    Attributes:
        name: file name below the dataset's folder.
        split: the split its samples belong to.
        samples: number of samples, zero allowed when all of its inputs were rejected.
        bytes: size of the file.
        sha256: of the file.
    """

    name: str
    split: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """What both manifests share: reading, writing and a fingerprint."""

    FORMAT = ""
    WHAT = ""

    shards: tuple[ShardEntry, ...]
    files: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest's content: what derived data name as their source."""
        return value_sha256(self._content())

    def _content(self) -> dict[str, Any]:
        return {"format": self.FORMAT, **asdict(self)}

    def write(self, folder: Path, staging: Path | None = None) -> None:
        """Writes ``manifest.json`` atomically; everything it names must be on disk by now."""
        write_bytes(folder / MANIFEST_NAME, self._encoded(), staging)

    def _encoded(self) -> bytes:
        return json_bytes({**self._content(), "fingerprint": self.fingerprint})

    def is_as_written(self, folder: Path) -> bool:
        """Says whether the file this was read from is byte for byte what ``write`` wrote."""
        return (folder / MANIFEST_NAME).read_bytes() == self._encoded()

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads ``manifest.json`` of a folder.

        Raises:
            DatasetError: it is absent, damaged, edited or of another format; of a folder of
                images as published, how they are packed.
        """
        path = folder / MANIFEST_NAME
        if not path.exists():
            raise explain_absent(folder, MANIFEST_NAME, cls.WHAT)
        value = read_json(path, cls.WHAT, MOST_MANIFEST_BYTES)
        found = value.pop("format", None)
        if found != cls.FORMAT:
            raise DatasetError(
                f"{path}: expected a {cls.WHAT} of format {cls.FORMAT}, found {str(found)[:40]!r}. "
                "Give another folder, or make this one again with this version"
            )
        fingerprint = value.pop("fingerprint", None)
        try:
            _check_types(path, "", cls, value)
            for number, entry in enumerate(value["shards"]):
                _check_types(path, f"shards[{number}].", ShardEntry, entry)
            value["shards"] = tuple(ShardEntry(**entry) for entry in value["shards"])
            manifest = cls(**value)
            named: set[str] = set()
            for name in [entry.name for entry in manifest.shards] + list(manifest.files):
                _check_plain_name(path, name)
                if name in named:
                    raise DatasetError(f"{path}: names the file {name!r} twice, expected it once")
                named.add(name)
            manifest.fingerprint  # noqa: B018 - computed here, where its errors are caught
        except (TypeError, KeyError) as error:
            raise DatasetError(f"{path}: a field is missing or unknown: {error}") from None
        except RecursionError:
            raise DatasetError(f"{path}: nested too deeply for a {cls.WHAT}") from None
        if manifest.fingerprint != fingerprint:
            raise DatasetError(
                f"{path}: damaged or edited: its content gives the fingerprint "
                f"{manifest.fingerprint[:12]}, it names {str(fingerprint)[:12]}. Restore it from "
                f"a copy, or delete the folder and make it again"
            )
        return manifest

    @property
    def num_samples(self) -> int:
        """Number of samples over all shards."""
        return sum(entry.samples for entry in self.shards)

    def damaged_files(self, folder: Path) -> list[str]:
        """Names the tables beside the shards that are absent or whose SHA-256 differs."""
        return [
            name
            for name, sha256 in sorted(self.files.items())
            if not (folder / name).is_file() or file_sha256(folder / name) != sha256
        ]


@dataclass(frozen=True)
class ShardManifest(_Manifest):
    """A packed dataset.

    Attributes:
        shards: the tars in order of their numbers.
        files: SHA-256 of each table beside them.
        dataset: the dataset's name, such as ``"busi"``.
        phantom: whether the images are procedural.
        height: rows of every image.
        width: columns of every image.
        channels: 1 for grey, 3 for RGB.
        mask_kind: ``"none"``, ``"binary"`` or ``"classes"``.
        splits: number of samples per split.
        counts: ``inputs`` = ``packed`` + ``rejected``; ``left_out`` by settings besides.
        left_out: images a setting leaves out, by the setting's words.
        ignored_files: files that belong to no sample, by suffix.
        vocabulary: per image-level label field, its distinct values.
        findings: names of the findings that images are labelled with, in order; may be empty.
        label_policy: what ``uncertain`` and ``blank`` findings count as (``zero``, ``one`` or
            ``ignore``) unless a reader's settings say otherwise.
        patients: ``known``, the number of patients that are named, none of them in two splits,
            and ``images_without`` one.
        found: what the layout counted on the way, by its words.
        config: the settings that decide the bytes; no paths.
    """

    FORMAT = "nakt-shards/3"
    WHAT = "shard manifest"

    dataset: str
    phantom: bool
    height: int
    width: int
    channels: int
    mask_kind: str
    splits: Mapping[str, int]
    counts: Mapping[str, int]
    left_out: Mapping[str, int]
    ignored_files: Mapping[str, int]
    vocabulary: Mapping[str, list[str]]
    findings: tuple[str, ...]
    label_policy: Mapping[str, str]
    patients: Mapping[str, int]
    found: Mapping[str, int]
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(self.findings))  # JSON gives a list


@dataclass(frozen=True)
class PseudoLabelManifest(_Manifest):
    """Pseudo-labels of one packed dataset by one ensemble of teachers.

    Attributes:
        shards: the sidecar tars, in the order of the dataset's shards.
        files: SHA-256 of each table beside them.
        dataset: name of the dataset.
        dataset_fingerprint: ``ShardManifest.fingerprint`` of the dataset.
        phantom: whether the images are procedural.
        height: rows of every soft mask.
        width: columns of every soft mask.
        teachers: per teacher its name, weights_sha256, architecture, preprocessing, weight
            and output kind.
        soft: whether at least one teacher gave soft masks; without one the entropy
            threshold β does not apply (paper A, section 2).
    """

    FORMAT = "nakt-pseudo-labels/1"
    WHAT = "pseudo-label manifest"

    dataset: str
    dataset_fingerprint: str
    phantom: bool
    height: int
    width: int
    teachers: tuple[Mapping[str, Any], ...]
    soft: bool
    config: Mapping[str, Any] = field(default_factory=dict)

    def check_made_for(self, dataset: ShardManifest, folder: Path) -> None:
        """Refuses pseudo-labels of another dataset, or of another packing of the same one.

        Raises:
            DatasetError: naming the part that differs.
        """
        if self.dataset != dataset.dataset:
            raise DatasetError(
                f"{folder}: these are pseudo-labels of dataset '{self.dataset}', "
                f"not of '{dataset.dataset}'. Give the pseudo-labels made for it"
            )
        if self.dataset_fingerprint != dataset.fingerprint:
            raise DatasetError(
                f"{folder}: these pseudo-labels were made for another packing of "
                f"'{self.dataset}': dataset_fingerprint found {self.dataset_fingerprint[:12]}, "
                f"expected {dataset.fingerprint[:12]}. Run teach again on this packing"
            )


def _check_plain_name(path: Path, name: str) -> None:
    """Refuses a file name that could lead out of the dataset's folder, or that none can have."""
    plain = isinstance(name, str) and name and not set(name) & set("/\\:")
    # What cannot be printed holds what would move the cursor, or is no Unicode.
    plain = plain and name.isprintable() and len(name.encode()) <= _LONGEST_NAME_BYTES
    if not plain or name.startswith("."):
        raise DatasetError(
            f"{path}: names the file {name!r}; expected a plain file name beside the manifest"
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_mapping_of(is_kind: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Mapping) and all(map(is_kind, value.values()))


def _is_counts(value: Any) -> bool:
    return _is_mapping_of(_is_count)(value) and {"inputs", "packed", "rejected"} <= set(value)


def _is_patients(value: Any) -> bool:
    return _is_mapping_of(_is_count)(value) and set(value) == {"known", "images_without"}


def _is_label_policy(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"uncertain", "blank"}
        and all(use in ("zero", "one", "ignore") for use in value.values())
    )


def _is_different_texts(value: Any) -> bool:
    return _is_texts(value) and len(set(value)) == len(value)


def _is_teachers(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, Mapping)
        and _is_text(each.get("name"))
        and _is_text(each.get("weights_sha256"))
        and isinstance(each.get("lineage", {}), Mapping)
        for each in value
    )


_TEXT = (_is_text, "text")
_COUNT = (_is_count, "a whole number of 0 or more")
_COUNTS = (_is_mapping_of(_is_count), "an object of whole numbers of 0 or more")
_SIDE = (
    lambda value: _is_count(value) and 0 < value <= _LONGEST_SIDE,
    f"a whole number from 1 to {_LONGEST_SIDE}",
)
_FLAG = (lambda value: isinstance(value, bool), "true or false")
_OBJECT = (lambda value: isinstance(value, Mapping), "an object")

_FIELD_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda value: True, "a plain file name"),  # checked with the names of the tables
    "split": _TEXT,
    "samples": _COUNT,
    "bytes": _COUNT,
    "sha256": _TEXT,
    "shards": (
        lambda value: isinstance(value, list) and all(isinstance(each, Mapping) for each in value),
        "a list of objects",
    ),
    "files": (_is_mapping_of(_is_text), "an object with a SHA-256 by file name"),
    "dataset": _TEXT,
    "dataset_fingerprint": _TEXT,
    "phantom": _FLAG,
    "height": _SIDE,
    "width": _SIDE,
    "channels": (lambda value: _is_count(value) and value in (1, 3), "1 or 3"),
    "mask_kind": (
        lambda value: value in ("none", "binary", "classes"),
        "none, binary or classes",
    ),
    "splits": _COUNTS,
    "counts": (_is_counts, "an object with the numbers inputs, packed and rejected"),
    "left_out": _COUNTS,
    "ignored_files": _COUNTS,
    "vocabulary": (_is_mapping_of(_is_texts), "an object with lists of text"),
    "findings": (_is_different_texts, "a list of different texts"),
    "label_policy": (_is_label_policy, "an object with uncertain and blank: zero, one or ignore"),
    "patients": (_is_patients, "an object with the numbers known and images_without"),
    "found": _COUNTS,
    "teachers": (_is_teachers, "a list of objects, each with name and weights_sha256"),
    "soft": _FLAG,
    "config": _OBJECT,
}
"""Per field of a manifest and its shards: whether a value is of its kind, and the kind."""


def _check_types(path: Path, prefix: str, kind: type, value: Mapping[str, Any]) -> None:
    """Refuses values of other types than their fields have; absent ones are found elsewhere."""
    for each in fields(kind):
        is_kind, expected = _FIELD_KINDS[each.name]
        if each.name in value and not is_kind(value[each.name]):
            raise DatasetError(
                f"{path}: field '{prefix}{each.name}' is {str(value[each.name])[:60]!r}, expected "
                f"{expected}. Restore it from a copy, or delete the folder and make it again"
            )
