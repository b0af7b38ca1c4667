"""The loss of each source of a mixture, for people who look on; it decides no result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from nakt_dist.loading.images import Images
from nakt_dist.loading.sampler import BatchOrder, Share

LOSS_BY_SOURCE = "loss_by_source"
"""What stands before the name of a source in metrics: ``loss_by_source/NAME``."""


@dataclass(frozen=True)
class SourceRows:
    """The rows of a micro-batch that are of one source.

    Attributes:
        metric: that their loss is logged as.
        rows: int64, on the device of the network; may be empty.
        factor: of their mean loss in the mean over all processes and micro-batches, which is then
            that of the source's images in the global batch.
        divisor: as for the loss of a whole micro-batch, of this source's labels; or None.
    """

    metric: str
    rows: torch.Tensor
    factor: float
    divisor: float | None


@dataclass(eq=False)
class SourceBatches:
    """Which images of each global batch are of which source.

    Attributes:
        images: of all sources; nothing is said where there is but one.
        last: the losses told last, by their metric.
    """

    images: Images
    order: BatchOrder
    share: Share
    rank: int
    device: torch.device
    last: dict[str, float] = field(default_factory=dict)

    def rows(self, step: int, micro_batch: int) -> list[SourceRows]:
        """Returns the rows of each source in a micro-batch of this process, in order."""
        metrics = self._metrics
        if not metrics:
            return []
        sources = self.order.sources(self.order.batch(step))
        own = self.share.part(sources, micro_batch, self.rank)
        parts, counts = self.share.accumulation * self.share.world_size, self._counts(step)
        found = []
        for source, metric in enumerate(metrics):
            rows = torch.from_numpy(np.flatnonzero(own == source))
            labels = self.images.labels_that_count is not None
            factor = 1.0 if labels else len(rows) * parts / max(counts[source], 1)
            divisor = float(counts[source]) / parts if labels else None
            found.append(SourceRows(metric, self._moved(rows), factor, divisor))
        return found

    def of_those_there(self, step: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Leaves out sources of which a step has no image, or none with a label that counts."""
        if not self._metrics:
            return dict(losses)
        counts = dict(zip(self._metrics, self._counts(step), strict=True))
        self.last |= {name: losses[name] for name, count in counts.items() if count}
        return {name: loss for name, loss in losses.items() if counts.get(name, 1)}

    def describe(self, steps: int) -> dict[str, dict[str, Any]]:
        """Returns, by source, what was learnt from it in the first steps.

        Returns:
            ``images``, how many times one was ``drawn``, and the ``loss`` told last in this launch,
            None where there was none. Empty where there is but one source.
        """
        order, names = self.order, self.images.source_names
        if not names:
            return {}
        return {
            name: {"images": size, "drawn": int(drawn), "loss": self.last.get(metric)}
            for name, metric, size, drawn in zip(
                names, self._metrics, order.sizes, order.drawn(steps), strict=True
            )
        }

    @property
    def _metrics(self) -> list[str]:
        return [f"{LOSS_BY_SOURCE}/{name}" for name in self.images.source_names]

    def _counts(self, step: int) -> np.ndarray:
        """Returns the labels, or else images, of each source in a global batch."""
        batch, labels = self.order.batch(step), self.images.labels_that_count
        weights = None if labels is None else labels[batch]
        return np.bincount(self.order.sources(batch), weights, len(self.order.sizes))

    def _moved(self, rows: torch.Tensor) -> torch.Tensor:
        """Moves rows to the device without waiting for it."""
        rows = rows.pin_memory() if self.device.type == "cuda" else rows
        return rows.to(self.device, non_blocking=True)
