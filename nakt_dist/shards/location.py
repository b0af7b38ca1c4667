"""Datasets on local disk or behind a URL, seen as a local folder."""

import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import atomic_write, value_sha256
from nakt_dist.runtime.work import hold_lock

DEFAULT_CACHE = Path("~/.cache/nakt_dist")


class DatasetLocation:
    """Where a dataset's files are; remote ones are copied once to a local cache.

    Args:
        url: a local folder, or any URL fsspec opens (``s3://…``, ``gs://…``, ``memory://…``).
        cache: folder for local copies of remote files.

    Raises:
        DatasetError: the protocol is not one of fsspec's; in particular a ``pipe:`` URL,
            which other readers would run as a shell command.
    """

    def __init__(self, url: str | Path, cache: Path = DEFAULT_CACHE) -> None:
        self.url = str(url).rstrip("/")
        self._remote = None
        if ":" not in self.url.split("/")[0]:
            self.folder = Path(self.url)
            return
        protocol = self.url.split(":")[0]
        if protocol not in fsspec.available_protocols() or "://" not in self.url:
            raise DatasetError(
                f"{self.url}: '{protocol}:' is not opened. Expected a local folder or a URL of "
                "a storage system that fsspec knows, such as s3:// or gs://"
            )
        self._remote, self._root = fsspec.core.url_to_fs(self.url)
        self.folder = cache.expanduser() / value_sha256(self.url)[:16]
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_local(self) -> bool:
        """Whether the files are used where they are."""
        return self._remote is None

    def local(
        self, name: str, is_whole: Callable[[Path], bool] = Path.exists, version: str = ""
    ) -> Path:
        """Returns the local path of a file, copying it first where needed.

        Args:
            name: plain file name below the dataset's folder.
            is_whole: says whether a local copy can be used as it is.
            version: such as a checksum; copies of other versions are other files, so that an
                older one never stands in for a newer one of the same size.

        Raises:
            DatasetError: the file cannot be fetched.
        """
        if self.is_local:
            return self.folder / name
        path = self.folder / (f"{version[:16]}-{name}" if version else name)
        if is_whole(path):
            return path
        with hold_lock(path.with_name(f".{path.name}.lock")):  # if not held: fetched twice
            if not is_whole(path):
                self._fetch(name, path)
        return path

    def refresh(self, name: str) -> Path:
        """Fetches a small file again even when there is a copy; the manifest may be newer."""
        return self.local(name, is_whole=lambda path: False)

    def _fetch(self, name: str, path: Path) -> None:
        try:
            with (
                self._remote.open(f"{self._root}/{name}", "rb") as source,
                atomic_write(path) as copy,
            ):
                shutil.copyfileobj(source, copy, 1 << 20)
        except FileNotFoundError:
            raise DatasetError(f"{self.url}: no file {name} there") from None
        except Exception as error:  # storage back ends raise errors of their own libraries
            raise DatasetError(f"{self.url}/{name}: cannot be fetched: {error}") from error
