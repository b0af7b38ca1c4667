"""The folder of an export: all of it or nothing, and what a second export finds there."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import package_versions
from nakt_dist.runtime.files import (
    differing_fields,
    file_sha256,
    flush_folder,
    read_json,
    remove,
    write_json,
)
from nakt_dist.runtime.work import hold_lock

EXPORT_NAME = "export.json"
"""Names every file of the folder with its SHA-256, and what was exported."""

_FORMAT = "nakt-export/1"


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Yields a hidden folder that takes the name ``output`` only when all went well.

    Args:
        output: must not exist, or be empty.

    Raises:
        DatasetError: another process writes it, or has just written it; or it is a link or a
            mounted folder.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = output.parent / f".{output.name}.lock"
    with hold_lock(lock) as held:
        if not held:
            raise DatasetError(
                f"{output}: another process writes an export there. Choose another --output, or "
                "wait for it and run the same command again"
            )
        try:
            if output.exists() and any(output.iterdir()):
                raise DatasetError(
                    f"{output}: another process has just written it; run the same command again"
                )
            with _renamed_when_whole(output) as folder:
                yield folder
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _renamed_when_whole(output: Path) -> Iterator[Path]:
    unfinished = output.parent / f".{output.name}.unfinished"
    if unfinished.exists():  # left by a kill
        remove(unfinished)
    unfinished.mkdir()
    try:
        yield unfinished
        flush_folder(unfinished)
        _rename(unfinished, output)
    except BaseException:
        remove(unfinished)
        raise
    flush_folder(output.parent)


def _rename(unfinished: Path, output: Path) -> None:
    try:
        unfinished.rename(output)
    except OSError as error:
        if not output.exists():
            raise
        raise DatasetError(
            f"{output}: cannot be replaced by the finished export ({error.strerror}), as a link or "
            f"a mounted folder cannot. Choose an --output that is not there yet, such as "
            f"{output / 'export'}"
        ) from None


def write_contents(folder: Path, identity: Mapping[str, Any], parity: Mapping[str, float]) -> None:
    """Writes what a folder holds: its files with their SHA-256."""
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    told = {"format": _FORMAT, "identity": identity, "files": files, "parity": parity}
    write_json(folder / EXPORT_NAME, {**told, "versions": package_versions()})


def is_exported(output: Path, identity: Mapping[str, Any]) -> bool:
    """Says whether a folder holds this very export, every file as it was written.

    Raises:
        DatasetError: it holds something else, or a file of it has changed.
    """
    if not output.exists() or not any(output.iterdir()):
        return False
    advice = "Choose another --output, or delete the folder"
    if not (output / EXPORT_NAME).is_file():
        raise DatasetError(f"{output}: holds other files than an export. {advice}")
    found = read_json(output / EXPORT_NAME, "list of an export's files")
    told, files = found.get("identity"), found.get("files")
    if found.get("format") != _FORMAT or not isinstance(told, dict) or not isinstance(files, dict):
        raise DatasetError(f"{output / EXPORT_NAME}: not of format {_FORMAT}. {advice}")
    if differences := differing_fields(told, identity):
        raise DatasetError(
            f"{output}: holds another export ({'; '.join(differences[:5])}). {advice}"
        )
    for name, sha256 in files.items():
        path = output / Path(name).name
        if not path.is_file() or file_sha256(path) != sha256:
            raise DatasetError(f"{path}: is not as it was exported. {advice}")
    return True
