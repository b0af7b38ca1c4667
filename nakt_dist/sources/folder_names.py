"""What folders and files call themselves: masks, images, training, test."""

import functools
import glob
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nakt_dist.sources.files import FoundFile

Parts = tuple[str, ...]

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
    "train": "train", "training": "train", "trainval": "trainval", "val": "validation",
    "valid": "validation", "validate": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip

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


class Claim(NamedTuple):
    """A file that its name or folder calls a mask.

    Attributes:
        group: its folder of masks, or the ending of its name: masks of one kind.
        guessed: whether no setting names it.
        stems: names that its image may have, the most likely first.
        number: of several masks of an image; ``""`` for the only one.
        places: folders below which to look for the image beside the folder of masks; empty for
            a mask that lies beside its image.
        component: name of the folder of masks, ``""`` without one.
        below: folders between that and the file.
    """

    file: FoundFile
    group: str
    guessed: bool
    stems: Parts
    number: str
    places: tuple[Parts, ...] = ()
    component: str = ""
    below: Parts = ()

    @property
    def pattern(self) -> str:
        """What all paths of its kind are like, ``*`` for any characters; tells no image's name."""
        folder = "*/" if "/" in self.group or (not self.component and self.file.folder) else ""
        if self.component:
            return f"{folder}{glob.escape(self.component)}/*"
        stem, base = self.file.stem, self.stems[-1]
        suffix = glob.escape(self.file.file_name[len(stem) :])
        if self.group.startswith("a name that begins"):
            return f"{folder}{glob.escape(stem.removesuffix(base))}*{suffix}"
        ending = stem[len(base) :].removesuffix(self.number)
        return f"*{glob.escape(ending)}{'*' if self.number else ''}{suffix}"

    @property
    def is_named_mask(self) -> bool:
        """Whether the file's own name ends in ``mask``, which no image's does."""
        return not self.component and re.search(r"ends in '[ _-]mask", self.group) is not None


class ClaimFinder:
    """Says which files claim to be masks.

    Args:
        mask_suffix: what the stem of a mask ends with; None for what is usual, ``""`` for nothing.
        mask_folders: paths of the folders of masks; None for those that call themselves so.
    """

    def __init__(
        self,
        files: Sequence[FoundFile],
        mask_suffix: str | None,
        mask_folders: Sequence[str] | None,
    ) -> None:
        self._files, self._suffix, self._folders = files, mask_suffix, mask_folders
        self._shared = _shared_depth(files)
        self._of_folder: dict[str, tuple[Parts, int | None]] = {}
        self._ending = re.compile(re.escape(mask_suffix or "") + r"(?:_(?P<number>\d+))?$")

    def claim(self, file: FoundFile) -> Claim | None:
        """Returns why a file is a mask, or None."""
        folder = file.folder
        if folder not in self._of_folder:
            parts = folders_of(file)
            self._of_folder[folder] = (parts, self._position(file, parts))
        parts, position = self._of_folder[folder]
        stem = self._mask_stem(file.stem)
        number = stem.number if stem else ""
        if position is not None:
            outside, below = parts[:position], parts[position + 1 :]
            places: tuple[Parts, ...] = (outside,)
            if self._folders is not None:  # within it, folders may tell parts: leftMask, rightMask
                places = tuple(dict.fromkeys((outside, ())))
                number = "/".join((*filter(is_of_masks, below), number))
                below = tuple(folder for folder in below if not is_of_masks(folder))
            stems = (file.stem, stem.base) if stem else (file.stem,)
            group = "/".join(parts[: position + 1])
            guessed = self._folders is None
            return Claim(file, group, guessed, stems, number, places, parts[position], below)
        if stem is None:
            return None
        return Claim(file, f"a name that {stem.told}", self._suffix is None, (stem.base,), number)

    @functools.cached_property
    def _mixed(self) -> frozenset[str]:
        return _with_masks_beside(self._files)

    def _mask_stem(self, stem: str) -> MaskStem | None:
        if self._suffix is None:
            return mask_stem(stem)
        match = self._ending.search(stem) if self._suffix else None
        if match is None or match.start() == 0:
            return None
        told = f"ends in '{self._suffix}'"
        return MaskStem(stem[: match.start()], told, match["number"] or "")

    def _position(self, file: FoundFile, parts: Parts) -> int | None:
        """Returns the place of the folder of masks among the folders of a file."""
        if self._folders is not None:
            within = [each for each in self._folders if file.name.startswith(f"{each}/")]
            return max((each.count("/") for each in within), default=None)
        for position in range(len(parts) - 1, self._shared - 1, -1):
            if is_of_masks(parts[position]) and (
                is_plain(parts[position]) or "/".join(parts[: position + 1]) not in self._mixed
            ):
                return position
            if is_of_images(parts[position]):
                return None
        return None


def folders_of(file: FoundFile) -> Parts:
    """Returns the folders of a file below the root, from the outermost."""
    return tuple(file.folder.split("/")) if file.folder else ()


def _with_masks_beside(files: Sequence[FoundFile]) -> frozenset[str]:
    """Returns folders that hold images with masks beside them, at any depth: none of masks alone.

    A dataset may be called after its masks, as ``Dataset_BUSI_with_GT``.
    """
    names = {(file.folder, file.stem) for file in files}
    mixed: set[str] = set()
    for file in files:
        folder = file.folder
        if folder in mixed or not folder:
            continue
        stem = mask_stem(file.stem)
        if stem is not None and (folder, stem.base) in names:
            parts = folders_of(file)
            mixed.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return frozenset(mixed)


def _shared_depth(files: Sequence[FoundFile]) -> int:
    """Returns how many outer folders hold all files and none directly: they tell nothing."""
    folders = [tuple(folder.split("/")) if folder else () for folder in {f.folder for f in files}]
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += 1
    return min(shared, min(map(len, folders), default=0) - 1) if shared else 0
