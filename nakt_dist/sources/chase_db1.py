"""CHASE_DB1, vessels of the retina: ``Image_01L.jpg`` with ``Image_01L_1stHO.png``."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.listing import SourceListing, check_choices, finish_listing, wrong_layout
from nakt_dist.sources.named_pairs import IMAGE, MASK, Key, sort_files
from nakt_dist.sources.registry import Source

OBSERVERS = {"first": "1stHO", "second": "2ndHO"}
_NAME = re.compile(r"Image_(?P<patient>\d+)(?P<eye>[LR])(?:_(?P<observer>1stHO|2ndHO))?", re.I)
_EXPECTED = "'Image_01L.jpg', or 'Image_01L_1stHO.png' beside it"


def scan(root: Path, observer: str = "first") -> SourceListing:
    """Lists CHASE_DB1; both eyes of a child, ``01L`` and ``01R``, are one patient's.

    Args:
        root: the folder of the images, or one above it.
        observer: whose vessels are the target, ``first`` or ``second``; those of the other are
            counted and left alone.

    Raises:
        ConfigurationError: the observer is unknown.
        DatasetError: there is no image.
    """
    check_choices("observer", [observer], OBSERVERS)
    contents = walk(root)
    wanted = OBSERVERS[observer]
    pairs = sort_files(contents, partial(_role, wanted), _EXPECTED)
    if not pairs.images:
        raise wrong_layout(root, "chase_db1", _EXPECTED)
    records = pairs.pair(
        image_of=lambda key: f"'Image_{key[0]}{key[1]}.jpg'",
        mask_of=lambda key: f"'Image_{key[0]}{key[1]}_{wanted}.png'",
        fields_of=lambda key: {"patient_id": key[0]},
    )
    listing = finish_listing(contents, records, ignored_images=pairs.others)
    return replace(listing, found={"patients": len({patient for (patient, _), _ in pairs.images})})


def _role(observer: str, file: FoundFile) -> tuple[str, Key] | None:
    name = _NAME.fullmatch(file.stem)
    if name is None:
        return None
    eye = (name["patient"], name["eye"].upper())
    if name["observer"] is None:
        return IMAGE, eye
    seen_by_it = name["observer"].lower() == observer.lower()
    return (MASK if seen_by_it else "vessels of the other observer"), eye


SOURCE = Source("chase_db1", scan, card="chase_db1")
