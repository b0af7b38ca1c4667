"""The record a stage leaves of what it ran, on what, and with which results."""

import functools
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import read_json, write_json

RECORD_NAME = "record.json"
_FORMAT = "nakt-record/1"
_PACKAGES = (
    "nakt_dist",
    "torch",
    "accelerate",
    "timm",
    "segmentation-models-pytorch",
    "webdataset",
    "onnxruntime",
)


@dataclass(frozen=True)
class RunRecord:
    """What one stage did.

    Attributes:
        stage: the verb, such as ``"evaluate"``.
        name: what the user calls the run, by default its output folder.
        inputs: fingerprints of what was read, such as ``{"dataset": sha256}``.
        counts: how many items went where.
        metrics: the numbers the stage is run for.
        details: anything a report needs besides, JSON-serialisable.
        seconds: wall-clock duration of the stage.
        speed: how fast the process was that wrote this, in its last launch, such as
            ``images_per_second``; of ``train`` all processes together.
        versions: versions of Python and of the packages the result depends on.
    """

    stage: str
    name: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    speed: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path, staging: Path | None = None) -> Path:
        """Writes the record as ``record.json``; ``staging`` as for ``atomic_write``."""
        path = folder / RECORD_NAME
        write_json(path, {"format": _FORMAT, **asdict(self)}, staging)
        return path


def read_record(path: Path) -> RunRecord:
    """Reads a record.

    Raises:
        DatasetError: the file is absent, damaged, or of another format.
    """
    value = read_json(path, "run record")
    if value.pop("format", None) != _FORMAT:
        raise DatasetError(f"{path}: not a run record of format {_FORMAT}")
    try:
        return RunRecord(**value)
    except TypeError as error:
        raise DatasetError(f"{path}: not a run record: {error}") from None


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the installed packages a result depends on."""
    return dict(_versions())


@functools.cache
def _versions() -> Mapping[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


class Stopwatch:
    """Wall-clock seconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far, to the millisecond."""
        return round(time.perf_counter() - self._started, 3)

    def speed(self, images: int) -> dict[str, float]:
        """Returns ``images_per_second`` of this process so far; empty where it did none."""
        return {"images_per_second": images / max(self.seconds, 1e-3)} if images else {}
