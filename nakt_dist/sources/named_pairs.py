"""Images and masks that the same part of their names pairs, as many layouts have them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nakt_dist.sources.files import FolderContents, FoundFile
from nakt_dist.sources.listing import (
    SourceRecord,
    image_record,
    mask_without_image,
    missing_mask,
    unrecognised,
)

IMAGE, MASK = "image", "mask"
"""What a file may be; any other word counts files that belong to the dataset and are neither."""

Key = tuple[str, ...]


@dataclass
class NamedPairs:
    """The files of a dataset, sorted by what their names say.

    Attributes:
        images: each with its key.
        masks: by the key of their image.
        records: of images whose names say nothing.
        others: files that are neither image nor mask, counted by words.
    """

    images: list[tuple[Key, FoundFile]] = field(default_factory=list)
    masks: dict[Key, list[FoundFile]] = field(default_factory=lambda: defaultdict(list))
    records: list[SourceRecord] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    @property
    def images_by_key(self) -> dict[Key, list[FoundFile]]:
        """The images of each key."""
        alike: dict[Key, list[FoundFile]] = defaultdict(list)
        for key, image in self.images:
            alike[key].append(image)
        return alike

    def leave_out(self, wanted: Callable[[Key], bool]) -> list[Key]:
        """Forgets images and masks that are not wanted, and returns the keys of the images."""
        left_out = [key for key, _ in self.images if not wanted(key)]
        self.images = [(key, image) for key, image in self.images if wanted(key)]
        self.masks = {key: masks for key, masks in self.masks.items() if wanted(key)}
        return left_out

    def pair(
        self,
        image_of: Callable[[Key], str],
        mask_of: Callable[[Key], str | None],
        fields_of: Callable[[Key], Mapping[str, Any]],
        several: bool = False,
    ) -> list[SourceRecord]:
        """Returns a record for each image, for each mask without one, and for what is neither.

        Args:
            image_of: the image that a key expects, in words.
            mask_of: the mask likewise; None where the dataset has none for this image.
            fields_of: what a key says of its image, as fields of ``SourceRecord``.
            several: whether several masks of one image are united; else they are ambiguous, as
                is one mask of several images.
        """
        records, alike = list(self.records), self.images_by_key
        for key, image in self.images:
            expected = mask_of(key)
            if expected is None:
                records.append(image_record(image, **fields_of(key)))
                continue
            masks = self.masks.get(key, [])
            problem = None if masks else missing_mask(expected)
            if len(masks) > 1 and not several:
                problem = _ambiguous_mask(masks)
            elif masks and len(alike[key]) > 1 and not several:
                names = ", ".join(f"'{each.name}'" for each in alike[key])
                detail = f"'{masks[0].name}' is the mask of {names}; remove all images but one"
                problem = ("ambiguous_mask", detail)
            facts = {"mask_kind": "binary", **fields_of(key)}
            records.append(image_record(image, masks, problem, **facts))
        for key in self.masks.keys() - alike.keys():
            records += [mask_without_image(mask, image_of(key)) for mask in self.masks[key]]
        return records


def sort_files(
    contents: FolderContents,
    role_of: Callable[[FoundFile], tuple[str, Key] | None],
    expected: str,
    one_image_each: bool = True,
) -> NamedPairs:
    """Sorts images and masks by their names.

    Args:
        role_of: ``IMAGE``, ``MASK`` or words to count a file by, and the key that an image
            shares with its masks; None for a name that the layout does not know.
        expected: names that it knows, in words.
        one_image_each: take a second image of one key for a name that is not known.
    """
    pairs, seen = NamedPairs(), set()
    for file in contents.images:
        role, key = role_of(file) or (None, ())
        if role == MASK:
            pairs.masks[key].append(file)
        elif role is None or (role == IMAGE and one_image_each and key in seen):
            pairs.records.append(unrecognised(file, expected))
        elif role == IMAGE:
            pairs.images.append((key, file))
            seen.add(key)
        else:
            pairs.others[role] += 1
    return pairs


def _ambiguous_mask(masks: Sequence[FoundFile]) -> tuple[str, str]:
    """Returns the problem of an image that has several masks where one is expected."""
    names = ", ".join(f"'{mask.name}'" for mask in masks)
    return ("ambiguous_mask", f"expected one mask, found {names}; remove all but one")
