"""What each step of training sees: batches, augmented, and the keys that are in them."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from nakt_dist.config import TrainConfig
from nakt_dist.loading.augmentation import augment, draw_parameters
from nakt_dist.loading.batches import Batch, as_float, indexed_batches, streamed_batches
from nakt_dist.loading.images import Images
from nakt_dist.loading.mask_planes import MaskPlanes
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.sampler import Share, batch_order
from nakt_dist.loading.samples import CachedImages
from nakt_dist.loading.targets import LabelledImages, LabelledTargets
from nakt_dist.runtime.processes import own_cores
from nakt_dist.training.by_source import SourceBatches
from nakt_dist.training.phases import Phase, phase

_STEPS_REMEMBERED = 256
_SEED_OF_OTHER_VIEW = 2**63


@dataclass(frozen=True)
class MicroBatch:
    """What one forward pass sees, on the device.

    Attributes:
        image: float32 (N, C, H, W) in [0, 1], augmented.
        target: float32, masks or findings.
        other_view: the same images augmented otherwise; None where no mean teacher looks at them.
    """

    image: torch.Tensor
    target: torch.Tensor
    other_view: torch.Tensor | None = None


@dataclass(eq=False)
class TrainingInputs:
    """One process's micro-batches of one training run.

    Attributes:
        order: of the global batches.
        sources: which images of them are of which source.
        waited_seconds: for the next batch, since the launch began.
    """

    config: TrainConfig
    dataset: Images
    share: Share
    rank: int
    device: torch.device

    def __post_init__(self) -> None:
        config, dataset = self.config, self.dataset
        self._streaming = config.is_streaming
        self.order = batch_order(
            dataset.sizes, config.weights, config.recipe.global_batch_size, config.seed
        )
        self.sources = SourceBatches(dataset, self.order, self.share, self.rank, self.device)
        self._labels_that_count = None if self._streaming else dataset.labels_that_count
        self._batches: Iterator[Batch] = iter(())
        self._read: dict[int, list[int]] = {}
        self.waited_seconds = 0.0

    def open(self, first_step: int, last_step: int) -> None:
        """Begins to read at a step, up to another, exclusive; resuming costs nothing."""
        if self._streaming:
            assert isinstance(self.dataset, CachedImages)  # the settings allow one source
            targets: LabelledTargets | MaskPlanes | None = None
            if isinstance(self.dataset, LabelledImages):
                targets = self.dataset.targets
            elif isinstance(self.dataset, MaskedImages):
                targets = self.dataset.planes
            self._batches = streamed_batches(
                self.config.sources[0], self.dataset.samples, self.share.micro_batch_size,
                self.config.seed + first_step, self.rank, targets,
            )  # fmt: skip
        else:
            self._batches = indexed_batches(
                self.dataset, self.order, self.share, self.rank, first_step, last_step,
                own_cores(self.config.workers), pinned=self.device.type == "cuda",
            )  # fmt: skip

    def micro_batches(self, step: int) -> Iterator[MicroBatch]:
        """Yields each of the step's micro-batches of this process."""
        numbers = self._remember(step)
        for micro_batch in range(self.share.accumulation):
            asked = time.perf_counter()
            with phase(Phase.WAITING):
                batch = next(self._batches)
            self.waited_seconds += time.perf_counter() - asked
            numbers += batch["number"].tolist()
            with phase(Phase.AUGMENTATION):
                seen = self._prepared(batch, step, micro_batch)
            yield seen

    def _remember(self, step: int) -> list[int]:
        """Keeps which samples a step reads, of the last steps: a stream cannot be asked again."""
        self._read.pop(step - _STEPS_REMEMBERED, None)
        return self._read.setdefault(step, [])

    def _prepared(self, batch: Batch, step: int, micro_batch: int) -> MicroBatch:
        taught = self.config.recipe.mean_teacher is not None
        if self.config.augmentation.enabled:
            image, target, *more = self._augmented(batch, self._visits(step, micro_batch), taught)
        else:
            with phase(Phase.COPY):
                image, target = as_float(batch, self.device)
            more = [image] if taught else []
        if self.config.recipe.channels_last:
            image, *more = (e.contiguous(memory_format=torch.channels_last) for e in (image, *more))
        return MicroBatch(image, target, *more)

    def _visits(self, step: int, micro_batch: int) -> int | np.ndarray:
        if self._streaming:  # it has no epochs; its steps stand in for them
            return step
        return self.share.part(self.order.visits(step), micro_batch, self.rank)

    def _augmented(self, batch: Batch, visits: int | np.ndarray, twice: bool) -> list[torch.Tensor]:
        """Returns image and target augmented, and perhaps another view of the image."""
        with phase(Phase.COPY):
            image, target = (
                batch[name].to(self.device, non_blocking=True) for name in ("image", "target")
            )
        seeds = [self.config.seed, *([self.config.seed ^ _SEED_OF_OTHER_VIEW] if twice else [])]
        parameters = [
            draw_parameters(
                self.config.augmentation, batch["number"].numpy(), seed, visits, *image.shape[-2:]
            ).to(self.device)
            for seed in seeds
        ]
        seen = [augment(image, target, each) for each in parameters]
        return [seen[0][0], seen[0][1], *(view for view, _ in seen[1:])]

    def labels_per_part(self, step: int) -> float | None:
        """How many labels count, on average over the parts that a global batch is cut into.

        Ignored labels fall unevenly into the parts; a common divisor makes the loss that of the
        whole batch. A stream does not know its batches beforehand: None.
        """
        if self._labels_that_count is None:
            return None
        parts = self.share.accumulation * self.share.world_size
        return float(self._labels_that_count[self.order.batch(step)].sum()) / parts

    def keys(self, step: int) -> list[str]:
        """Keys of a step's global batch; of a stream, those of them that this process has read."""
        numbers = self._read.get(step, []) if self._streaming else self.order.batch(step)
        return self.dataset.keys(numbers)
