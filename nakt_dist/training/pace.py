"""How fast a process learns, for people and monitoring that look on; it decides no result."""

import time
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from nakt_dist.loading.sampler import Share
from nakt_dist.runtime.devices import gpu_uuid, peak_memory_bytes
from nakt_dist.runtime.gpu_energy import joules_taken
from nakt_dist.runtime.prometheus_text import Family
from nakt_dist.runtime.rank_textfile import RankTextfile
from nakt_dist.runtime.tracking import JsonLines
from nakt_dist.training.checkpoint import POINTER_NAME

_SECONDS_BEFORE, _SECONDS_BETWEEN = 1.0, 5.0


class Pace:
    """Measures the steps of one process and tells of them every few seconds.

    Args:
        share: how many images a step takes, and how many of them this process.
        checkpoints: folder of the run's checkpoints.
        lines: where the main process tells of the steps since it last did: ``step``,
            ``images_per_second`` of all processes, ``step_seconds`` on average, ``data_wait``,
            the share of the time, 0 to 1, that it waited for images, and ``gpu_memory_bytes``,
            the most that it has held; None in other processes.
        textfile: for the node exporter; None where no setting asks for it.
    """

    def __init__(
        self,
        device: torch.device,
        share: Share,
        checkpoints: Path,
        lines: JsonLines | None,
        textfile: RankTextfile | None,
    ) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._batch, self._own_images = share.batch_size, share.batch_size // share.world_size
        self._checkpoints = checkpoints
        self._lines, self._textfile = lines, textfile
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._told = self._sums
        self._each = array("d")
        self._step = 0
        self._uuid = gpu_uuid(device)
        self._joules_before = joules_taken(self._uuid)
        self._next = time.monotonic() + _SECONDS_BEFORE
        self.losses: Mapping[str, float] = {}

    def __enter__(self) -> "Pace":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._tell()
        finally:
            if self._textfile is not None:
                self._textfile.close()
            if self._lines is not None:
                self._lines.close()

    def add(self, step: int, seconds: float, waited: float) -> None:
        """Takes a step that is done.

        Args:
            step: how many are done, of all launches.
            waited: seconds waited for images since the launch began.
        """
        self._step = step
        self._steps += 1
        self._seconds += seconds
        self._each.append(seconds)
        self._waited = waited
        if time.monotonic() >= self._next:
            self._tell()
            self._next = time.monotonic() + _SECONDS_BETWEEN

    def summary(self) -> dict[str, float]:
        """Returns how fast this launch was, for the record.

        Returns:
            ``images_per_second`` of all processes; ``step_seconds_p50`` and ``_p95``, and
            ``data_wait``, the share of the time, 0 to 1, of this process; ``peak_memory_bytes``
            that it held, of its GPU where it has one. Empty before the first step. Checkpoints
            and validation are not counted, but in ``joules`` that its GPU took, if that tells.
        """
        if not self._each:
            return {}
        half, most = np.quantile(self._each, [0.5, 0.95])
        before, now = self._joules_before, joules_taken(self._uuid)
        joules = {} if before is None or now is None else {"joules": now - before}
        return {
            "images_per_second": self._batch * self._steps / self._seconds,
            "step_seconds_p50": float(half),
            "step_seconds_p95": float(most),
            "data_wait": min(self._waited / self._seconds, 1.0),
            "peak_memory_bytes": peak_memory_bytes(self._cuda),
            **joules,
        }

    @property
    def _sums(self) -> tuple[int, float, float]:
        return self._steps, self._seconds, self._waited

    def _tell(self) -> None:
        steps, seconds, waited = (
            now - before for now, before in zip(self._sums, self._told, strict=True)
        )
        self._told = self._sums
        if self._lines is not None and seconds > 0:
            line = {
                "step": self._step,
                "images_per_second": self._batch * steps / seconds,
                "step_seconds": seconds / steps,
                "data_wait": min(waited / seconds, 1.0),
            }
            if self._cuda is not None:
                line["gpu_memory_bytes"] = torch.cuda.max_memory_reserved(self._cuda)
            self._lines.write(line)
        if self._textfile is not None:
            self._textfile.write(self._families(self._textfile.labels))

    def _families(self, labels: Mapping[str, str]) -> list[Family]:
        done = Family("nakt_rank_step", "gauge", "Optimiser steps that are done")
        done.add(self._step, labels)
        took = Family("nakt_rank_step_seconds", "summary", "Time that steps took since the launch")
        took.add(self._seconds, labels, "_sum")
        took.add(self._steps, labels, "_count")
        images = Family("nakt_rank_images_total", "counter", "Images learnt from since the launch")
        images.add(self._steps * self._own_images, labels)
        waited = Family(
            "nakt_rank_data_wait_seconds_total", "counter", "Time spent waiting for images"
        )
        waited.add(self._waited, labels)
        loss = Family("nakt_rank_loss", "gauge", "Last logged losses, averaged over processes")
        for name, value in self.losses.items():
            loss.add(value, {**labels, "loss": name})
        saved = Family(
            "nakt_rank_last_checkpoint_timestamp_seconds", "gauge",
            "When the run's last checkpoint was saved",
        )  # fmt: skip
        saved.add(_saved_at(self._checkpoints), labels)
        return [done, took, images, waited, loss, saved, *self._memory(labels)]

    def _memory(self, labels: Mapping[str, str]) -> list[Family]:
        if self._cuda is None:
            return []
        now = Family("nakt_rank_gpu_memory_bytes", "gauge", "GPU memory that the process holds")
        now.add(torch.cuda.memory_reserved(self._cuda), labels)
        most = Family("nakt_rank_gpu_memory_peak_bytes", "gauge", "Most of it since the launch")
        most.add(torch.cuda.max_memory_reserved(self._cuda), labels)
        return [now, most]


def _saved_at(folder: Path) -> float | None:
    """Returns when the last checkpoint of a folder was saved, in seconds since 1970, or None."""
    try:
        return (folder / POINTER_NAME).stat().st_mtime
    except OSError:
        return None
