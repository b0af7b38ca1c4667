"""Two folders whose files pair by name: ``image/1.PNG`` and ``mask/1.PNG`` (DDTI, TN3K)."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.listing import (
    finish_listing,
    image_record,
    mask_without_image,
    missing_mask,
    require_folder,
    unrecognised,
    wrong_layout,
)
from nakt_dist.sources.record import SourceListing, SourceRecord


class FolderPair(NamedTuple):
    """A folder of images, its folder of masks and the split the dataset assigns to them."""

    images: str
    masks: str
    official_split: str | None = None

    @property
    def folders(self) -> tuple[str, str]:
        """Both folders."""
        return (self.images, self.masks)


STYLES = (
    (FolderPair("image", "mask"),),
    (FolderPair("images", "masks"),),
    (
        FolderPair("trainval-image", "trainval-mask", "trainval"),
        FolderPair("test-image", "test-mask", "test"),
    ),
)


def scan(
    root: Path, image_folder: str | None = None, mask_folder: str | None = None
) -> SourceListing:
    """Lists pairs of an image and a mask with the same path below their folders.

    The suffixes may differ (``1.jpg`` with ``1.png``). Without options the folders are
    ``image`` and ``mask``, ``images`` and ``masks``, or those of TN3K, whose part becomes
    the official split (``"trainval"`` or ``"test"``).

    Args:
        root: the folder that contains the folders of images and of masks.
        image_folder: path below ``root`` of the images; goes with ``mask_folder``.
        mask_folder: path below ``root`` of the masks.

    Raises:
        ConfigurationError: one folder is given without the other, or both are the same.
        DatasetError: the folders are not there, or those of two styles are.
    """
    require_folder(root)
    pairs = _folder_pairs(root, image_folder, mask_folder)
    contents = walk(root)
    records = []
    placed: set[str] = set()
    for pair in pairs:
        if not contents.below(pair.images):
            raise wrong_layout(root, "paired_folders", f"images in '{pair.images}/'")
        records += _pair(contents, pair)
        placed.update(file.name for folder in pair.folders for file in contents.below(folder))
    folders = " or ".join(f"'{folder}/'" for pair in pairs for folder in pair.folders)
    records += [
        unrecognised(file, f"a place in {folders}")
        for file in contents.images
        if file.name not in placed
    ]
    return finish_listing(contents, records)


def _folder_pairs(
    root: Path, image_folder: str | None, mask_folder: str | None
) -> tuple[FolderPair, ...]:
    if image_folder is None and mask_folder is None:
        return _detected_style(root)
    if not image_folder or not mask_folder:
        raise ConfigurationError("'image_folder' and 'mask_folder' go together; set both or none")
    image_folder, mask_folder = image_folder.strip("/"), mask_folder.strip("/")
    if image_folder == mask_folder:
        raise ConfigurationError(
            f"'image_folder' and 'mask_folder' are both '{image_folder}'; for images and masks "
            "in one folder use the layout 'image_folder'"
        )
    for folder in (image_folder, mask_folder):
        if not (root / folder).is_dir():
            raise wrong_layout(root, "paired_folders", f"the folder '{folder}'")
    return (FolderPair(image_folder, mask_folder),)


def _detected_style(root: Path) -> tuple[FolderPair, ...]:
    present = [
        tuple(pair for pair in style if all((root / folder).is_dir() for folder in pair.folders))
        for style in STYLES
    ]
    present = [style for style in present if style]
    if not present:
        expected = "'image' and 'mask', 'images' and 'masks', or the folders of TN3K"
        raise wrong_layout(root, "paired_folders", expected)
    if len(present) > 1:
        folders = ", ".join(f"'{pair.images}'" for style in present for pair in style)
        raise DatasetError(
            f"'{root}' holds several sets of images ({folders}); choose one with "
            "'image_folder' and 'mask_folder'"
        )
    return present[0]


def _pair(contents: FolderContents, pair: FolderPair) -> Iterator[SourceRecord]:
    image_folder, mask_folder = pair.folders
    masks: dict[str, list[FoundFile]] = defaultdict(list)
    for mask in contents.below(mask_folder):
        masks[mask.path_below(mask_folder)].append(mask)
    # the folder of masks may lie inside the folder of images
    inside = {mask.name for found in masks.values() for mask in found}
    images = [image for image in contents.below(image_folder) if image.name not in inside]
    for image in images:
        stem = image.path_below(image_folder)
        found = _same_name_first(image, masks.get(stem, []))
        problem = None
        if not found:
            problem = missing_mask(f"'{mask_folder}/{stem}' with the suffix of an image")
        elif len(found) > 1:
            names = ", ".join(f"'{mask.name}'" for mask in found)
            problem = ("ambiguous_mask", f"expected one mask, found {names}; remove all but one")
        yield image_record(
            image, found, problem, mask_kind="binary", official_split=pair.official_split
        )
    for stem in masks.keys() - {image.path_below(image_folder) for image in images}:
        for mask in masks[stem]:
            yield mask_without_image(mask, f"'{image_folder}/{stem}' with the suffix of an image")


def _same_name_first(image: FoundFile, masks: list[FoundFile]) -> list[FoundFile]:
    """Returns the mask with the image's own suffix if there is one, otherwise all."""
    same = [mask for mask in masks if mask.suffix == image.suffix]
    return same if len(same) == 1 else masks
