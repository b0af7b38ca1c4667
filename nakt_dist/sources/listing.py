"""What every layout shares: the records for what is wrong, and the finished listing."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nakt_dist.errors import ConfigurationError, DatasetError, nearest_name, valid_unicode
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.record import SourceListing, SourceRecord


def wrong_layout(root: Path, layout: str, expected: str) -> DatasetError:
    """Returns the error for a root that does not look like ``layout``.

    Args:
        root: the folder that was given; must exist.
        layout: name of the layout.
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
