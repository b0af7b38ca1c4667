"""What a folder holds in whose place a packed dataset or pseudo-labels were expected."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nakt_dist.errors import DatasetError

_IMAGES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp",
    ".dcm", ".dicom", ".ima", ".pgm", ".ppm",
}  # fmt: skip
_TABLES = {".csv", ".tsv", ".gz", ".xlsx"}
_UNFINISHED = {".pack": "pack", ".teach": "teach"}
_MOST_LOOKED_AT = 2000
_DEEPEST = 4


def explain_absent(folder: Path, manifest_name: str, what: str) -> DatasetError:
    """Says that a manifest is not there, what is there instead, and what to do about it."""
    missing = f"{folder / manifest_name}: no {what} here"
    if folder.is_file():
        return DatasetError(
            f"{missing}: {folder} is a file. Give the folder that nakt pack or nakt teach wrote"
        )
    if not folder.is_dir():
        return DatasetError(f"{missing}: there is no such folder")
    for name, stage in _UNFINISHED.items():
        if (folder / name).exists():
            return DatasetError(
                f"{missing}: nakt {stage} began it and has not finished. Run that command again"
            )
    below = _packed_below(folder, manifest_name)
    if below:
        return DatasetError(f"{missing}; it is one folder further down, as in {below}")
    found = Counter(path.suffix.lower() for path in _files(folder))
    images = {suffix: count for suffix, count in found.items() if suffix in _IMAGES}
    if images or found.keys() & _TABLES:
        most = max(images, key=lambda suffix: images[suffix]) if images else ""
        told = f"images as published ({most})" if images else "tables as published"
        return DatasetError(
            f"{missing}: the folder holds {told}, which are packed first: nakt pack --layout "
            f"{'image_folder' if images else 'images_csv'} --source {folder} --output …"
        )
    return DatasetError(missing if found else f"{missing}: the folder is empty")


def _packed_below(folder: Path, manifest_name: str) -> Path | None:
    for entry in sorted(folder.iterdir())[:_MOST_LOOKED_AT]:
        try:
            if entry.is_dir() and "format" in json.loads((entry / manifest_name).read_bytes()):
                return entry
        except (OSError, ValueError, TypeError):
            continue
    return None


def _files(folder: Path) -> Iterator[Path]:
    """Yields some of the files in a folder and below."""
    left = _MOST_LOOKED_AT
    for place, folders, names in os.walk(folder):
        if len(Path(place).relative_to(folder).parts) >= _DEEPEST:
            folders.clear()
        for name in names[:left]:
            yield Path(place) / name
        left -= len(names)
        if left <= 0:
            return
