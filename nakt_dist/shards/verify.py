"""Re-reads everything a manifest names and says which shard and key is damaged."""

import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from PIL import Image

from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.runtime.files import file_sha256, read_json
from nakt_dist.shards.absent import explain_absent
from nakt_dist.shards.damage import Damage, bytes_at, check_tar, locate_outside_members, members_of
from nakt_dist.shards.findings import parse_findings, parse_labels, patients_in_two_splits
from nakt_dist.shards.index_file import index_schema
from nakt_dist.shards.manifest import (
    INDEX_NAME,
    MANIFEST_NAME,
    MOST_MANIFEST_BYTES,
    REJECTED_NAME,
    AnyManifest,
    PseudoFindingsManifest,
    PseudoLabelManifest,
    ShardEntry,
    ShardManifest,
    read_taught_manifest,
)
from nakt_dist.shards.pseudo_findings import read_sidecar
from nakt_dist.shards.tables import REJECTED_SCHEMA, read_table
from nakt_dist.shards.tars import MOST_MEMBER_BYTES

_EXTENSIONS = ("jpg", "png")


def read_any_manifest(folder: Path) -> AnyManifest:
    """Reads the manifest of a dataset or of pseudo-labels, whichever the folder holds.

    Raises:
        DatasetError: there is none, or it is neither.
    """
    if not (folder / MANIFEST_NAME).exists():
        raise explain_absent(folder, MANIFEST_NAME, "manifest")
    found = read_json(folder / MANIFEST_NAME, "manifest", MOST_MANIFEST_BYTES).get("format")
    taught = found in (PseudoLabelManifest.FORMAT, PseudoFindingsManifest.FORMAT)
    return read_taught_manifest(folder) if taught else ShardManifest.read(folder)


def verify_folder(
    folder: Path, advance: Callable[[int], None] = lambda count: None
) -> Iterator[Damage]:
    """Checks a packed dataset or a folder of pseudo-labels.

    Every byte is read: checksums of files and of members, the order of keys, that the tars
    themselves hold the index's files and nothing else, that images and masks decode to the
    manifest's size, that findings are of the manifest's vocabulary, that the index says the
    same of each image as the JSON in its shard, that the sums of inputs and samples hold, that
    no patient is in two splits, and that nothing unnamed lies among the shards.

    Args:
        advance: called with the number of samples checked, for a progress bar.

    Yields:
        Each damage found.

    Raises:
        DatasetError: there is no manifest to check against, or a file cannot be read at all.
    """
    try:
        yield from _check_folder(folder, advance)
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be read: {error}. Check the permissions and the disk"
        ) from error


def _check_folder(folder: Path, advance: Callable[[int], None]) -> Iterator[Damage]:
    manifest = read_any_manifest(folder)
    if not manifest.is_as_written(folder):
        yield Damage(MANIFEST_NAME, None, "written in another form than ours, with equal content")
    broken = manifest.damaged_files(folder)
    for name in broken:
        yield Damage(name, None, "absent, or its SHA-256 differs from the manifest's")
    named = {entry.name for entry in manifest.shards} | set(manifest.files)
    ending = "*.parquet" if isinstance(manifest, PseudoFindingsManifest) else "*.tar"
    for path in sorted(folder.glob(ending)):
        if path.name not in named:
            yield Damage(path.name, None, "the manifest does not name this file")
    if isinstance(manifest, PseudoFindingsManifest):
        yield from _check_sidecars(folder, manifest, advance)
        return
    if INDEX_NAME in broken:  # it cannot be trusted to say where samples lie
        yield from _check_whole_shards(folder, manifest)
        return
    schema = index_schema(manifest)
    try:
        if not broken:
            yield from _check_counts(folder, manifest)
        for number, entry in enumerate(manifest.shards):
            shard = [("shard", "==", number)]
            rows = read_table(folder / INDEX_NAME, schema, shard, manifest.num_samples).to_pylist()
            yield from _check_shard(folder, entry, rows, manifest)
            advance(entry.samples)
    except DatasetError as error:
        yield Damage(INDEX_NAME, None, str(error))


