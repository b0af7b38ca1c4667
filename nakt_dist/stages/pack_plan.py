"""What is to be packed, decided before any pixel is read.

The plan is a pure function of the listing and the settings. What its images hold is found out
next (``nakt_dist.stages.pack_prepare``); which of them goes into which shard follows from both
(``nakt_dist.stages.pack_divide``). So any number of workers, in any order, and again, write the
same bytes.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig, as_plain
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.runtime.key_file import make_key, read_key
from nakt_dist.runtime.processes import say
from nakt_dist.shards.findings import patients_in_two_splits
from nakt_dist.sources import SOURCES, SourceListing, SourceRecord, find_source, scan_source
from nakt_dist.sources.cards import CountComparison, compare_counts, load_card
from nakt_dist.sources.deidentification import METHOD, Pseudonyms, deidentify, without_names
from nakt_dist.sources.keys import assign_keys
from nakt_dist.sources.splits import choose_subset, official_splits, traits_of

CARDS_FOLDER = Path(__file__).parents[2] / "shards" / "cards"
PHANTOM_MARKER = "PHANTOM.json"
UNFINISHED_PHANTOM_MARKER = "PHANTOM.incomplete"
_NOT_IN_THE_BYTES = (
    "source", "output", "workers", "card", "deidentify", "deidentify_key", "trust_times",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackInput:
    """One published image that is to be packed.

    Attributes:
        record: where its files are, and what the dataset says of it.
        own_key: the key that it has without ``deidentify``; splits follow from it.
        patient: the patient as the dataset names them, or None.
        traits: what splits should have alike, see ``nakt_dist.sources.splits.traits_of``.
        usable: whether the listing shows no reason to set it aside.
    """

    key: str
    record: SourceRecord
    own_key: str
    patient: str | None
    traits: tuple[str, ...]
    usable: bool

    @property
    def has_plain_mask(self) -> bool:
        """Whether what is target in its mask is not said by the layout."""
        return self.record.mask_kind == "binary" and not self.record.mask_classes


@dataclass(frozen=True)
class PackPlan:
    """A dataset before it is read.

    Attributes:
        inputs: in the order of their keys.
        left_over: usable ones beyond the ``count`` that is packed.
        left_out: inputs a setting leaves out, by the setting's words.
        ignored_files: files of no sample, by suffix.
        phantom: whether the images are procedural.
        settings: those that decide the bytes, as the manifest holds them.
        findings: names of the findings that images are labelled with, in order.
        classes: names of the classes of class masks, in the order of their indices.
        found: what the layout counted on the way, by its words.
        expected: the dataset card's counts beside those found.
        content_key: bytes that key the hashes of what files hold; empty unless ``deidentify``.
    """

    config: PackConfig
    inputs: tuple[PackInput, ...]
    left_over: tuple[PackInput, ...]
    left_out: Mapping[str, int]
    ignored_files: Mapping[str, int]
    phantom: bool
    settings: Mapping[str, Any]
    findings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    expected: tuple[CountComparison, ...] = ()
    content_key: bytes = b""


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


def make_plan(config: PackConfig, may_make_key: bool = False) -> PackPlan:
    """Lists the dataset and chooses what is packed of it; may write a key that is not there.

    De-identified, a dataset has the same images in the same splits. Only their order differs:
    it follows from the keys, so that it gives no original name away, and those are hashes then.

    Raises:
        ConfigurationError: unknown layout or option; or the key of ``deidentify`` cannot be used.
        DatasetError: the source is not of the layout, holds no image, or its own splits are
            wanted and lack an image or share a patient.
    """
    source = Path(config.source)
    listing = scan_source(config.layout, source, config.layout_options)
    if not listing.records:
        raise DatasetError(
            f"{source}: no image of layout '{config.layout}' is left to pack "
            f"(left out by settings: {dict(listing.left_out) or 'none'})"
        )
    listed = listing.records
    if not config.masks:  # what nobody reads may change
        listed = [replace(record, masks=(), mask_kind="none") for record in listed]
    classes = config.mask_values.class_names
    if classes:
        listed = [_with_classes(record) for record in listed]
    tolerated = tolerated_problems(config)
    own_keys = assign_keys([record.name for record in listed])
    usable = [each.problem is None or each.problem[0] in tolerated for each in listed]
    chosen = _choose(config, own_keys, usable)
    left_out = dict(listing.left_out)
    if len(chosen) < len(own_keys):
        left_out[f"beyond count {config.count}"] = len(own_keys) - len(chosen)
    pseudonyms = _open_pseudonyms(config, may_make_key)
    records, keys = listed, own_keys
    if pseudonyms is not None:
        records = deidentify(records, pseudonyms)
        keys = assign_keys([record.name for record in records])
    _check_official_splits(config, [r for r, fits in zip(records, usable, strict=True) if fits])
    patients = [record.patient_id for record in listed]
    # Hundreds of thousands of images share their traits, each in memory once.
    traits = [tuple(map(sys.intern, sorted(traits_of(record)))) for record in listed]
    columns = zip(keys, records, own_keys, patients, traits, usable, strict=True)
    inputs = [PackInput(*values) for values in columns]
    ignored = listing.ignored_files
    return PackPlan(
        config=config,
        inputs=tuple(sorted((e for e in inputs if e.own_key in chosen), key=attrgetter("key"))),
        left_over=tuple(each for each in inputs if each.usable and each.own_key not in chosen),
        left_out=left_out,
        ignored_files=dict(ignored) if pseudonyms is None else without_names(ignored),
        phantom=_is_phantom(source) if config.phantom is None else config.phantom,
        settings=_identity(config, pseudonyms),
        findings=tuple(listing.findings),
        classes=classes or listing.classes,
        found=listing.told() if pseudonyms is None else dict(listing.found),
        expected=tuple(_expected_counts(config, listing)),
        # An unkeyed hash of a published file would tell its holder which patient it is.
        content_key=pseudonyms.of("content", "key").encode() if pseudonyms else b"",
    )


def _with_classes(record: SourceRecord) -> SourceRecord:
    """Returns a record whose masks hold the classes that the settings name."""
    if record.mask_classes:
        raise ConfigurationError(
            "mask_values.classes and layout_options.classes both name classes; leave the latter out"
        )
    return replace(record, mask_kind="classes") if record.masks else record


def _choose(config: PackConfig, keys: Sequence[str], usable: Sequence[bool]) -> set[str]:
    """Returns the keys that ``count`` chooses, or all.

    It chooses among those that can be used: with a table of all images and a few of them on the
    disk, most of a hundred would otherwise be rows without a file.
    """
    candidates = [key for key, fits in zip(keys, usable, strict=True) if fits] or keys
    if config.count is None or config.count >= len(candidates):
        return set(keys)
    return choose_subset(candidates, config.count, config.seed)


def tolerated_problems(config: PackConfig) -> frozenset[str]:
    """Names the problems of a listing that the settings say do not matter."""
    tolerated = {"missing_mask": not config.masks, "missing_label": config.unlabelled}
    return frozenset(reason for reason, applies in tolerated.items() if applies)


def _check_official_splits(config: PackConfig, usable: Sequence[SourceRecord]) -> None:
    """Refuses official splits that lack an image or share a patient, before any is read."""
    if not config.splits.official:
        return
    files = SOURCES[config.layout].split_files
    splits = official_splits(usable, config.splits.without_official, files)
    shared = sorted(patients_in_two_splits([record.patient_id for record in usable], splits))
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


def _is_phantom(source: Path) -> bool:
    """Says whether ``nakt phantoms`` wrote a folder or one above it; refuses half written ones."""

    def is_marked(name: str) -> bool:
        return any((folder / name).is_file() for folder in (source, *source.resolve().parents))

    if is_marked(UNFINISHED_PHANTOM_MARKER):
        raise DatasetError(
            f"{source}: phantoms half written; run nakt phantoms again on the folder"
        )
    return is_marked(PHANTOM_MARKER)


def _open_pseudonyms(config: PackConfig, may_make_key: bool) -> Pseudonyms | None:
    """Reads the key that ``deidentify`` asks for, or makes it; None where it does not."""
    if not config.deidentify:
        return None
    check_deidentify(config)
    path = Path(config.deidentify_key).expanduser()
    if may_make_key and make_key(path):
        say(
            f"pack: made the key {path}. Keep it, so that other datasets get the same hashes, and "
            "keep it secret: with it, hashes can be traced to patients"
        )
    return Pseudonyms(read_key(path))


def check_deidentify(config: PackConfig) -> None:
    """Refuses settings of ``deidentify`` by which patients would be given away.

    Raises:
        ConfigurationError: the key lies where it would be passed on with the data, or options of
            the layout would give patients away; or there is no such layout.
    """
    path = Path(config.deidentify_key).expanduser()
    for name in ("source", "output"):
        folder = Path(getattr(config, name)).resolve()
        if path.resolve().is_relative_to(folder):
            raise ConfigurationError(
                f"deidentify_key {path} lies in the {name} {folder}, with which it would be "
                "passed on; choose a file elsewhere"
            )
    check = find_source(config.layout).check_deidentified
    if check is not None:
        check(config.layout_options)


def kept_layout_options(config: PackConfig) -> dict[str, Any]:
    """Returns the layout's options as they are kept beside the shards.

    De-identified, those that name files or folders of the source are left out.
    """
    options = as_plain(config)["layout_options"]
    left_out = find_source(config.layout).path_options if config.deidentify else ()
    return {name: value for name, value in options.items() if name not in left_out}


def _identity(config: PackConfig, pseudonyms: Pseudonyms | None) -> dict[str, Any]:
    """Returns the settings that decide the bytes, as plain values."""
    settings = {
        name: value for name, value in as_plain(config).items() if name not in _NOT_IN_THE_BYTES
    }
    classes = settings["mask_values"].pop("classes")
    if classes is not None:  # in their order, which is that of their indices
        settings["mask_values"]["classes"] = [[name, classes[name]] for name in classes]
    settings["layout_options"] = kept_layout_options(config)
    left_out = sorted(config.layout_options.keys() - settings["layout_options"].keys())
    if left_out:
        settings["layout_options_left_out"] = left_out
    if pseudonyms is not None:
        settings["deidentified"] = {"method": METHOD, "key_fingerprint": pseudonyms.fingerprint}
    return settings
