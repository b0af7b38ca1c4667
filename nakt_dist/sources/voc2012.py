"""PASCAL VOC2012: ``JPEGImages``, ``SegmentationClass`` (palette, 255 is void), ``ImageSets``."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.sources.files import FolderContents, FoundFile, require_folder, walk
from nakt_dist.sources.listing import SourceListing, finish_listing, missing_image, wrong_layout
from nakt_dist.sources.named_pairs import IMAGE, MASK, Key, sort_files
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
    splits, in_both = _read_splits(folder, contents)
    pairs = sort_files(
        contents,
        partial(_role, mask_folder),
        f"'{IMAGE_FOLDER}/NAME.jpg' or '{mask_folder}/NAME.png'",
        one_image_each=False,
    )
    if not pairs.images:
        raise wrong_layout(folder, "voc2012", f"'.jpg' images in '{IMAGE_FOLDER}'")

    def mask_of(key: Key) -> str | None:
        if key not in pairs.masks and key[0] not in splits:
            return None
        return f"'{mask_folder}/{key[0]}.png', as it is in '{splits.get(key[0])}.txt'"

    stems = {stem for (stem,), _ in pairs.images}
    left_out = pairs.leave_out(lambda key: bool(mask_of(key))) if only_segmented else []
    kind = "binary" if classes is not None else "classes"
    records = pairs.pair(
        image_of=lambda key: f"'{IMAGE_FOLDER}/{key[0]}.jpg'",
        mask_of=mask_of,
        fields_of=lambda key: {
            "mask_kind": kind if key in pairs.masks else "none",
            "mask_classes": indices if key in pairs.masks else (),
            "official_split": splits.get(key[0]),
        },
        several=True,
    )
    both = " and ".join(map(_split_file, SPLITS))
    records = [
        replace(each, problem=("conflicting_split", f"{both} both name this image"))
        if each.image.stem in in_both and not each.problem
        else each
        for each in records
    ]
    for stem in splits.keys() - stems:
        name = f"{IMAGE_FOLDER}/{stem}.jpg"
        records.append(missing_image(name, folder / name, f"'{splits[stem]}.txt'"))
    used = [_split_file(split) for split in SPLITS]
    left = {"images without a mask": len(left_out)}
    listing = finish_listing(contents, records, left, used, pairs.others)
    return replace(listing, classes=CLASS_NAMES)


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


def _read_splits(folder: Path, contents: FolderContents) -> tuple[dict[str, str], set[str]]:
    """Returns the split of each image that the lists name, and the images that both name."""
    listed = {file.name for file in contents.others}
    splits: dict[str, str] = {}
    in_both: set[str] = set()
    for split in SPLITS:
        if _split_file(split) in listed:
            text = (folder / _split_file(split)).read_text(encoding="utf-8", errors="replace")
            in_both.update(splits.keys() & set(text.split()))
            splits |= dict.fromkeys(text.split(), split)
    return splits, in_both


def _role(mask_folder: str, file: FoundFile) -> tuple[str, Key] | None:
    if file.folder == IMAGE_FOLDER and file.suffix in (".jpg", ".jpeg"):
        return IMAGE, (file.stem,)
    if file.folder == mask_folder and file.suffix == ".png":
        return MASK, (file.stem,)
    if file.folder in OTHER_FOLDERS and file.folder != mask_folder:
        return f"{file.folder}/*{file.suffix}", ()
    return None


SOURCE = Source("voc2012", scan, card="voc2012", path_options=("mask_folder",))
