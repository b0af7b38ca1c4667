"""BUSI, breast ultrasound: ``benign/benign (1).png`` with its ``benign (1)_mask.png``."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nakt_dist.sources.files import FoundFile, require_folder, walk
from nakt_dist.sources.listing import SourceListing, check_choices, finish_listing, wrong_layout
from nakt_dist.sources.named_pairs import IMAGE, MASK, Key, sort_files
from nakt_dist.sources.registry import Source

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
    pairs = sort_files(contents, _role, _EXPECTED, one_image_each=False)
    left_out = Counter(f"class {name}" for name, _ in pairs.leave_out(lambda k: k[0] in classes))
    records = pairs.pair(
        image_of=lambda key: f"'{key[0]}/{key[1]}.png'",
        mask_of=lambda key: f"'{key[0]}/{key[1]}_mask.png'",
        fields_of=lambda key: {"stratum": key[0], "labels": {"class": key[0]}},
        several=True,
    )
    return finish_listing(contents, records, left_out)


def _role(file: FoundFile) -> tuple[str, Key] | None:
    name = _NAME.fullmatch(file.file_name)
    if name is None or file.folder not in CLASSES:
        return None
    return (MASK if name["mask"] else IMAGE), (file.folder, name["stem"])


SOURCE = Source("busi", scan, card="busi")
