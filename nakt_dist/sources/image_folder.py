"""Any folder of images, with or without masks: the layout for in-house sets."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nakt_dist.errors import ConfigurationError
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.listing import (
    finish_listing,
    image_record,
    mask_without_image,
    missing_mask,
    require_folder,
    wrong_layout,
)
from nakt_dist.sources.record import SourceListing

USUAL_MASK_FOLDERS = ("mask", "masks")


def scan(
    root: Path,
    mask_suffix: str = "_mask",
    mask_folder: str | None = None,
    patient_regex: str | None = None,
    class_from_folder: bool = False,
    require_masks: bool | None = None,
) -> SourceListing:
    """Lists the images at any depth and finds their masks by name.

    A mask of ``a/b/NAME.png`` is ``a/b/NAME_mask.png`` or ``a/b/NAME_mask_1.png`` beside
    it, or, below the folder of masks, ``a/b/NAME.png`` or ``b/NAME.png`` (so that
    ``images/NAME.jpg`` pairs with ``masks/NAME.png``), with or without the mask suffix.
    Suffixes of the files may differ. Several masks of one image are united.

    Args:
        root: the folder.
        mask_suffix: what the stem of a mask ends with, a number may follow; ``""`` for none.
        mask_folder: path below ``root`` of the masks; without it a folder ``mask`` or
            ``masks`` directly in ``root`` if there is one; ``""`` for none.
        patient_regex: regular expression with the group ``patient``, searched in the path
            below ``root``. An image that it does not match has the problem
            ``patient_unknown``; a group that takes no part in a match names no patient.
        class_from_folder: the folder an image lies in is its class.
        require_masks: whether an image without a mask has the problem ``missing_mask``;
            without it, when any image has a mask.

    Raises:
        ConfigurationError: the regular expression is not valid or lacks its group.
        DatasetError: there is no image, or no folder of masks of that name.
    """
    pattern = _compile(patient_regex)
    require_folder(root)
    contents = walk(root)
    mask_folder = _find_mask_folder(root, mask_folder)
    masks, images = _split_masks(contents, mask_suffix, mask_folder)
    if not images:
        raise wrong_layout(root, "image_folder", "images that are not masks")

    keys = {image.name: _matching_keys(image, masks) for image in images}
    if require_masks is None:
        require_masks = any(keys.values())
    records = []
    for image in images:
        found = [mask for key in keys[image.name] for mask in masks[key]]
        facts, problem = _facts(image, pattern, class_from_folder)
        if require_masks and not found:
            problem = missing_mask("one by the settings 'mask_suffix' and 'mask_folder'")
        kind = "binary" if found or require_masks else "none"
        records.append(image_record(image, found, problem, mask_kind=kind, **facts))
    for key in masks.keys() - {key for matching in keys.values() for key in matching}:
        expected = f"an image '{key.path}' with the suffix of an image"
        records += [mask_without_image(mask, expected) for mask in masks[key]]
    return finish_listing(contents, records)


class MaskKey(NamedTuple):
    """What an image and its masks have in common.

    Attributes:
        in_folder: whether the mask lies in the folder of masks, not beside its image.
        path: path without suffixes, below the root or below the folder of masks.
    """

    in_folder: bool
    path: str


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


def _find_mask_folder(root: Path, mask_folder: str | None) -> str:
    """Returns the path of the folder of masks below the root, ``""`` where there is none."""
    if mask_folder is None:
        usual = [name for name in USUAL_MASK_FOLDERS if (root / name).is_dir()]
        if len(usual) > 1:
            raise ConfigurationError(
                f"'{root}' holds the folders 'mask' and 'masks'; name one as 'mask_folder'"
            )
        return usual[0] if usual else ""
    mask_folder = mask_folder.strip("/")
    if mask_folder and not (root / mask_folder).is_dir():
        raise wrong_layout(root, "image_folder", f"the folder of masks '{mask_folder}'")
    return mask_folder


def _split_masks(
    contents: FolderContents, mask_suffix: str, mask_folder: str
) -> tuple[dict[MaskKey, list[FoundFile]], list[FoundFile]]:
    """Returns the masks by their key, and the images."""
    ending = re.compile(re.escape(mask_suffix) + r"(_\d+)?$")
    masks: dict[MaskKey, list[FoundFile]] = defaultdict(list)
    images = []
    for file in contents.images:
        in_folder = bool(mask_folder) and file.name.startswith(f"{mask_folder}/")
        path = file.path_below(mask_folder if in_folder else "")
        match = ending.search(path) if mask_suffix else None
        if match and match.start() > path.rfind("/") + 1:
            masks[MaskKey(in_folder, path[: match.start()])].append(file)
        elif in_folder:
            masks[MaskKey(True, path)].append(file)
        else:
            images.append(file)
    return masks, images


def _matching_keys(image: FoundFile, masks: Mapping[MaskKey, list[FoundFile]]) -> list[MaskKey]:
    """Returns the keys of this image that masks have: beside it, and in the folder of masks."""
    path = image.path_below("")
    beside = MaskKey(False, path)
    in_folder = [MaskKey(True, path), MaskKey(True, path.partition("/")[2])]
    nearest = next((key for key in in_folder if key in masks), None)
    return [key for key in (beside, nearest) if key in masks]


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
