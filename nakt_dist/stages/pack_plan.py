"""Which input goes into which shard, decided before any pixel is read.

The plan is a pure function of the listing and the settings. Shards can therefore be written
by any number of workers, in any order, and again, always with the same bytes. An input that
turns out to be unusable leaves its shard one sample short; nothing moves up.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.config import PackConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.shards.findings import patients_in_two_splits
from nakt_dist.sources import SOURCES, SourceListing, SourceRecord, scan_source
from nakt_dist.sources.cards import CountComparison, compare_counts, load_card
from nakt_dist.sources.deidentification import deidentify, without_names
from nakt_dist.sources.keys import assign_keys
from nakt_dist.sources.mask_rule import MaskRule
from nakt_dist.sources.splits import assign_splits, choose_subset, official_splits, traits_of
from nakt_dist.stages.pack_identity import dataset_identity, open_pseudonyms

CARDS_FOLDER = Path(__file__).parents[2] / "shards" / "cards"
PHANTOM_MARKER = "PHANTOM.json"
UNFINISHED_PHANTOM_MARKER = "PHANTOM.incomplete"


@dataclass(frozen=True)
class ShardPlan:
    """The inputs of one shard.

    Attributes:
        name: file name of the tar.
        split: the split of all its samples.
        keys: of the inputs, in the order in which they are written.
        records: where the inputs are.
    """

    name: str
    split: str
    keys: tuple[str, ...]
    records: tuple[SourceRecord, ...]


@dataclass(frozen=True)
class PackPlan:
    """All shards of a dataset.

    Attributes:
        shards: in the order of their numbers.
        left_out: inputs a setting leaves out, by the setting's words.
        ignored_files: files of no sample, by suffix.
        phantom: whether the images are procedural.
        identity: settings and inputs that decide the bytes.
        findings: names of the findings that images are labelled with, in order.
        found: what the layout counted on the way, by its words.
        expected: the dataset card's counts beside those found.
        mask_rule: what is target in binary masks; known once they were judged.
    """

    shards: tuple[ShardPlan, ...]
    left_out: Mapping[str, int]
    ignored_files: Mapping[str, int]
    phantom: bool
    identity: Mapping[str, Any]
    findings: tuple[str, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    expected: tuple[CountComparison, ...] = ()
    mask_rule: MaskRule = field(default_factory=MaskRule)

    @property
    def num_inputs(self) -> int:
        """Inputs over all shards."""
        return sum(len(shard.keys) for shard in self.shards)

    @property
    def records(self) -> list[SourceRecord]:
        """The inputs of all shards, in order."""
        return [record for shard in self.shards for record in shard.records]


def check_apart(config: PackConfig) -> None:
    """Refuses to write a dataset into its own source.

    Raises:
        ConfigurationError: the output lies there.
    """
    if Path(config.output).resolve().is_relative_to(Path(config.source).resolve()):
        raise ConfigurationError(
            f"output {config.output} lies in the source {config.source}, where it would be listed "
            "with the dataset; choose a folder elsewhere"
        )


def make_plan(config: PackConfig, may_make_key: bool = True) -> PackPlan:
    """Lists the dataset and assigns every input to a shard.

    De-identified, a dataset has the same images in the same splits. Only their order differs:
    it follows from the keys, so that it gives no original name away, and those are hashes then.

    Args:
        config: of the packing.
        may_make_key: write a new key where ``deidentify`` is set and there is none.

    Raises:
        ConfigurationError: unknown layout, option, or fractions that do not sum to 1; or the key
            of ``deidentify`` cannot be used.
        DatasetError: the source is not of the layout, holds no image, or its own splits share
            a patient.
    """
    source = Path(config.source)
    listing = scan_source(config.layout, source, config.layout_options)
    if not listing.records:
        raise DatasetError(
            f"{source}: no image of layout '{config.layout}' is left to pack "
            f"(left out by settings: {dict(listing.left_out) or 'none'})"
        )
    keys = assign_keys([record.name for record in listing.records])
    splits = _splits_of(config, keys, listing.records)
    chosen = list(range(len(keys)))
    left_out = dict(listing.left_out)
    if config.count is not None and config.count < len(keys):
        wanted = choose_subset(keys, config.count, config.seed)
        chosen = [number for number in chosen if keys[number] in wanted]
        left_out[f"beyond count {config.count}"] = len(keys) - len(chosen)
    pseudonyms = open_pseudonyms(config, may_make_key)
    if pseudonyms is not None:
        records = deidentify(listing.records, pseudonyms)
        listing = replace(
            listing, records=records, ignored_files=without_names(listing.ignored_files)
        )
        keys = assign_keys([record.name for record in records])
    shards = tuple(_cut_into_shards(config, keys, listing.records, splits, chosen))
    _check_patients(config, shards)
    inputs = [
        (shard.name, key, record)
        for shard in shards
        for key, record in zip(shard.keys, shard.records, strict=True)
    ]
    return PackPlan(
        shards=shards,
        left_out=left_out,
        ignored_files=dict(listing.ignored_files),
        phantom=_is_phantom(source) if config.phantom is None else config.phantom,
        identity=dataset_identity(config, inputs, listing.findings, pseudonyms),
        findings=tuple(listing.findings),
        found=listing.told() if pseudonyms is None else dict(listing.found),
        expected=tuple(_expected_counts(config, listing)),
    )


def tolerated_problems(config: PackConfig) -> frozenset[str]:
    """Names the problems of a listing that the settings say do not matter."""
    tolerated = {"missing_mask": not config.masks, "missing_label": config.unlabelled}
    return frozenset(reason for reason, applies in tolerated.items() if applies)


def is_usable(record: SourceRecord, tolerated: Collection[str]) -> bool:
    """Says whether the listing shows no reason to set a record aside."""
    return record.problem is None or record.problem[0] in tolerated


def _check_patients(config: PackConfig, shards: Sequence[ShardPlan]) -> None:
    """Refuses splits that share a patient; fractions never give such, official ones can."""
    tolerated = tolerated_problems(config)
    samples = [
        (record.patient_id, shard.split)
        for shard in shards
        for record in shard.records
        if is_usable(record, tolerated)
    ]
    shared = sorted(patients_in_two_splits(*zip(*samples, strict=True))) if samples else []
    if shared:
        patient, first, second = shared[0]
        raise DatasetError(
            f"{config.source}: patient '{patient}' is in the splits '{first}' and '{second}' "
            f"(patients in several splits: {len(shared)}); a test would know its patients from "
            "training. Set splits.official to false to divide by patient"
        )


def _expected_counts(config: PackConfig, listing: SourceListing) -> list[CountComparison]:
    """Compares the listing with the dataset's card; none where there is no card."""
    name = config.card or SOURCES[config.layout].card
    if name is None or (config.card is None and not CARDS_FOLDER.is_dir()):
        return []
    return compare_counts(load_card(name, CARDS_FOLDER), listing)