def _check_sidecars(
    folder: Path, manifest: PseudoFindingsManifest, advance: Callable[[int], None]
) -> Iterator[Damage]:
    """Checks every table, and that no key is there twice."""
    keys: set[str] = set()
    for entry in manifest.shards:
        try:
            found = read_sidecar(folder / entry.name, entry, len(manifest.findings))["key"]
        except DatasetError as error:
            yield Damage(entry.name, None, str(error))
            continue
        before = len(keys)
        keys.update(found.to_pylist())
        if len(keys) != before + len(found):
            yield Damage(entry.name, None, "a key occurs twice")
        advance(entry.samples)


def _check_whole_shards(
    folder: Path, manifest: ShardManifest | PseudoLabelManifest
) -> Iterator[Damage]:
    """Compares the shards with their SHA-256, which needs no index and names no key."""
    for entry in manifest.shards:
        path = folder / entry.name
        if not path.is_file():
            yield Damage(entry.name, None, "absent")
        elif file_sha256(path) != entry.sha256:
            yield Damage(entry.name, None, "its SHA-256 differs from the manifest's")


def _check_counts(folder: Path, manifest: ShardManifest | PseudoLabelManifest) -> Iterator[Damage]:
    """Checks the sums: nothing lost, nothing twice."""
    index = read_table(folder / INDEX_NAME, index_schema(manifest), most_rows=manifest.num_samples)
    keys = index["key"]
    if len(keys) != manifest.num_samples:
        yield Damage(INDEX_NAME, None, f"{len(keys)} rows for {manifest.num_samples} samples")
    if len(keys.unique()) != len(keys):
        yield Damage(INDEX_NAME, None, "a key occurs twice")
    if isinstance(manifest, PseudoLabelManifest):
        return
    yield from _check_patients(index, manifest)
    counts = manifest.counts
    rejected = read_table(
        folder / REJECTED_NAME, REJECTED_SCHEMA, None, counts["rejected"], "rejected inputs"
    ).num_rows
    if (counts["packed"], counts["rejected"]) != (len(keys), rejected):
        yield Damage(MANIFEST_NAME, None, f"counts {dict(counts)}, found {len(keys)} + {rejected}")
    if counts["inputs"] != counts["packed"] + counts["rejected"]:
        yield Damage(MANIFEST_NAME, None, f"inputs are not packed + rejected: {dict(counts)}")


def _check_patients(index: pa.Table, manifest: ShardManifest) -> Iterator[Damage]:
    """Checks that no patient is in two splits, and how many patients there are."""
    patients = index["patient_id"].to_pylist()
    for patient, first, second in patients_in_two_splits(patients, index["split"].to_pylist()):
        yield Damage(
            INDEX_NAME, None, f"patient '{patient}' is in the splits '{first}' and '{second}'"
        )
    found = {"known": len(set(patients) - {None}), "images_without": patients.count(None)}
    if found != dict(manifest.patients):
        yield Damage(MANIFEST_NAME, None, f"patients {dict(manifest.patients)}, found {found}")


def _check_shard(
    folder: Path,
    entry: ShardEntry,
    rows: list[Mapping[str, Any]],
    manifest: ShardManifest | PseudoLabelManifest,
) -> Iterator[Damage]:
    """Checks one tar against its entry and its rows of the index."""
    path = folder / entry.name
    if not path.is_file():
        yield Damage(entry.name, None, "absent")
        return
    if len(rows) != entry.samples:
        yield Damage(entry.name, None, f"{len(rows)} rows in the index, expected {entry.samples}")
    size = path.stat().st_size
    if size != entry.bytes:
        yield Damage(entry.name, None, f"{size} bytes, expected {entry.bytes}")
    found = 0
    with path.open("rb") as stream:
        for row in rows:
            try:
                _check_row(row, entry, size)
                if isinstance(manifest, ShardManifest):
                    parse_findings(row["findings"], manifest.findings)
                    parse_labels(row["labels"])
                _check_sample(stream, row, manifest)
            except (UnusableSample, ValueError) as error:
                found += 1
                detail = (
                    error.detail if isinstance(error, UnusableSample) else f"the index: {error}"
                )
                yield Damage(entry.name, row["key"], detail)
    if found or size != entry.bytes:
        return
    if file_sha256(path) != entry.sha256:
        yield locate_outside_members(path, entry, rows)
    else:
        yield from check_tar(path, entry, rows)


