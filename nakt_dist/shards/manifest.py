"""The manifests that make a folder of tars a dataset, or a set of pseudo-labels for one.

A manifest is written last and atomically: a folder without one is not finished. It holds
no path of the machine that wrote it and no time, so equal inputs give equal bytes.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from nakt_dist.errors import DatasetError
from nakt_dist.limits import LARGEST_IMAGE_SIDE
from nakt_dist.runtime.files import file_sha256, json_bytes, read_json, value_sha256, write_bytes
from nakt_dist.shards.absent import explain_absent

MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.parquet"
REJECTED_NAME = "rejected.parquet"
MOST_MANIFEST_BYTES = 2**26
"""Enough for 300,000 shards."""

_LONGEST_NAME_BYTES = 255  # of most file systems


def _that(expected: str, holds: Callable[[Any], bool]) -> AfterValidator:
    """Makes a type one of fewer values."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("value", "{expected}", {"expected": expected})
        return value

    return AfterValidator(check)


_Count = Annotated[int, Field(strict=True, ge=0)]
_Counts = Mapping[str, _Count]
_Side = Annotated[int, Field(strict=True, ge=1, le=LARGEST_IMAGE_SIDE)]
_Flag = Annotated[bool, Field(strict=True)]
_Use = Literal["zero", "one", "ignore"]


def _has(*names: str) -> AfterValidator:
    return _that(f"an object with {' and '.join(names)}", lambda value: set(names) <= set(value))


def _is_teacher(value: Mapping[str, Any]) -> bool:
    is_named = all(isinstance(value.get(name), str) for name in ("name", "weights_sha256"))
    return is_named and isinstance(value.get("lineage", {}), Mapping)


_CLASSES = _that(
    "a list of different texts, the first of them background",
    lambda all: not all or (all[0] == "background" and len(set(all)) == len(all) > 1),
)
_TEACHER = _that("a list of objects, each with name and weights_sha256", _is_teacher)


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a dataset.

    Attributes:
        name: file name below the dataset's folder.
        split: the split its samples belong to.
        samples: number of samples, zero allowed when all of its inputs were rejected.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    split: str
    samples: _Count
    bytes: _Count
    sha256: str


@dataclass(frozen=True)
class _Manifest:
    """What both manifests share: reading, writing and a fingerprint."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    FORMAT = ""
    WHAT = ""

    shards: tuple[ShardEntry, ...]
    files: Mapping[str, str]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the manifest's content: what derived data name as their source."""
        return value_sha256(self._content())

    def _content(self) -> dict[str, Any]:
        content = {"format": self.FORMAT, **asdict(self)}
        if not content.get("classes"):  # masks of one target are as before there were others
            content.pop("classes", None)
        return content

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
            manifest = _adapter(cls).validate_python(value)  # type: ignore[arg-type]
            named: set[str] = set()
            for name in [entry.name for entry in manifest.shards] + list(manifest.files):
                _check_plain_name(path, name)
                if name in named:
                    raise DatasetError(f"{path}: names the file {name!r} twice, expected it once")
                named.add(name)
            manifest.fingerprint  # noqa: B018 - computed here, where its errors are caught
        except ValidationError as error:
            raise DatasetError(f"{path}: {_fault(error, value)}") from None
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


@cache  # to make one takes longer than all else about reading
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True)
class ShardManifest(_Manifest):
    """A packed dataset.

    Attributes:
        shards: the tars in order of their numbers.
        files: SHA-256 of each table beside them.
        dataset: the dataset's name, such as ``"busi"``.
        phantom: whether the images are procedural.
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
        classes: what the indices of masks of the kind ``"classes"`` stand for, in order, the
            background first; the index 255 is void. Empty for other kinds.
        found: what the layout counted on the way, by its words.
        config: the settings that decide the bytes; no paths.
    """

    FORMAT = "nakt-shards/3"
    WHAT = "shard manifest"

    dataset: str
    phantom: _Flag
    height: _Side
    width: _Side
    channels: Literal[1, 3]
    mask_kind: Literal["none", "binary", "classes"]
    splits: _Counts
    counts: Annotated[_Counts, _has("inputs", "packed", "rejected")]
    left_out: _Counts
    ignored_files: _Counts
    vocabulary: Mapping[str, list[str]]
    findings: Annotated[
        tuple[str, ...], _that("a list of different texts", lambda all: len(set(all)) == len(all))
    ]
    label_policy: Annotated[
        Mapping[Literal["uncertain", "blank"], _Use], _has("uncertain", "blank")
    ]
    patients: Annotated[
        Mapping[Literal["known", "images_without"], _Count], _has("known", "images_without")
    ]
    found: _Counts
    config: Mapping[str, Any]
    classes: Annotated[tuple[str, ...], _CLASSES] = ()


