"""PASCAL VOC2012: ``JPEGImages``, ``SegmentationClass`` (palette, 255 is void), ``ImageSets``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.sources.files import FolderContents, FoundFile, require_folder, walk
from nakt_dist.sources.listing import (
    finish_listing,
    image_record,
    mask_without_image,
    missing_image,
    missing_mask,
    unrecognised,
    wrong_layout,
)
from nakt_dist.sources.record import SourceListing, SourceRecord
from nakt_dist.sources.registry import Source

IMAGE_FOLDER = "JPEGImages"
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
OTHER_FOLDERS = ("SegmentationObject", *MASK_FOLDERS)
SPLITS = ("train", "val")
CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


def scan(
    root: Path,
    classes: Sequence[str | int] | None = None,
    only_segmented: bool = False,
    mask_folder: str | None = None,
) -> SourceListing:
    """Lists VOC2012; the official split is that of ``ImageSets/Segmentation``.

    Args:
        root: the folder ``VOC2012``, ``VOCdevkit`` or the one that contains it.
        classes: names or indices (0 to 20) of classes; the mask is then binary and their
            union is the target. Without it the mask holds the indices of all classes.
        only_segmented: leave out the images without a mask; they are counted.
        mask_folder: folder of the masks; without it ``SegmentationClass`` or, where that
            is not there, ``SegmentationClassAug``.

    Raises:
        ConfigurationError: a class is unknown.
        DatasetError: the folder of the images, or a named folder of masks, is not there.
    """
    indices = class_indices(classes) if classes is not None else ()
    require_folder(root)
    folder = _find_folder(root)
    if mask_folder and not (folder / mask_folder).is_dir():
        raise wrong_layout(folder, "voc2012", f"the folder '{mask_folder}'")
    if not mask_folder:
        present = [name for name in MASK_FOLDERS if (folder / name).is_dir()]
        mask_folder = (present or MASK_FOLDERS)[0]
    contents = walk(folder)
    splits = _read_splits(folder, contents)
    images, masks, records, ignored = _sort_files(contents, mask_folder)
    if not images:
        raise wrong_layout(folder, "voc2012", f"'.jpg' images in '{IMAGE_FOLDER}'")

    kind = "binary" if classes is not None else "classes"
    not_segmented = 0
    for image in images:
        mask, split = masks.get(image.stem), splits.get(image.stem)
        if mask:
            records.append(
                image_record(
                    image, [mask], mask_kind=kind, mask_classes=indices, official_split=split
                )
            )
        elif split:
            problem = missing_mask(f"'{mask_folder}/{image.stem}.png', as it is in '{split}.txt'")
            records.append(image_record(image, problem=problem, official_split=split))
        elif only_segmented:
            not_segmented += 1
        else:
            records.append(image_record(image))

    stems = {image.stem for image in images}
    for stem in masks.keys() - stems:
        records.append(mask_without_image(masks[stem], f"'{IMAGE_FOLDER}/{stem}.jpg'"))
    for stem in splits.keys() - stems:
        name = f"{IMAGE_FOLDER}/{stem}.jpg"
        records.append(missing_image(name, folder / name, f"'{splits[stem]}.txt'"))
    used = [_split_file(split) for split in SPLITS]
    left_out = {"images without a mask": not_segmented}
    return finish_listing(contents, records, left_out, used, ignored)


def class_indices(classes: Sequence[str | int]) -> tuple[int, ...]:
    """Returns the sorted indices of classes given by name or index.

    Raises:
        ConfigurationError: the list is empty, or a class is unknown.
    """
    if not classes:
        raise ConfigurationError("'classes' is empty; name at least one class or leave it out")
    indices = set()
    for given in classes:
        if given in CLASS_NAMES:
            indices.add(CLASS_NAMES.index(str(given)))
        elif isinstance(given, int) and 0 <= given < len(CLASS_NAMES):
            indices.add(given)
        else:
            raise ConfigurationError(
                f"'{given}' is not a class of VOC2012{nearest_name(str(given), CLASS_NAMES)} "
                f"(known: {', '.join(CLASS_NAMES)}, or 0 to {len(CLASS_NAMES) - 1})"
            )
    return tuple(sorted(indices))


def _find_folder(root: Path) -> Path:
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / IMAGE_FOLDER).is_dir():
            return folder
    raise wrong_layout(root, "voc2012", f"the folder 'VOCdevkit/VOC2012/{IMAGE_FOLDER}'")


def _split_file(split: str) -> str:
    return f"ImageSets/Segmentation/{split}.txt"


def _read_splits(folder: Path, contents: FolderContents) -> dict[str, str]:
    """Returns the split of each image that the lists name."""
    listed = {file.name for file in contents.others}
    splits: dict[str, str] = {}
    for split in SPLITS:
        if _split_file(split) in listed:
            text = (folder / _split_file(split)).read_text(encoding="utf-8", errors="replace")
            splits |= dict.fromkeys(text.split(), split)
    return splits


def _sort_files(
    contents: FolderContents, mask_folder: str
) -> tuple[list[FoundFile], dict[str, FoundFile], list[SourceRecord], Counter[str]]:
    """Returns the images, the masks by stem, records of what is neither, and known other files."""
    images: list[FoundFile] = []
    masks: dict[str, FoundFile] = {}
    records: list[SourceRecord] = []
    ignored: Counter[str] = Counter()
    for file in contents.images:
        if file.folder == IMAGE_FOLDER and file.suffix in (".jpg", ".jpeg"):
            images.append(file)
        elif file.folder == mask_folder and file.name.endswith(".png"):
            masks[file.stem] = file
        elif file.folder in OTHER_FOLDERS and file.folder != mask_folder:
            ignored[f"{file.folder}/*{file.suffix}"] += 1
        else:
            expected = f"'{IMAGE_FOLDER}/NAME.jpg' or '{mask_folder}/NAME.png'"
            records.append(unrecognised(file, expected))
    return images, masks, records, ignored


SOURCE = Source("voc2012", scan, card="voc2012", path_options=("mask_folder",))