def _splits_of(
    config: PackConfig, keys: Sequence[str], records: Sequence[SourceRecord]
) -> Sequence[str]:
    """Returns the split of each record; shares are taken of those that can be used."""
    tolerated = tolerated_problems(config)
    numbers = [number for number, each in enumerate(records) if is_usable(each, tolerated)]
    usable = [records[number] for number in numbers]
    usable_keys = [keys[number] for number in numbers]
    if config.splits.official:
        official = official_splits(
            usable, config.splits.without_official, SOURCES[config.layout].split_files
        )
        found = _with_validation(config, usable_keys, usable, official)
    else:
        groups = [record.patient_id for record in usable]
        traits = [traits_of(record) for record in usable]
        found = assign_splits(usable_keys, groups, traits, config.splits.fractions, config.seed)
    # What cannot be used has to be somewhere to be rejected; where does not matter.
    splits = [found[0] if found else "train"] * len(records)
    for number, split in zip(numbers, found, strict=True):
        splits[number] = split
    return splits


def _with_validation(
    config: PackConfig,
    keys: Sequence[str],
    records: Sequence[SourceRecord],
    official: Sequence[str],
) -> Sequence[str]:
    """Returns the official splits with a share of the training patients as ``validation``.

    Raises:
        ConfigurationError: the dataset has a ``validation`` of its own, or no ``train``.
    """
    share = config.splits.validation_from_train
    if share == 0:
        return official
    if "validation" in official or "train" not in official:
        raise ConfigurationError(
            f"splits.validation_from_train is {share}, but the dataset's own splits are "
            f"{', '.join(sorted(set(official)))}; it needs a 'train' to take from and no "
            "'validation'. Set it to 0"
        )
    training = [number for number, split in enumerate(official) if split == "train"]
    divided = assign_splits(
        [keys[number] for number in training],
        [records[number].patient_id for number in training],
        [traits_of(records[number]) for number in training],
        {"train": 1 - share, "validation": share},
        config.seed,
    )
    splits = list(official)
    for number, split in zip(training, divided, strict=True):
        splits[number] = split
    return splits


def _cut_into_shards(
    config: PackConfig,
    keys: Sequence[str],
    records: Sequence[SourceRecord],
    splits: Sequence[str],
    chosen: Sequence[int],
) -> list[ShardPlan]:
    """Shuffles the whole dataset, then cuts each split into shards numbered throughout."""
    by_key = sorted(chosen, key=lambda number: keys[number])
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(by_key))
    shuffled = [by_key[position] for position in order]
    names = [split for split in _split_order(config, splits) if split in set(splits)]
    shards: list[ShardPlan] = []
    for split in names:
        members = [number for number in shuffled if splits[number] == split]
        for start in range(0, len(members), config.samples_per_shard):
            piece = members[start : start + config.samples_per_shard]
            shards.append(
                ShardPlan(
                    name=f"{split}-{len(shards):06d}.tar",
                    split=split,
                    keys=tuple(keys[number] for number in piece),
                    records=tuple(records[number] for number in piece),
                )
            )
    return shards


def _split_order(config: PackConfig, splits: Sequence[str]) -> list[str]:
    return sorted(set(splits)) if config.splits.official else list(config.splits.fractions)


def _is_phantom(source: Path) -> bool:
    """Says whether a folder, or one above it, was written by ``nakt phantoms``.

    Raises:
        DatasetError: its writing was interrupted.
    """
    folders = (source, *source.resolve().parents)
    if any((folder / UNFINISHED_PHANTOM_MARKER).is_file() for folder in folders):
        raise DatasetError(
            f"{source}: phantoms half written; run nakt phantoms again on the folder"
        )
    return any((folder / PHANTOM_MARKER).is_file() for folder in folders)
