"""Two folders whose files pair by name: ``image/1.PNG`` and ``mask/1.PNG`` (DDTI, TN3K)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.sources.files import FoundFile, require_folder, walk
from nakt_dist.sources.folder_names import mask_stem, split_of, splits_by_folder
from nakt_dist.sources.listing import SourceListing, finish_listing, wrong_layout
from nakt_dist.sources.named_pairs import IMAGE, MASK, Key, NamedPairs, sort_files
from nakt_dist.sources.registry import Source


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

    The suffixes may differ (``1.jpg`` with ``1.png``), and the mask's name may end as usual
    (``1_mask.png``). Without options the folders are ``image`` and ``mask``, ``images`` and
    ``masks``, these below folders such as ``train`` and ``test``, or those of TN3K, whose part
    becomes the official split (``"trainval"`` or ``"test"``).

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
    for pair in pairs:
        if not contents.below(pair.images):
            raise wrong_layout(root, "paired_folders", f"images in '{pair.images}/'")
    folders = " or ".join(f"'{folder}/'" for pair in pairs for folder in pair.folders)
    expected = f"a place in {folders}"
    files = sort_files(contents, partial(_role, pairs), expected, one_image_each=False)
    _leave_endings_away(files)
    of_images = {pair.images: pair for pair in pairs}
    records = files.pair(
        image_of=lambda key: f"'{key[0]}/{key[1]}' with the suffix of an image",
        mask_of=lambda key: f"'{of_images[key[0]].masks}/{key[1]}' with the suffix of an image",
        fields_of=lambda key: {"official_split": of_images[key[0]].official_split},
    )
    return _with_splits(finish_listing(contents, records))


def _role(pairs: Sequence[FolderPair], file: FoundFile) -> tuple[str, Key] | None:
    for pair in pairs:
        # the folder of masks may lie inside the folder of images
        for role, folder in ((MASK, pair.masks), (IMAGE, pair.images)):
            if file.name.startswith(f"{folder}/"):
                return role, (pair.images, file.path_below(folder))
    return None


def _leave_endings_away(files: NamedPairs) -> None:
    """Gives a mask such as ``a_mask`` the name of its image where there is no other of its own."""
    images = files.images_by_key
    for key in [key for key in files.masks if key not in images]:
        folder, slash, stem = key[1].rpartition("/")
        named = mask_stem(stem)
        image = (key[0], f"{folder}{slash}{named.base}") if named else key
        if image in images:
            files.masks[image] += files.masks.pop(key)


def _with_splits(listing: SourceListing) -> SourceListing:
    """Returns the listing with the splits that folders tell, where no pair tells one."""
    records = listing.records
    if any(record.official_split for record in records):
        return listing
    images = [record.name for record in records if record.problem is None]
    splits = splits_by_folder(images)
    found = Counter(f"official split {split}" for split in splits.values())
    records = [replace(each, official_split=splits.get(each.name)) for each in records]
    return replace(listing, records=records, found=dict(sorted(found.items())))


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
    present = [style for style in present if style] or _styles_of_splits(root)
    if not present:
        expected = (
            "'image' and 'mask', 'images' and 'masks', these below 'train' and 'test', or the "
            "folders of TN3K"
        )
        raise wrong_layout(root, "paired_folders", expected)
    if len(present) > 1:
        folders = ", ".join(f"'{pair.images}'" for style in present for pair in style)
        raise DatasetError(
            f"'{root}' holds several sets of images ({folders}); choose one with "
            "'image_folder' and 'mask_folder'"
        )
    return present[0]


def _styles_of_splits(root: Path) -> list[tuple[FolderPair, ...]]:
    """Returns the styles whose folders lie below folders of splits, as ``train/images``."""
    parts = sorted(path.name for path in root.iterdir() if path.is_dir() and split_of(path.name))
    styles = [
        tuple(
            FolderPair(f"{part}/{pair.images}", f"{part}/{pair.masks}", split_of(part))
            for part in parts
            if all((root / part / folder).is_dir() for folder in pair.folders)
        )
        for (pair,) in STYLES[:2]
    ]
    return [style for style in styles if style]


SOURCE = Source("paired_folders", scan, path_options=("image_folder", "mask_folder"))
