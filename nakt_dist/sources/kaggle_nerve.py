"""Kaggle's Ultrasound Nerve Segmentation: ``train/S_I.tif`` with ``train/S_I_mask.tif``."""

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
    require_folder(root)
    contents = walk(root)
    images: dict[str, list[FoundFile]] = {part: [] for part in PARTS}
    masks: dict[tuple[str, str], list[FoundFile]] = defaultdict(list)
    records = []
    for file in contents.images:
        part = file.folder or "train"
        match = _NAMES[part].fullmatch(file.file_name) if part in PARTS else None
        if match is None:
            records.append(unrecognised(file, _EXPECTED))
        elif match["mask"]:
            masks[file.folder, match["stem"]].append(file)
        else:
            images[part].append(file)
    for part in parts:
        if not images[part]:
            place = "'train/' or directly" if part == "train" else "'test/'"
            raise wrong_layout(root, "kaggle_nerve", f"'.tif' images in {place}")

    left_out = Counter(
        {f"official split {part}": len(images[part]) for part in PARTS if part not in parts}
    )
    if "train" in parts:
        records += [_training_record(image, masks) for image in images["train"]]
        known = {(image.folder, image.stem) for image in images["train"]}
        for key in masks.keys() - known:
            records += [
                mask_without_image(mask, f"'{key[1]}.tif' beside it") for mask in masks[key]
            ]
    if "test" in parts:
        records += [image_record(image, official_split="test") for image in images["test"]]
    return finish_listing(contents, records, left_out)


def _training_record(
    image: FoundFile, masks: dict[tuple[str, str], list[FoundFile]]
) -> SourceRecord:
    found = masks.get((image.folder, image.stem), [])
    return image_record(
        image,
        found,
        problem=None if found else missing_mask(f"'{image.stem}_mask.tif' beside it"),
        mask_kind="binary",
        patient_id=image.stem.partition("_")[0],
        official_split="train",
    )
