"""DRIVE, vessels of the retina: ``training/images/21_training.tif`` and its ``1st_manual``."""

import re
from pathlib import Path

from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.listing import SourceListing, finish_listing, wrong_layout
from nakt_dist.sources.named_pairs import IMAGE, MASK, Key, sort_files
from nakt_dist.sources.registry import Source

SPLITS = {"training": "train", "test": "test"}
_PLACE = re.compile(
    r"(?:.*/)?(?P<part>training|test)/(?P<folder>images|1st_manual|2nd_manual|mask)/"
    r"(?P<number>\d+)_[a-z]+(?:\d|_mask)?\.[a-z]+",
    re.IGNORECASE,
)
_ROLES = {
    "images": IMAGE,
    "1st_manual": MASK,
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
    contents = walk(root)
    pairs = sort_files(contents, _role, _EXPECTED)
    if not pairs.images:
        raise wrong_layout(root, "drive", _EXPECTED)
    records = pairs.pair(
        image_of=lambda key: f"'{key[0]}/images/{key[1]}_{key[0]}.tif'",
        mask_of=lambda key: f"'{key[0]}/1st_manual/{key[1]}_manual1.gif'",
        fields_of=lambda key: {"official_split": SPLITS[key[0]]},
    )
    return finish_listing(contents, records, ignored_images=pairs.others)


def _role(file: FoundFile) -> tuple[str, Key] | None:
    place = _PLACE.fullmatch(file.name)
    if place is None:
        return None
    return _ROLES[place["folder"].lower()], (place["part"].lower(), place["number"])


SOURCE = Source("drive", scan, card="drive")
