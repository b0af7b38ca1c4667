"""What a layout says about each published image, and what all layouts share to say it."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nakt_dist.errors import ConfigurationError, DatasetError, nearest_name, valid_unicode
from nakt_dist.sources.files import FolderContents, FoundFile, walk

MaskKind = Literal["none", "binary", "classes"]


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One published image and what belongs to it.

    Attributes:
        name: path of the image below the dataset's root, with ``/``; unique in a listing.
        masks: mask files; several binary masks are united.
        mask_kind: what reading the masks gives: ``"none"`` (the dataset has no mask for this
            image), ``"binary"`` (background and target) or ``"classes"`` (class indices,
            255 void).
        mask_classes: only with kind ``"binary"``, when the mask file holds class indices:
            the target is the union of these classes, void counts as background.
        patient_id: the patient as the dataset names them, or None where it does not.
        stratum: class used to stratify the splits, such as ``"benign"``; may be empty.
        official_split: the split the dataset itself assigns, or None.
        labels: image-level labels and facts, JSON-serialisable.
        findings: per finding 1 (present), 0 (absent) or -1 (uncertain); a finding that is not
            named is blank. None where the dataset says nothing about this image.
        problem: ``(reason, detail)`` when the listing already shows that the image cannot
            be used, for example a mask that should exist and does not; else None.
    """

    name: str
    image: Path
    masks: tuple[Path, ...] = ()
    mask_kind: MaskKind = "none"
    mask_classes: tuple[int, ...] = ()
    patient_id: str | None = None
    stratum: str = ""
    official_split: str | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, int] | None = None
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class SourceListing:
    """Everything an adapter found below a dataset's root.

    Attributes:
        records: sorted by ``name``; each is one input that must end up packed or rejected.
        left_out: images a setting leaves out, counted by the setting's words,
            such as ``{"class normal": 133}``.
        ignored_files: files that are neither image nor mask of this layout
            (``Thumbs.db``, licences, tables), by file suffix.
        findings: names of the findings that the dataset labels, in order; empty without any.
        classes: names of what the indices of masks of the kind ``"classes"`` stand for, in order.
        found: counts worth saying, by words, such as ``{"studies without a label row": 3}``;
            the words name no patient, study, file or folder.
        examples: a case of what such words count, by the words. It may name a patient or a
            file, so that nothing de-identified may tell it.
    """

    records: list[SourceRecord]
    left_out: Mapping[str, int] = field(default_factory=dict)
    ignored_files: Mapping[str, int] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    found: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> dict[str, int]:
        """Returns ``found`` with an example in its words where there is one."""
        return {
            f"{words} (such as {self.examples[words]})" if words in self.examples else words: count
            for words, count in self.found.items()
        }


def wrong_layout(root: Path, layout: str, expected: str) -> DatasetError:
    """Returns the error for a root that does not look like ``layout``.

    Args:
        root: the folder that was given; must exist.
        expected: what should be below the root, in words.
    """
    entries = sorted(valid_unicode(path.name) for path in root.iterdir())
    found = ", ".join(f"'{name}'" for name in entries[:8]) or "nothing"
    more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
    links = links_told(link.name for link in walk(root).refused_links)
    return DatasetError(
        f"'{valid_unicode(str(root))}' is not of the layout '{layout}': expected {expected}; "
        f"found {found}{more}. Set the source to the right folder, or choose another layout{links}"
    )


def links_told(names: Iterable[str]) -> str:
    """Returns the end of a message that says which links were not followed; empty without any."""
    links = sorted(names)
    if not links:
        return ""
    first = ", ".join(f"'{name}'" for name in links[:3])
    more = f" and {len(links) - 3} more" if len(links) > 3 else ""
    return (
        f". The link {first}{more} leads to a folder outside of the source and was not followed; "
        "put the folder itself there, or mount it there (mount --bind)"
    )


