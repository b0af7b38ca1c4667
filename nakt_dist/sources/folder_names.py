"""What folders and files call themselves: masks, images, training, test."""

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple

MASK_WORDS = frozenset(
    {
        "annot", "annotation", "annotations", "groundtruth", "groundtruths", "gt", "gts", "label",
        "labels", "manual", "mask", "masks", "msk", "msks", "seg", "segmentation", "segmentations",
        "segs", "truth", "truths",
    }
)  # fmt: skip
IMAGE_WORDS = frozenset(
    {
        "data", "dataset", "image", "images", "img", "imgs", "input", "inputs", "orig",
        "original", "originals", "photo", "photos", "picture", "pictures", "scan", "scans", "set",
    }
)  # fmt: skip
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "trainval",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

_ROLE_WORDS = MASK_WORDS | IMAGE_WORDS
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TOKEN = re.compile(r"[^\W_]+")
_MASK_ENDING = re.compile(
    r"(?P<base>.+)(?P<ending>[ _-](?:(?:masks?|msk|segmentations?|segs?|labels?|annotations?|gt|"
    r"ground[ _-]?truth)(?:[ _-]?(?P<number>\d+))?|manual\d?|1stho|2ndho))",
    re.IGNORECASE,
)
_MASK_BEGINNING = re.compile(
    r"(?P<beginning>(?:masks?|msk|segmentation|seg|label|annotation|gt)(?:[ _-]|(?=\d)))"
    r"(?P<base>.+)",
    re.IGNORECASE,
)
_IMAGE_BEGINNING = re.compile(r"(?:image|img|input|orig)(?:[ _-]|(?=\d))(?=.)", re.IGNORECASE)
_IMAGE_ENDING = re.compile(
    r"(?<=.)[ _-](?:images?|img|input|orig|original|train|training|test|testing|val|validation)\Z",
    re.IGNORECASE,
)


class MaskStem(NamedTuple):
    """The name of a mask, taken apart.

    Attributes:
        base: the name of its image.
        told: what makes it a mask, as ``"ends in '_mask'"``.
        number: that follows, where an image has several masks; else ``""``.
    """

    base: str
    told: str
    number: str


@functools.lru_cache(maxsize=10_000)
def words_of(component: str) -> tuple[str, ...]:
    """Returns the words of a folder's name in lower case, as of ``TrainMasks``, ``trainmasks``."""
    words: list[str] = []
    for word in map(str.lower, _WORD.findall(component)):
        starts = (start for start in SPLIT_WORDS if word.startswith(start))
        joined = next((start for start in starts if word[len(start) :] in _ROLE_WORDS), "")
        words += [joined, word[len(joined) :]] if joined else [word]
    return tuple(words)


def is_of_masks(component: str) -> bool:
    """Says whether a folder's name speaks of masks."""
    return not MASK_WORDS.isdisjoint(words_of(component))


def is_of_images(component: str) -> bool:
    """Says whether a folder's name speaks of images and not of masks."""
    words = words_of(component)
    return not IMAGE_WORDS.isdisjoint(words) and MASK_WORDS.isdisjoint(words)


def is_plain(component: str) -> bool:
    """Says whether a folder's name has no words but such that tell what it holds."""
    plain = {*_ROLE_WORDS, *SPLIT_WORDS, "ground"}
    return plain.issuperset(words_of(component)) and not re.search(r"\d", component)


def split_of(component: str) -> str | None:
    """Returns the split that a folder's name tells, such as ``Training`` or ``test_images``."""
    words = words_of(component)
    if len(words) > 1 and _ROLE_WORDS.isdisjoint(words):
        return None  # such as 'test patients'
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def rest_of(component: str) -> frozenset[str]:
    """Returns what a folder's name says besides images, masks and splits, as ``{"p1"}``."""
    known = {*_ROLE_WORDS, *SPLIT_WORDS, "ground"}
    if known.issuperset(words_of(component)):
        return frozenset()
    return frozenset(token for token in map(str.lower, _TOKEN.findall(component))) - known


def splits_by_folder(names: Iterable[str]) -> dict[str, str]:
    """Returns the split of each file that lies in a folder of one.

    Args:
        names: paths below the root with ``/``.

    Returns:
        The split by name; empty unless the folders tell at least two splits, one of training.
    """
    splits = {}
    for name in names:
        told = (split_of(component) for component in name.split("/")[:-1])
        split = next((split for split in told if split), None)
        if split is not None:
            splits[name] = split
    told_splits = set(splits.values())
    return splits if len(told_splits) > 1 and told_splits & {"train", "trainval"} else {}


def mask_stem(stem: str) -> MaskStem | None:
    """Takes the name of a mask apart that is a usual one: ``a_Mask``, ``a-gt_2``, ``mask_a``."""
    match = _MASK_ENDING.fullmatch(stem)
    if match is not None:
        number = match["number"] or ""
        ending = match["ending"].lower().removesuffix(number).rstrip(" _-")
        return MaskStem(match["base"], f"ends in '{ending}'", number)
    match = _MASK_BEGINNING.fullmatch(stem)
    if match is not None:
        return MaskStem(match["base"], f"begins with '{match['beginning'].lower()}'", "")
    return None


def plain_image_stem(stem: str) -> str:
    """Returns the name of an image without such as ``_image``, ``_training`` and ``img_``."""
    return _IMAGE_ENDING.sub("", _IMAGE_BEGINNING.sub("", stem, count=1))
