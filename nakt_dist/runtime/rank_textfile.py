"""A file per process in Prometheus' text format, for the node exporter's textfile collector."""

import contextlib
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.processes import ProcessPlace, say
from nakt_dist.runtime.prometheus_text import Family, render
from nakt_dist.runtime.slurm import this_job

_MARK_OF_A_STUDY = ".study"  # of studies.folder, a room that this one does not know


class RankTextfile:
    """What one process of a run tells the monitoring of its node, replaced again and again.

    It goes as the process ends; one that was killed leaves its own, whose
    ``nakt_rank_updated_timestamp_seconds`` says how old it is.

    Args:
        folder: that the node exporter reads; made where it is not there.
        place: of the process in its launch.
        gpu: UUID of its GPU as the driver has it, such as ``GPU-5ba1…``; empty on a CPU.

    Raises:
        ConfigurationError: the folder cannot be written to.
    """

    def __init__(
        self, folder: Path, output: Path, stage: str, place: ProcessPlace, gpu: str = ""
    ) -> None:
        run = run_label(output)
        self.labels = {"run": run, "rank": str(place.rank)}
        self._about = {
            "study": os.environ.get("NAKT_STUDY", ""),
            "stage": stage,
            "job_id": this_job() or "",
            "host": socket.gethostname(),
            "gpu_uuid": gpu,
        }
        where = hashlib.sha256(str(output.resolve()).encode(errors="surrogateescape")).hexdigest()
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", run).strip("-")[:100]
        self._path = folder / f"nakt-{name}-{where[:8]}-rank-{place.rank}.prom"
        self._failed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._write([])
        except (OSError, NaktError) as error:
            raise ConfigurationError(
                f"tracking.prometheus_folder is {folder}, where this process cannot write "
                f"({error}). Name a folder that it may write to and the node exporter reads"
            ) from None

    def write(self, families: Iterable[Family]) -> None:
        """Replaces the file; where that fails it is said once, and the work goes on."""
        try:
            self._write(families)
        except (OSError, NaktError) as error:
            if not self._failed:
                say(f"{self._path}: not written ({error}); the work goes on without it")
            self._failed = True

    def _write(self, families: Iterable[Family]) -> None:
        info = Family("nakt_rank_info", "gauge", "What a process is, and where it runs; always 1")
        info.add(1, {**self.labels, **self._about})
        updated = Family(
            "nakt_rank_updated_timestamp_seconds", "gauge", "When the process wrote this"
        )
        updated.add(time.time(), self.labels)
        write_bytes(self._path, render([info, updated, *families]))

    def close(self) -> None:
        """Removes the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def run_label(output: Path) -> str:
    """Names a run as ``nakt watch`` names those of a study; without one, its folder's last part."""
    folder = output.resolve()
    for root in folder.parents:
        if (root / _MARK_OF_A_STUDY).is_dir():
            return f"{root.name}/{folder.relative_to(root)}"
    return folder.name
