"""CHASE_DB1, vessels of the retina: ``Image_01L.jpg`` with ``Image_01L_1stHO.png``."""

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.listing import (
    check_choices,
    finish_listing,
    image_record,
    mask_without_image,
    missing_mask,
    require_folder,
    unrecognised,
    wrong_layout,
)
from nakt_dist.sources.record import SourceListing

OBSERVERS = {"first": "1stho", "second": "2ndho"}
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
    require_folder(root)
    contents = walk(root)
    images: dict[tuple[str, str], FoundFile] = {}
    masks: dict[tuple[str, str], list[FoundFile]] = defaultdict(list)
    records, others = [], Counter()
    for file in contents.images:
        name = _NAME.fullmatch(file.stem)
        eye = (name["patient"], name["eye"].upper()) if name else ("", "")
        if name and (name["observer"] or "").lower() == OBSERVERS[observer]:
            masks[eye].append(file)
        elif name and name["observer"]:
            others["vessels of the other observer"] += 1
        elif name and eye not in images:
            images[eye] = file
        else:
            records.append(unrecognised(file, _EXPECTED))
    if not images:
        raise wrong_layout(root, "chase_db1", _EXPECTED)
    for eye, image in images.items():
        found = masks.pop(eye, [])
        problem = None if found else missing_mask(f"'{image.stem}_{OBSERVERS[observer][:3]}HO.png'")
        if len(found) > 1:
            names = ", ".join(f"'{mask.name}'" for mask in found)
            problem = ("ambiguous_mask", f"expected one mask, found {names}; remove all but one")
        records.append(
            image_record(image, found[:1], problem, mask_kind="binary", patient_id=eye[0])
        )
    for (patient, side), alone in masks.items():
        expected = f"'Image_{patient}{side}.jpg'"
        records += [mask_without_image(mask, expected) for mask in alone]
    listing = finish_listing(contents, records, ignored_images=others)
    return replace(listing, found={"patients": len({patient for patient, _ in images})})
