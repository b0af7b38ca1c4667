"""Finds the folders of runs below another, again and again, at the price of a look at each."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from nakt_dist.studies.folder import STUDY_FOLDER
from nakt_dist.watch.facts import MARKS

_NOT_ENTERED = frozenset({"checkpoints", "wandb", "figures", "__pycache__"})
_SETTLED_SECONDS = 2.0
"""Younger changes of a folder may be followed by another in the same tick of its clock."""


class _Folder(NamedTuple):
    changed: int
    subfolders: tuple[str, ...]
    is_run: bool
    is_study: bool


class FolderScan:
    """The folders below a root that hold a file of ``MARKS``.

    Hidden folders and links to folders are not entered. A folder that has not changed is not
    read again.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._known: dict[str, _Folder] = {}
        self._found: tuple[list[Path], list[Path]] = ([], [])

    def find(self) -> tuple[list[Path], list[Path]]:
        """Returns the folders of runs and the roots of studies that are there now, sorted.

        Where nothing has changed, the very lists of the last time.
        """
        open_ = [self._root]
        known: dict[str, _Folder] = {}
        while open_:
            folder = open_.pop()
            try:
                entry = self._look(folder)
            except OSError:  # gone meanwhile, or not for us
                continue
            known[folder] = entry
            open_ += entry.subfolders
        if known != self._known:
            self._known = known
            runs = sorted(Path(folder) for folder in known if known[folder].is_run)
            self._found = runs, sorted(Path(each) for each in known if known[each].is_study)
        return self._found

    def _look(self, folder: str) -> _Folder:
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116 - of thousands
        known = self._known.get(folder)
        if known is not None and known.changed == changed:
            return known
        subfolders, is_run, is_study = [], False, False
        with os.scandir(folder) as entries:
            for entry in entries:
                is_run = is_run or entry.name in MARKS
                is_study = is_study or entry.name == STUDY_FOLDER
                entered = not entry.name.startswith(".") and entry.name not in _NOT_ENTERED
                if entered and entry.is_dir(follow_symlinks=False):
                    subfolders.append(entry.path)
        settled = time.time_ns() - changed > _SETTLED_SECONDS * 1e9
        return _Folder(changed if settled else -1, tuple(subfolders), is_run, is_study)
