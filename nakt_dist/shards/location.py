"""Datasets on local disk or behind a URL, seen as a local folder."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import atomic_write, value_sha256
from nakt_dist.runtime.work import hold_lock
from nakt_dist.shards import tables
from nakt_dist.shards.manifest import MOST_MANIFEST_BYTES

DEFAULT_CACHE = Path("~/.cache/nakt_dist")

_PIECE_BYTES = 2**20

_NEVER_OPENED = {"dask", "reference"}
"""Storage systems of fsspec that hand code on, or render templates found in a file."""


class DatasetLocation:
    """Where a dataset's files are; remote ones are copied once to a local cache.

    Args:
        url: a local folder (a leading ``~`` is the user's), or any URL fsspec opens
            (``s3://…``, ``gs://…``, ``memory://…``).
        cache: folder for local copies of remote files.

    Raises:
        DatasetError: the protocol is not one of fsspec's; in particular a ``pipe:`` URL,
            which other readers would run as a shell command. Or it is one that may run what
            it finds, alone or in a chain. Or the URL cannot be opened, for example because
            the package for its protocol is not installed.
    """

    def __init__(self, url: str | Path, cache: Path = DEFAULT_CACHE) -> None:
        self.url = str(url).rstrip("/") or str(url)
        self._remote: Any = None  # a file system of fsspec
        if _is_local(self.url):
            self.folder = _expanded(self.url)
            return
        import fsspec  # with asyncio and ssl, which a local folder does not need

        protocol = self.url.split(":")[0]
        chained = {each.split(":")[0] for each in self.url.split("::")}
        if (
            protocol not in fsspec.available_protocols()
            or "://" not in self.url
            or chained & _NEVER_OPENED
        ):
            raise DatasetError(
                f"{self.url}: '{protocol}:' is not opened. Expected a local folder or a URL of "
                "a storage system that fsspec knows, such as s3:// or gs://"
            )
        self._remote, self._root = _connected(self.url, protocol)
        self.folder = cache.expanduser() / value_sha256(self.url)[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_local(self) -> bool:
        """Whether the files are used where they are."""
        return self._remote is None

    def local(
        self,
        name: str,
        is_whole: Callable[[Path], bool] = Path.exists,
        version: str = "",
        most_bytes: int | None = None,
    ) -> Path:
        """Returns the local path of a file, copying it first where needed.

        Args:
            name: plain file name below the dataset's folder.
            is_whole: says whether a local copy can be used as it is.
            version: such as a checksum; copies of other versions are other files, so that an
                older one never stands in for a newer one of the same size.
            most_bytes: of a file that is fetched to its end; by default those of a table.

        Raises:
            DatasetError: the file cannot be fetched, or is larger.
        """
        if self.is_local:
            return self.folder / name
        path = self.folder / (f"{version[:16]}-{name}" if version else name)
        if is_whole(path):
            return path
        with hold_lock(path.with_name(f".{path.name}.lock")):  # if not held: fetched twice
            if not is_whole(path):
                self._fetch(
                    name, path, tables.MOST_TABLE_BYTES if most_bytes is None else most_bytes
                )
        return path

    def refresh(self, name: str) -> Path:
        """Fetches a manifest again even when there is a copy; it may be newer."""
        return self.local(name, lambda path: False, most_bytes=MOST_MANIFEST_BYTES)

    def _fetch(self, name: str, path: Path, most_bytes: int) -> None:
        try:
            with (
                self._remote.open(f"{self._root}/{name}", "rb") as source,
                atomic_write(path) as copy,
            ):
                for piece in iter(functools.partial(source.read, _PIECE_BYTES), b""):
                    if copy.tell() + len(piece) > most_bytes:
                        raise _TooLarge
                    copy.write(piece)
        except FileNotFoundError:
            raise DatasetError(f"{self.url}: no file {name} there") from None
        except _TooLarge:
            raise DatasetError(
                f"{self.url}/{name}: found more bytes than it may have, expected at most "
                f"{most_bytes}. Run nakt verify on the folder there, or put it there again"
            ) from None
        except Exception as error:  # storage back ends raise errors of their own libraries
            raise DatasetError(f"{self.url}/{name}: cannot be fetched: {error}") from error


class _TooLarge(Exception):
    """A remote file goes on where it should have ended."""


def _is_local(url: str) -> bool:
    """Says whether this is a path; a folder that exists may have a colon in its name."""
    if ":" not in url.split("/")[0]:
        return True
    try:
        return "://" not in url and Path(url).is_dir()
    except OSError:  # longer than a name may be
        return False


def _expanded(url: str) -> Path:
    try:
        return Path(url).expanduser()
    except RuntimeError as error:
        raise DatasetError(f"{url}: no such home folder: {error}. Write the path in full") from None


def _connected(url: str, protocol: str) -> tuple[Any, str]:
    """Returns fsspec's file system and the path on it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DatasetError(
            f"{url}: '{protocol}://' needs a package that is not installed: {error}. "
            f"Run: pip install {_package_for(protocol, error)}"
        ) from error
    except Exception as error:  # storage back ends raise errors of their own libraries
        raise DatasetError(
            f"{url}: cannot be opened: {type(error).__name__}: {error}. Check the URL, such as "
            "s3://bucket/folder, and the settings of its storage system"
        ) from error


def _package_for(protocol: str, error: ImportError) -> str:
    """Names the package whose module is missing; for storage systems the two are called alike."""
    from fsspec.registry import known_implementations

    known = known_implementations.get(protocol, {})
    module = str(known.get("class", "")).split(".")[0]
    if module and module != "fsspec":
        return module
    missing = getattr(error.__cause__, "name", None) or error.name or protocol
    return missing.split(".")[0]