@dataclass(frozen=True, kw_only=True)
class _TaughtManifest(_Manifest):
    """What teachers wrote for one packed dataset.

    Attributes:
        phantom: whether the images are procedural.
        teachers: per teacher its name, weights_sha256, architecture, preprocessing, weight
            and output kind.
        config: what decides the bytes; no paths.
    """

    dataset: str
    dataset_fingerprint: str
    phantom: _Flag
    teachers: tuple[Annotated[Mapping[str, Any], _TEACHER], ...]
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


@dataclass(frozen=True, kw_only=True)
class PseudoLabelManifest(_TaughtManifest):
    """Pseudo masks of one packed dataset by one ensemble of teachers.

    Attributes:
        shards: the sidecar tars, in the order of the dataset's shards.
        files: SHA-256 of each table beside them.
        classes: of the masks, the background first, where there are several besides it; a soft mask
            then has a plane for each but the background, one below the other. Empty for one target.
        soft: whether at least one teacher gave soft masks; without one the entropy
            threshold β does not apply (paper A, section 2).
    """

    FORMAT = "nakt-pseudo-labels/1"
    WHAT = "pseudo-label manifest"

    height: _Side
    width: _Side
    soft: _Flag
    classes: Annotated[tuple[str, ...], _CLASSES] = ()

    @property
    def planes(self) -> int:
        """Of a soft mask: one for each class but the background."""
        return max(len(self.classes) - 1, 1)


@dataclass(frozen=True, kw_only=True)
class PseudoFindingsManifest(_TaughtManifest):
    """Pseudo-findings of one packed dataset by one ensemble of classifiers.

    Attributes:
        shards: the sidecar tables, in the order of the dataset's shards.
        files: nothing lies beside them.
        findings: that at least one teacher knows, in the order of the tables' values.
        privacy: how teachers voted in private and what it cost; None where they did not.
    """

    FORMAT = "nakt-pseudo-findings/1"
    WHAT = "pseudo-findings manifest"

    findings: Annotated[
        tuple[str, ...],
        _that("a list of different texts", lambda all: 0 < len(set(all)) == len(all)),
    ]
    privacy: Mapping[str, Any] | None = None


TaughtManifest = PseudoLabelManifest | PseudoFindingsManifest
AnyManifest = ShardManifest | TaughtManifest


def read_taught_manifest(folder: Path) -> TaughtManifest:
    """Reads the manifest of pseudo masks or of pseudo-findings, whichever the folder holds.

    Raises:
        DatasetError: there is none, or it is neither.
    """
    path = folder / MANIFEST_NAME
    if path.exists():
        found = read_json(path, "manifest", MOST_MANIFEST_BYTES).get("format")
        if found == PseudoFindingsManifest.FORMAT:
            return PseudoFindingsManifest.read(folder)
    return PseudoLabelManifest.read(folder)


def _check_plain_name(path: Path, name: str) -> None:
    """Refuses a file name that could lead out of the dataset's folder, or that none can have."""
    plain = isinstance(name, str) and name and not set(name) & set("/\\:")
    # What cannot be printed holds what would move the cursor, or is no Unicode.
    plain = plain and name.isprintable() and len(name.encode()) <= _LONGEST_NAME_BYTES
    if not plain or name.startswith("."):
        raise DatasetError(
            f"{path}: names the file {name!r}; expected a plain file name beside the manifest"
        )


def _fault(error: ValidationError, value: Mapping[str, Any]) -> str:
    """Says which field is wrong, by the first of the faults found."""
    found = error.errors(include_url=False)[0]
    first, *rest = map(str, found["loc"])
    if found["type"] in ("missing", "unexpected_keyword_argument"):
        return f"a field is missing or unknown: {found['loc'][-1]!r}"
    name, shown = first, value[first]
    if first == "shards" and len(rest) > 1:
        name, shown = f"shards[{rest[0]}].{rest[1]}", shown[int(rest[0])][rest[1]]
    expected = found["msg"].removeprefix("Input should be ").partition(" or an instance")[0]
    expected = re.sub("^(?=greater|less)", "a number ", expected)
    expected = expected.replace("a dictionary", "an object").replace("tuple", "list")
    expected = expected.replace("dictionary", "object")
    return (
        f"field '{name}' is {str(shown)[:60]!r}, expected {expected}. Restore it from a copy, or "
        "delete the folder and make it again"
    )
