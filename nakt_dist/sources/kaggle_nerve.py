"""Kaggle's Ultrasound Nerve Segmentation: ``train/S_I.tif`` with ``train/S_I_mask.tif``."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.listing import SourceListing, check_choices, finish_listing, wrong_layout
from nakt_dist.sources.named_pairs import IMAGE, MASK, Key, sort_files
from nakt_dist.sources.registry import Source

PARTS = ("train", "test")
_NAMES = {
    "train": re.compile(r"(?P<stem>\d+_\d+)(?P<mask>_mask)?\.tif", re.IGNORECASE),
    "test": re.compile(r"(?P<stem>\d+(?:_\d+)?)(?P<mask>)\.tif", re.IGNORECASE),
}
_EXPECTED = "'train/SUBJECT_NUMBER.tif', 'train/SUBJECT_NUMBER_mask.tif' or 'test/NUMBER.tif'"


def scan(root: Path, parts: Sequence[str] = ("train",)) -> SourceListing:
    """Lists the nerve images; the subject in the name is the patient.

    Images of the test part have no masks and name no subject; the organisers state that
    its subjects are not those of the training part.

    Args:
        root: the folder with ``train`` and ``test``, or the folder of the training images.
        parts: ``train``, ``test`` or both; the images of the other part are counted in
            ``left_out``.

    Raises:
        ConfigurationError: a part is unknown.
        DatasetError: no image of a wanted part is there.
    """
    check_choices("parts", parts, PARTS)
    contents = walk(root)
    pairs = sort_files(contents, _role, _EXPECTED, one_image_each=False)
    there = {part for (part, *_), _ in pairs.images}
    for part in parts:
        if part not in there:
            place = "'train/' or directly" if part == "train" else "'test/'"
            raise wrong_layout(root, "kaggle_nerve", f"'.tif' images in {place}")
    left_out = pairs.leave_out(lambda key: key[0] in parts)
    records = pairs.pair(
        image_of=lambda key: f"'{key[2]}.tif' beside it",
        mask_of=lambda key: f"'{key[2]}_mask.tif' beside it" if key[0] == "train" else None,
        fields_of=_fields,
        several=True,
    )
    return finish_listing(contents, records, Counter(f"official split {p}" for p, *_ in left_out))


def _role(file: FoundFile) -> tuple[str, Key] | None:
    part = file.folder or "train"
    name = _NAMES[part].fullmatch(file.file_name) if part in PARTS else None
    if name is None:
        return None
    return (MASK if name["mask"] else IMAGE), (part, file.folder, name["stem"])


def _fields(key: Key) -> dict[str, Any]:
    part, _, stem = key
    if part == "test":
        return {"official_split": "test"}
    return {"patient_id": stem.partition("_")[0], "official_split": "train"}


SOURCE = Source("kaggle_nerve", scan, card="kaggle_nerve")