def check_choices(option: str, values: Iterable[str], allowed: Collection[str]) -> None:
    """Refuses an empty list and any value that is not allowed.

    Raises:
        ConfigurationError: names the first wrong value and the nearest right one.
    """
    values = list(values)
    if not values:
        raise ConfigurationError(f"'{option}' is empty; name at least one of {sorted(allowed)}")
    for value in values:
        if value not in allowed:
            raise ConfigurationError(
                f"'{value}' is not a value of '{option}'{nearest_name(value, allowed)} "
                f"(known: {', '.join(sorted(allowed))})"
            )


def image_record(
    image: FoundFile,
    masks: Sequence[FoundFile] = (),
    problem: tuple[str, str] | None = None,
    **facts: Any,
) -> SourceRecord:
    """Returns the record of an image with its masks.

    Args:
        problem: what the layout found wrong; a problem of one of the files goes before it.
        **facts: the remaining fields of ``SourceRecord``.
    """
    for mask in masks:
        if mask.problem:
            problem = (f"mask_{mask.problem[0]}", f"'{mask.name}': {mask.problem[1]}")
    return SourceRecord(
        name=image.name,
        image=image.path,
        masks=tuple(mask.path for mask in masks),
        problem=image.problem or problem,
        **facts,
    )


def grouped(
    files: Iterable[FoundFile],
    key: Callable[[FoundFile], str],
    first: Callable[[FoundFile], Any] = lambda file: file.name.count("/"),
) -> dict[str, list[FoundFile]]:
    """Returns the files by a key, in each group those first of which ``first`` is the least."""
    groups: dict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        groups[key(file)].append(file)
    return {name: sorted(group, key=first) for name, group in groups.items()}


def unrecognised(file: FoundFile, expected: str) -> SourceRecord:
    """Returns the record of an image whose name or place the layout does not know."""
    detail = f"'{file.name}' fits no pattern of this layout; expected {expected}"
    return image_record(file, problem=("unrecognised_name", detail))


def mask_without_image(mask: FoundFile, expected: str) -> SourceRecord:
    """Returns the record of a mask whose image is not there."""
    detail = f"'{mask.name}' is a mask and its image is not there; expected {expected}"
    return image_record(mask, problem=("mask_without_image", detail))


def missing_mask(expected: str) -> tuple[str, str]:
    """Returns the problem of an image whose mask is not there."""
    return ("missing_mask", f"the image has no mask; expected {expected}")


def missing_image(name: str, path: Path, named_by: str) -> SourceRecord:
    """Returns the record of an image that a table or a list names and that is not there."""
    detail = f"{named_by} names this image and no such file is there"
    return SourceRecord(name, path, problem=("missing_image", detail))


def finish_listing(
    contents: FolderContents,
    records: list[SourceRecord],
    left_out: Mapping[str, int] | None = None,
    used_files: Collection[str] = (),
    ignored_images: Mapping[str, int] | None = None,
) -> SourceListing:
    """Adds what the walk refused and what it ignored, and sorts.

    Args:
        records: one record for each image of the layout.
        left_out: images that a setting leaves out, by the setting's words; zeros are dropped.
        used_files: names of tables and the like that the layout has read.
        ignored_images: files with the suffix of an image that the layout knows not to be
            images or masks, by their kind.

    Raises:
        DatasetError: two records have one name.
    """
    refused = [image_record(link) for link in contents.refused_links]
    ordered = sorted([*records, *refused], key=lambda record: record.name)
    for first, second in itertools.pairwise(ordered):
        if first.name == second.name:
            raise DatasetError(
                f"Two files read '{first.name}' once bytes that are not UTF-8 are written as "
                "text; rename one of them"
            )
    used = frozenset(used_files)
    ignored = Counter(contents.ignored)
    ignored.update(file.suffix or "no suffix" for file in contents.others if file.name not in used)
    ignored.update(ignored_images or {})
    counted = {words: count for words, count in sorted((left_out or {}).items()) if count}
    return SourceListing(ordered, counted, dict(sorted(ignored.items())))
