"""DRIVE, vessels of the retina: ``training/images/21_training.tif`` and its ``1st_manual``."""

import re
from collections import Counter, defaultdict
from pathlib import Path

from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.listing import (
    finish_listing,
    image_record,
    mask_without_image,
    missing_mask,
    require_folder,
    unrecognised,
    wrong_layout,
)
from nakt_dist.sources.record import SourceListing

SPLITS = {"training": "train", "test": "test"}
_PLACE = re.compile(
    r"(?:.*/)?(?P<part>training|test)/(?P<folder>images|1st_manual|2nd_manual|mask)/"
    r"(?P<number>\d+)_[a-z]+(?:\d|_mask)?\.[a-z]+",
    re.IGNORECASE,
)
_OTHERS = {
    "2nd_manual": "vessels of the second observer",
    "mask": "masks of the field of view, which is not the target",
}
_EXPECTED = (
    "'training/images/NUMBER_training.tif', 'training/1st_manual/NUMBER_manual1.gif', or test"
)


def scan(root: Path) -> SourceListing:
    """Lists DRIVE; the target is the vessels of the first observer, in ``1st_manual``.

    The folder ``mask`` holds the field of view and ``2nd_manual`` another observer's vessels; both
    are counted and left alone. Who the patients are is not published.

    Args:
        root: the folder that contains ``training`` and ``test``, or one above it.

    Raises:
        DatasetError: there is no image.
    """
    require_folder(root)
    contents = walk(root)
    images: dict[tuple[str, str], FoundFile] = {}
    masks: dict[tuple[str, str], list[FoundFile]] = defaultdict(list)
    records, others = [], Counter()
    for file in contents.images:
        place = _PLACE.fullmatch(file.name)
        folder = place["folder"].lower() if place else None
        key = (place["part"].lower(), place["number"]) if place else ("", "")
        if folder in _OTHERS:
            others[_OTHERS[folder]] += 1
        elif folder == "1st_manual":
            masks[key].append(file)
        elif folder == "images" and key not in images:
            images[key] = file
        else:
            records.append(unrecognised(file, _EXPECTED))
    if not images:
        raise wrong_layout(root, "drive", _EXPECTED)
    for (part, number), image in images.items():
        found = masks.pop((part, number), [])
        records.append(
            image_record(
                image,
                found[:1],
                _problem(part, number, found),
                mask_kind="binary",
                official_split=SPLITS[part],
            )
        )
    for (part, number), alone in masks.items():
        expected = f"'{part}/images/{number}_{part}.tif'"
        records += [mask_without_image(mask, expected) for mask in alone]
    return finish_listing(contents, records, ignored_images=others)


def _problem(part: str, number: str, masks: list[FoundFile]) -> tuple[str, str] | None:
    if not masks:
        return missing_mask(f"'{part}/1st_manual/{number}_manual1.gif'")
    if len(masks) > 1:
        names = ", ".join(f"'{mask.name}'" for mask in masks)
        return ("ambiguous_mask", f"expected one mask, found {names}; remove all but one")
    return None
