"""Writers of the four folder layouts, each exactly as its dataset is published.

A writer takes the drawings in order, stores them under the root and returns how many of
them show a salient target. It makes every folder itself, so that none may be there yet.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from nakt_dist.phantoms.breast import CLASSES, BreastPhantom
from nakt_dist.phantoms.dermoscopy import DIAGNOSES, DermoscopyPhantom
from nakt_dist.phantoms.photographs import PhotographPhantom
from nakt_dist.phantoms.thyroid import ThyroidPhantom

BUSI_FOLDER = "Dataset_BUSI_with_GT"
ISIC_IMAGES = "ISIC_2019_Training_Input"
ISIC_LABELS = "ISIC_2019_Training_GroundTruth.csv"
ISIC_METADATA = "ISIC_2019_Training_Metadata.csv"
VOC_FOLDER = "VOCdevkit"

JPEG_QUALITY = 92


def write_busi(root: Path, drawings: Iterable[BreastPhantom]) -> int:
    """Writes `Dataset_BUSI_with_GT/CLASS/CLASS (N).png` and `CLASS (N)_mask[_K].png`.

    Args:
        root: folder to write into.
        drawings: the phantoms, numbered from 1 within each class.

    Returns:
        How many of them hold a lesion.
    """
    for finding in CLASSES:
        (root / BUSI_FOLDER / finding).mkdir(parents=True)
    numbers: Counter[str] = Counter()
    with_target = 0
    for drawing in drawings:
        numbers[drawing.finding] += 1
        stem = f"{drawing.finding} ({numbers[drawing.finding]})"
        folder = root / BUSI_FOLDER / drawing.finding
        _save_png(Image.fromarray(drawing.grey).convert("RGB"), folder / f"{stem}.png")
        for place, mask in enumerate(drawing.masks):
            suffix = f"_{place}" if place else ""
            _save_png(Image.fromarray(mask), folder / f"{stem}_mask{suffix}.png")
        with_target += any(mask.any() for mask in drawing.masks)
    return with_target


def write_image_mask_folders(root: Path, drawings: Iterable[ThyroidPhantom]) -> int:
    """Writes `image/N.PNG` and `mask/N.PNG`, N from 1, both 8-bit grey.

    Args:
        root: folder to write into.
        drawings: the phantoms.

    Returns:
        How many of them hold a nodule.
    """
    for folder in ("image", "mask"):
        (root / folder).mkdir(parents=True)
    with_target = 0
    for number, drawing in enumerate(drawings, start=1):
        _save_png(Image.fromarray(drawing.grey), root / "image" / f"{number}.PNG")
        mask = drawing.mask.astype(np.uint8) * np.uint8(255)
        _save_png(Image.fromarray(mask), root / "mask" / f"{number}.PNG")
        with_target += bool(drawing.mask.any())
    return with_target


def write_isic2019(root: Path, drawings: Iterable[DermoscopyPhantom]) -> int:
    """Writes `ISIC_2019_Training_Input/ISIC_NNNNNNN.jpg` and the two tables.

    Args:
        root: folder to write into.
        drawings: the phantoms, numbered from 0.

    Returns:
        How many of them show a lesion that is neither tiny nor faint.
    """
    (root / ISIC_IMAGES).mkdir(parents=True)
    labels = [["image", *DIAGNOSES, "UNK"]]
    metadata = [["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]]
    with_target = 0
    for number, drawing in enumerate(drawings):
        name, lesion = f"ISIC_{number:07d}", drawing.lesion
        _save_jpeg(drawing.colour, root / ISIC_IMAGES / f"{name}.jpg")
        one_hot = [float(lesion.diagnosis == diagnosis) for diagnosis in (*DIAGNOSES, "UNK")]
        labels.append([name, *one_hot])
        age = None if lesion.age is None else float(lesion.age)
        metadata.append([name, age, lesion.site, f"PHA_{lesion.number:07d}", lesion.sex])
        with_target += lesion.salient
    _save_table(labels, root / ISIC_LABELS)
    _save_table(metadata, root / ISIC_METADATA)
    return with_target


def write_voc2012(root: Path, drawings: Iterable[PhotographPhantom]) -> int:
    """Writes `VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets}`.

    Every other image is segmented, and images go to train and val in turn, so that even
    a handful fills every list.

    Args:
        root: folder to write into.
        drawings: the phantoms, numbered from 1.

    Returns:
        How many of them show a dark blob, segmented or not.
    """
    year = root / VOC_FOLDER / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass"):
        (year / folder).mkdir(parents=True)
    listed: dict[str, dict[str, list[str]]] = {"Main": {}, "Segmentation": {}}
    for task in listed:
        listed[task] = {"train": [], "val": [], "trainval": []}
    with_target = 0
    for index, drawing in enumerate(drawings):
        name = f"2012_{index + 1:06d}"
        _save_jpeg(drawing.colour, year / "JPEGImages" / f"{name}.jpg")
        tasks = ["Main"]
        if index % 2 == 0:
            tasks.append("Segmentation")
            _save_class_map(drawing.classes, year / "SegmentationClass" / f"{name}.png")
        for task in tasks:
            listed[task]["trainval"].append(name)
            listed[task]["train" if index // 2 % 2 == 0 else "val"].append(name)
        with_target += drawing.has_dark_blob
    for task, splits in listed.items():
        _save_lists(splits, year / "ImageSets" / task)
    return with_target


def voc_palette() -> list[int]:
    """Returns the 256 colours of VOC class maps as 768 values 0 to 255, red first.

    The bits of the index, lowest first, go to red, green and blue in turn and fill each
    from its highest bit down.
    """
    index = np.arange(256)[:, None]
    channels = np.zeros((256, 3), dtype=int)
    for bit in range(8):
        channels |= ((index >> 3 * bit) >> np.arange(3) & 1) << (7 - bit)
    return channels.ravel().tolist()


def _save_png(image: Image.Image, path: Path) -> None:
    image.save(path, format="PNG", compress_level=1)


def _save_jpeg(colour: np.ndarray, path: Path) -> None:
    Image.fromarray(colour).save(path, format="JPEG", quality=JPEG_QUALITY)


def _save_class_map(classes: np.ndarray, path: Path) -> None:
    image = Image.fromarray(classes)
    image.putpalette(voc_palette())
    _save_png(image, path)


def _save_table(rows: list[list], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows(rows)


def _save_lists(splits: dict[str, list[str]], folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, names in splits.items():
        text = "".join(f"{name}\n" for name in names)
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
