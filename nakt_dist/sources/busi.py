"""BUSI, breast ultrasound: ``benign/benign (1).png`` with its ``benign (1)_mask.png``."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
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
from nakt_dist.sources.record import SourceListing, SourceRecord

CLASSES = ("benign", "malignant", "normal")
OUTER_FOLDER = "Dataset_BUSI_with_GT"
_NAME = re.compile(r"(?P<stem>.+?)(?P<mask>_mask(?:_\d+)?)?\.png", re.IGNORECASE)
_EXPECTED = "'CLASS/NAME.png' or 'CLASS/NAME_mask.png', CLASS being benign, malignant or normal"


def scan(root: Path, classes: Sequence[str] = ("benign", "malignant")) -> SourceListing:
    """Lists BUSI; several masks of one image belong to one record.

    Args:
        root: the folder ``Dataset_BUSI_with_GT`` or the one that contains it.
        classes: which of ``benign``, ``malignant`` and ``normal`` to list; the images of
            the others are counted in ``left_out``. Masks of normal images are empty.

    Raises:
        ConfigurationError: a class is unknown.
        DatasetError: the folder of a wanted class is not there.
    """
    check_choices("classes", classes, CLASSES)
    require_folder(root)
    folder = root / OUTER_FOLDER if (root / OUTER_FOLDER).is_dir() else root
    missing = [name for name in classes if not (folder / name).is_dir()]
    if missing:
        raise wrong_layout(folder, "busi", f"the folder '{missing[0]}'")

    contents = walk(folder)
    images: list[tuple[tuple[str, str], FoundFile]] = []
    masks: dict[tuple[str, str], list[FoundFile]] = defaultdict(list)
    records = []
    for file in contents.images:
        match = _NAME.fullmatch(file.file_name)
        if match is None or file.folder not in CLASSES:
            records.append(unrecognised(file, _EXPECTED))
        elif match["mask"]:
            masks[file.folder, match["stem"]].append(file)
        else:
            images.append(((file.folder, match["stem"]), file))

    left_out = Counter(f"class {key[0]}" for key, _ in images if key[0] not in classes)
    records += [_record(file, masks.get(key, [])) for key, file in images if key[0] in classes]
    known = {key for key, _ in images}
    for key in masks.keys() - known:
        expected = f"'{key[0]}/{key[1]}.png'"
        records += [mask_without_image(mask, expected) for mask in masks[key] if key[0] in classes]
    return finish_listing(contents, records, left_out)


def _record(image: FoundFile, masks: list[FoundFile]) -> SourceRecord:
    return image_record(
        image,
        masks,
        problem=None if masks else missing_mask(f"'{image.folder}/{image.stem}_mask.png'"),
        mask_kind="binary",
        stratum=image.folder,
        labels={"class": image.folder},
    )
