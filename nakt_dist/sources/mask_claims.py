"""Which files call themselves masks, by their names and folders: as settings say, or as usual."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from nakt_dist.sources.files import FoundFile
from nakt_dist.sources.folder_names import (
    MaskStem,
    is_of_images,
    is_of_masks,
    is_plain,
    mask_stem,
)

Parts = tuple[str, ...]


class Claim(NamedTuple):
    """A file that its name or folder calls a mask.

    Attributes:
        file: the file.
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
