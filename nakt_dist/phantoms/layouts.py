"""Writers of the four folder layouts, each exactly as its dataset is published.

A writer takes the drawings in order, stores them under the root and returns how many of
them show a salient target. It makes every folder itself, so that none may be there yet.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

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
_JPEG_QUALITY = 92

Row = Sequence[Any]
"""The cells of a table's row; None is an empty one."""


def write_busi(root: Path, drawings: Iterable[BreastPhantom]) -> int:
    """Writes `Dataset_BUSI_with_GT/CLASS/CLASS (N).png` and `CLASS (N)_mask[_K].png`, N from 1."""
    for finding in CLASSES:
        (root / BUSI_FOLDER / finding).mkdir(parents=True)
    numbers: Counter[str] = Counter()
    with_target = 0
    for drawing in drawings:
        numbers[drawing.finding] += 1
        stem = f"{drawing.finding} ({numbers[drawing.finding]})"
        folder = root / BUSI_FOLDER / drawing.finding
        save_png(Image.fromarray(drawing.grey).convert("RGB"), folder / f"{stem}.png")
        for place, mask in enumerate(drawing.masks):
            suffix = f"_{place}" if place else ""
            save_png(mask, folder / f"{stem}_mask{suffix}.png")
        with_target += any(mask.any() for mask in drawing.masks)
    return with_target


def write_image_mask_folders(root: Path, drawings: Iterable[ThyroidPhantom]) -> int:
    """Writes `image/N.PNG` and `mask/N.PNG`, N from 1, both 8-bit grey."""
    for folder in ("image", "mask"):
        (root / folder).mkdir(parents=True)
    with_target = 0
    for number, drawing in enumerate(drawings, start=1):
        save_png(drawing.grey, root / "image" / f"{number}.PNG")
        save_png(drawing.mask.astype(np.uint8) * np.uint8(255), root / "mask" / f"{number}.PNG")
        with_target += bool(drawing.mask.any())
    return with_target


def write_isic2019(root: Path, drawings: Iterable[DermoscopyPhantom]) -> int:
    """Writes `ISIC_2019_Training_Input/ISIC_NNNNNNN.jpg`, N from 0, and the two tables."""
    (root / ISIC_IMAGES).mkdir(parents=True)
    labels: list[Row] = [["image", *DIAGNOSES, "UNK"]]
    metadata: list[Row] = [["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]]
    with_target = 0
    for number, drawing in enumerate(drawings):
        name, lesion = f"ISIC_{number:07d}", drawing.lesion
        save_jpeg(drawing.colour, root / ISIC_IMAGES / f"{name}.jpg")
        one_hot = [float(lesion.diagnosis == diagnosis) for diagnosis in (*DIAGNOSES, "UNK")]
        labels.append([name, *one_hot])
        age = None if lesion.age is None else float(lesion.age)
        metadata.append([name, age, lesion.site, f"PHA_{lesion.number:07d}", lesion.sex])
        with_target += lesion.salient
    for table, file_name in ((labels, ISIC_LABELS), (metadata, ISIC_METADATA)):
        (root / file_name).write_text(as_csv(table), encoding="utf-8")
    return with_target


def write_voc2012(root: Path, drawings: Iterable[PhotographPhantom]) -> int:
    """Writes `VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets}`.

    Every other image is segmented, and images go to train and val in turn, so that even
    a handful fills every list.
    """
    year = root / VOC_FOLDER / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (year / folder).mkdir(parents=True)
    listed: dict[str, list[str]] = {
        f"{task}/{split}.txt": []
        for task in ("Main", "Segmentation")
        for split in ("train", "val", "trainval")
    }
    with_target = 0
    for index, drawing in enumerate(drawings):
        name = f"2012_{index + 1:06d}"
        save_jpeg(drawing.colour, year / "JPEGImages" / f"{name}.jpg")
        if index % 2 == 0:
            classes = Image.fromarray(drawing.classes)
            classes.putpalette(voc_palette())
            save_png(classes, year / "SegmentationClass" / f"{name}.png")
        for task in ("Main", "Segmentation")[: 2 - index % 2]:
            listed[f"{task}/trainval.txt"].append(name)
            listed[f"{task}/{'train' if index // 2 % 2 == 0 else 'val'}.txt"].append(name)
        with_target += drawing.has_dark_blob
    for path, names in listed.items():
        (year / "ImageSets" / path).write_text(as_lines(names), encoding="utf-8")
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


def save_png(image: Image.Image | np.ndarray, path: Path) -> None:
    """Writes an image, or an array that Pillow takes for one."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, format="PNG", compress_level=1)


def save_jpeg(pixels: np.ndarray, path: Path) -> None:
    """Writes uint8 (height, width) or (height, width, 3), and makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="JPEG", quality=_JPEG_QUALITY)


def as_csv(rows: Iterable[Row]) -> str:
    """Returns a table as text; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_lines(names: Iterable[str]) -> str:
    """Returns a list of names as text, one a line."""
    return "".join(f"{name}\n" for name in names)
