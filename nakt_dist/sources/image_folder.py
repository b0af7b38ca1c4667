"""Any folder of images, with or without masks: the layout for in-house sets."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from nakt_dist.errors import ConfigurationError
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.folder_names import splits_by_folder
from nakt_dist.sources.listing import (
    SourceListing,
    finish_listing,
    image_record,
    mask_without_image,
    missing_mask,
    wrong_layout,
)
from nakt_dist.sources.mask_search import find_masks, told_of_masks
from nakt_dist.sources.registry import Source


def scan(
    root: Path,
    mask_suffix: str | None = None,
    mask_folder: str | None = None,
    patient_regex: str | None = None,
    class_from_folder: bool = False,
    require_masks: bool | None = None,
) -> SourceListing:
    """Lists the images at any depth and finds their masks by name.

    A mask of ``a/b/NAME.png`` is ``a/b/NAME_mask.png`` or ``a/b/NAME_mask_1.png`` beside it, or
    lies in a folder of masks at the same place, with or without the mask suffix:
    ``images/NAME.jpg`` pairs with ``masks/NAME.png``, ``train/images/NAME.jpg`` with
    ``train/masks/NAME.png`` (see ``nakt_dist.sources.mask_pairs.pair_masks``). Suffixes of the
    files may differ. Several numbered masks of one image are united. What is guessed is said in
    ``found``. Folders such as ``train`` and ``test`` give the official split.

    Args:
        root: the folder.
        mask_suffix: what the stem of a mask ends with, a number may follow; ``""`` for none.
            Without it usual endings count, such as ``_mask``, ``-Segmentation`` and ``_gt``, where
            an image beside the mask has the rest of its name.
        mask_folder: path below ``root`` of the masks, or the name of folders of masks at any
            depth; ``""`` for none. Without it folders that call themselves so, such as ``masks``,
            ``labels`` and ``GroundTruth``.
        patient_regex: regular expression with the group ``patient``, searched in the path
            below ``root``. An image that it does not match has the problem
            ``patient_unknown``; a group that takes no part in a match names no patient.
        class_from_folder: the folder an image lies in is its class.
        require_masks: whether an image without a mask has the problem ``missing_mask``;
            without it, when any image has a mask.

    Raises:
        ConfigurationError: the regular expression is not valid or lacks its group, an image has
            masks of several kinds, or masks are plainly there and the settings find none.
        DatasetError: there is no image, or no folder of masks of that name.
    """
    pattern = _compile(patient_regex)
    contents = walk(root)
    folders = _mask_folders(root, contents, mask_folder)
    pairing = find_masks(contents.images, mask_suffix, folders, class_from_folder)
    if not pairing.images:
        raise wrong_layout(root, "image_folder", "images that are not masks")
    if require_masks is None:
        require_masks = bool(pairing.masks)
    splits = splits_by_folder(image.name for image in pairing.images)
    records = []
    for image in pairing.images:
        masks = [claim.file for claim in pairing.masks.get(image.name, [])]
        facts, problem = _facts(image, pattern, class_from_folder)
        if require_masks and not masks:
            problem = missing_mask("one by the settings 'mask_suffix' and 'mask_folder'")
        records.append(
            image_record(
                image,
                masks,
                pairing.problems.get(image.name, problem),
                mask_kind="binary" if masks or require_masks else "none",
                official_split=splits.get(image.name),
                **facts,
            )
        )
    for claim in pairing.alone:
        expected = f"an image '{claim.stems[-1]}' with the suffix of an image"
        records.append(mask_without_image(claim.file, expected))
    found, examples = told_of_masks(
        pairing, mask_suffix is None and folders is None, class_from_folder
    )
    found.update(f"official split {split}" for split in splits.values())
    return replace(
        finish_listing(contents, records), found=dict(sorted(found.items())), examples=examples
    )


def _compile(patient_regex: str | None) -> re.Pattern[str] | None:
    if patient_regex is None:
        return None
    try:
        pattern = re.compile(patient_regex)
    except re.error as error:
        raise ConfigurationError(
            f"'patient_regex' is '{patient_regex}', which is not a regular expression ({error})"
        ) from error
    if "patient" not in pattern.groupindex:
        raise ConfigurationError(
            f"'patient_regex' is '{patient_regex}'; expected a group (?P<patient>...) in it"
        )
    return pattern


def _mask_folders(
    root: Path, contents: FolderContents, mask_folder: str | None
) -> list[str] | None:
    """Returns the paths of the folders of masks that a setting names; None where it does not."""
    if mask_folder is None:
        return None
    mask_folder = mask_folder.strip("/")
    if not mask_folder or (root / mask_folder).is_dir():
        return [mask_folder] if mask_folder else []
    paths = {path for file in contents.images for path in _folders_above(file)}
    found = sorted(path for path in paths if path.rpartition("/")[2] == mask_folder)
    if not found:
        raise wrong_layout(root, "image_folder", f"the folder of masks '{mask_folder}'")
    return found


def _folders_above(file: FoundFile) -> list[str]:
    parts = file.folder.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _facts(
    image: FoundFile, pattern: re.Pattern[str] | None, class_from_folder: bool
) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """Returns the patient and the class as fields of a record, and what is wrong with them."""
    facts: dict[str, Any] = {}
    problem = None
    if pattern:
        match = pattern.search(image.name)
        facts["patient_id"] = match["patient"] if match else None
        if match is None:
            problem = ("patient_unknown", f"'patient_regex' does not match '{image.name}'")
    if class_from_folder:
        name = image.folder.rpartition("/")[2]
        facts |= {"stratum": name, "labels": {"class": name}}
        if not name:
            problem = ("no_class_folder", "the image lies in no folder that could be its class")
    return facts, problem


SOURCE = Source("image_folder", scan, card="image_folder", path_options=("mask_folder",))