def _check_row(row: Mapping[str, Any], entry: ShardEntry, shard_bytes: int) -> None:
    """Checks what a row says, so that its bytes can be looked for."""

    def refuse(column: str, expected: str) -> None:
        raise UnusableSample(
            "wrong_row", f"the index has {column} {row[column]!r}, expected {expected}"
        )

    key = row["key"]
    if not key or set(key) & set("./\\"):
        refuse("key", "a name without . / \\")
    if row["split"] != entry.split:
        refuse("split", f"{entry.split!r}, that of the shard")
    pseudo = "soft_offset" in row
    if not pseudo and row["extension"] not in _EXTENSIONS:
        refuse("extension", " or ".join(_EXTENSIONS))
    for member in ("soft",) if pseudo else ("image", "mask", "json"):
        columns = [f"{member}_{each}" for each in ("offset", "size", "crc32")]
        absent = [column for column in columns if row[column] is None]
        if member == "mask" and len(absent) == len(columns):
            continue
        if absent:
            refuse(absent[0], "a number")
        offset, size = row[columns[0]], row[columns[1]]
        if not 0 <= offset <= shard_bytes:
            refuse(columns[0], f"a position in the {shard_bytes} bytes of the shard")
        if not 0 <= size <= shard_bytes - offset:
            refuse(columns[1], f"at most the {shard_bytes - offset} bytes up to the shard's end")
        if size > MOST_MEMBER_BYTES:
            refuse(columns[1], f"at most {MOST_MEMBER_BYTES}")


def _check_sample(
    stream: BinaryIO, row: Mapping[str, Any], manifest: ShardManifest | PseudoLabelManifest
) -> None:
    """Checks checksums and decodes every file of a sample."""
    for extension, (offset, size, crc32) in members_of(row).items():
        data = bytes_at(stream, offset, size)
        if zlib.crc32(data) != crc32:
            raise UnusableSample(
                "changed", f"the bytes of .{extension} differ from the index's checksum"
            )
        try:
            if extension == "json":
                _check_description(json.loads(data), row)
                continue
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                _check_size(extension, image, manifest)  # before the pixels take memory
                np.asarray(image)
        except UnusableSample:
            raise
        except Exception as error:  # whatever a decoder raises, the sample is damaged
            raise UnusableSample("undecodable", f".{extension} does not decode: {error}") from None


def _check_description(description: Any, row: Mapping[str, Any]) -> None:
    """Compares a sample's JSON with its row of the index: readers of both learn the same."""
    if not isinstance(description, Mapping):
        raise UnusableSample("undecodable", ".json is no object of values by name")
    in_index = {
        "source": row["source"],
        "patient_id": row["patient_id"],
        "labels": json.loads(row["labels"]),
        "findings": None if row["findings"] is None else json.loads(row["findings"]),
    }
    for name, expected in in_index.items():
        found = description.get(name)
        if found != expected:
            raise UnusableSample(
                "wrong_row",
                f"the index has {name} {str(expected)[:80]!r}, its .json in the shard "
                f"{str(found)[:80]!r}; expected the same",
            )


def _check_size(
    extension: str, image: Image.Image, manifest: ShardManifest | PseudoLabelManifest
) -> None:
    found, height = (image.height, image.width), manifest.height
    if extension == "soft.png" and isinstance(manifest, PseudoLabelManifest):
        height *= manifest.planes
    expected = (height, manifest.width)
    if found != expected:
        raise UnusableSample("wrong_size", f".{extension} is {found}, expected {expected}")
