"""Walks the folder of a dataset and says what each file is.

Names decide, and nothing is opened, except where a name says nothing: such a file is an image
if its first bytes are those of a DICOM file.
"""

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from nakt_dist.errors import DatasetError, valid_unicode
from nakt_dist.imaging.dicom_recognition import HEAD_BYTES, is_dicom, is_directory

IMAGE_SUFFIXES = frozenset(
    {
        ".bmp", ".dcm", ".dicom", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tif",
        ".tiff", ".webp",
    }
)  # fmt: skip
OTHER_SUFFIXES = frozenset(
    {
        ".7z", ".avi", ".bz2", ".c", ".cfg", ".cpp", ".css", ".csv", ".db", ".doc", ".docx", ".h5",
        ".hdf5", ".htm", ".html", ".ini", ".ipynb", ".js", ".json", ".jsonl", ".gz", ".log", ".m",
        ".mat", ".md", ".mhd", ".mp4", ".nii", ".npy", ".npz", ".nrrd", ".ods", ".onnx",
        ".parquet", ".pdf", ".pkl", ".ply", ".pt", ".pth", ".py", ".r", ".rar", ".rst", ".rtf",
        ".safetensors", ".sh", ".sqlite", ".stl", ".svg", ".tar", ".tex", ".tgz", ".toml", ".tsv",
        ".txt", ".xls", ".xlsx", ".xml", ".xz", ".yaml", ".yml", ".zip", ".zst",
    }
)  # fmt: skip
"""Suffixes of files that are no images, whatever is in them."""
SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file below the root of a dataset.

    Attributes:
        name: path below the root with ``/``; always valid Unicode (see ``valid_unicode``).
        problem: ``(reason, detail)`` when the file must not be opened, else None.
    """

    name: str
    path: Path
    problem: tuple[str, str] | None = None

    @property
    def folder(self) -> str:
        """The folder below the root, ``""`` for the root itself."""
        return self.name.rpartition("/")[0]

    @property
    def file_name(self) -> str:
        """The name without its folders."""
        return self.name.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its folders and without its last suffix."""
        return split_suffix(self.file_name)[0]

    @property
    def suffix(self) -> str:
        """The last suffix in lower case with its dot, ``""`` where there is none."""
        return split_suffix(self.file_name)[1].lower()

    def path_below(self, folder: str) -> str:
        """Returns the name without its last suffix as seen from ``folder`` (``""`` is the root)."""
        below = self.folder[len(folder) :].lstrip("/")
        return f"{below}/{self.stem}" if below else self.stem


@dataclass(frozen=True)
class FolderContents:
    """Every file below a root, each in exactly one of the four collections.

    Attributes:
        images: files with the suffix of an image, and DICOM files whose name says nothing,
            sorted by name; those with a ``problem`` must not be opened.
        refused_links: links to folders outside the root, each with its ``problem``.
        others: all other files that may be opened, sorted by name.
        ignored: what the operating system or an archiver left behind, counted.
    """

    root: Path
    images: list[FoundFile] = field(default_factory=list)
    refused_links: list[FoundFile] = field(default_factory=list)
    others: list[FoundFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def below(self, folder: str) -> list[FoundFile]:
        """Returns the images in ``folder`` (a path below the root) or deeper."""
        return [file for file in self.images if file.name.startswith(f"{folder}/")]


def split_suffix(file_name: str) -> tuple[str, str]:
    """Returns a file name without its last suffix, and that with its dot.

    What is all digits is no suffix: it ends a DICOM identifier such as ``1.2.840.10008``.
    """
    stem, dot, after = file_name.rpartition(".")
    return (file_name, "") if not stem or after.isdecimal() else (stem, dot + after)


def require_folder(root: Path) -> None:
    """Refuses a root that is not an existing folder.

    Raises:
        DatasetError: ``root`` does not exist or is a file.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DatasetError(
            f"The dataset's folder '{valid_unicode(str(root))}' was expected and {found} is there; "
            "set the source to the folder that holds the published files"
        )


def walk(root: Path) -> FolderContents:
    """Lists the folder ``root`` and the folders in it.

    Hidden files, ``Thumbs.db``, ``desktop.ini`` and ``__MACOSX`` are counted and skipped.
    A symbolic link to a file inside the root is followed; a link that leaves the root never
    is. A link to a folder inside the root is counted and skipped, because that folder is
    listed at its own place.

    A file that has neither the suffix of an image nor one of ``OTHER_SUFFIXES``, such as
    ``IM0001`` or ``1.2.840.1``, is opened, and its first 1024 bytes are read.

    Raises:
        DatasetError: ``root`` is no folder, or a folder cannot be listed.
    """
    require_folder(root)
    contents = FolderContents(root)
    real_root = os.path.realpath(root)
    pending: list[tuple[str, str]] = [(os.fspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        for entry in _entries(folder):
            name = f"{prefix}{valid_unicode(entry.name)}"
            if entry.name.startswith("."):
                contents.ignored["hidden"] += 1
            elif entry.name in SYSTEM_FILES:
                contents.ignored[entry.name] += 1
            elif entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, f"{name}/"))
            else:
                _place(contents, entry, name, real_root)
    for files in (contents.images, contents.refused_links, contents.others):
        files.sort(key=lambda file: file.name)
    return contents


def _entries(folder: str) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DatasetError(
            f"The folder '{valid_unicode(folder)}' cannot be listed ({error.strerror}); "
            "give the reading user access to it or move it out of the dataset"
        ) from error


def _place(contents: FolderContents, entry: os.DirEntry, name: str, real_root: str) -> None:
    """Puts one entry that is not a plain folder into the right collection."""
    problem = None
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        problem = _link_problem(target, real_root)
        if target.is_dir():
            if problem:
                contents.refused_links.append(FoundFile(name, Path(entry.path), problem))
            else:
                contents.ignored["link to a folder inside the dataset"] += 1
            return
    elif not entry.is_file(follow_symlinks=False):
        problem = ("not_a_file", "a device, pipe or socket has the name of an image")
    file = FoundFile(name, Path(entry.path), problem)
    if file.suffix in IMAGE_SUFFIXES:
        contents.images.append(file)
    elif problem:
        contents.ignored[file.suffix or "no suffix"] += 1
    elif file.suffix in OTHER_SUFFIXES:
        contents.others.append(file)
    else:
        _place_by_content(contents, file)


def _place_by_content(contents: FolderContents, file: FoundFile) -> None:
    """Puts a file whose name says nothing with the images, if it is a DICOM file, or the others."""
    try:
        with file.path.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except PermissionError:
        detail = "the file may not be read, so that nothing says whether it is a DICOM image"
        contents.images.append(replace(file, problem=("unreadable", detail)))
        return
    except OSError as error:
        raise DatasetError(
            f"The file '{file.name}' cannot be read ({error.strerror}), so that nothing says "
            "whether it is a DICOM image; try again, or move it out of the dataset"
        ) from error
    is_image = is_dicom(head) and not is_directory(head)
    (contents.images if is_image else contents.others).append(file)


def _link_problem(target: Path, real_root: str) -> tuple[str, str] | None:
    if not target.is_relative_to(real_root):
        return (
            "link_outside_root",
            "the symbolic link leads out of the dataset's folder and is not followed; "
            "copy what it points to into the dataset, or use the folder it points to",
        )
    if not target.exists():
        return ("broken_link", "the symbolic link leads to a file that does not exist")
    return None
