"""What befalls a rank in the middle of training, at a step that the test chooses."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from nakt_dist.training.inputs import MicroBatch, TrainingInputs
from nakt_dist.training.loop import TrainingLoop
from nakt_dist.training.tasks import SegmentationTask


@dataclass(frozen=True)
class AtStep:
    """Something happens to a rank just before a step.

    Attributes:
        step: from 1, as in ``metrics.jsonl``.
        rank: whom it befalls.
    """

    step: int
    rank: int = 0

    def arm(self) -> None:
        """Watches the steps of this process from now on."""
        undisturbed = TrainingLoop._step

        def step_with_mishap(loop: TrainingLoop, step: int) -> Any:
            if step + 1 == self.step:
                self.happen()
            return undisturbed(loop, step)

        TrainingLoop._step = step_with_mishap

    def happen(self) -> None:
        """What happens."""
        raise NotImplementedError


@dataclass(frozen=True)
class Signalled(AtStep):
    """The scheduler's warning reaches this rank alone."""

    number: int = signal.SIGUSR1

    def happen(self) -> None:
        os.kill(os.getpid(), self.number)


@dataclass(frozen=True)
class SignalledWhileScoring:
    """The scheduler's warning reaches this rank while it scores its n-th batch, from 1."""

    batch: int
    rank: int = 0

    def arm(self) -> None:
        """Watches what this process scores from now on."""
        undisturbed, scored = SegmentationTask.validation_rows, itertools.count(1)

        def rows(task: SegmentationTask, *given: Any) -> Any:
            if next(scored) == self.batch:
                os.kill(os.getpid(), signal.SIGUSR1)
            return undisturbed(task, *given)

        SegmentationTask.validation_rows = rows


@dataclass(frozen=True)
class Killed(AtStep):
    """kill -9 while the others are on their way into all-reduce."""

    def happen(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Hung(AtStep):
    """The rank does nothing any more."""

    def happen(self) -> None:
        self.wait_for_ever()

    def wait_for_ever(self) -> None:
        """A name to look for in the stack."""
        time.sleep(3600)


@dataclass(frozen=True)
class NotANumber:
    """The images that this rank reads for some steps, from 1, are spoilt."""

    steps: tuple[int, ...]
    rank: int = 0

    def arm(self) -> None:
        """Spoils them in this process."""
        sound = TrainingInputs.micro_batches

        def micro_batches(inputs: TrainingInputs, step: int) -> Iterator[MicroBatch]:
            for seen in sound(inputs, step):
                spoilt = replace(seen, image=seen.image * float("nan"))
                yield spoilt if step + 1 in self.steps else seen

        TrainingInputs.micro_batches = micro_batches


@dataclass(frozen=True)
class SmallMemory:
    """The GPU of this rank holds so many images at a time, and no more."""

    images: int
    rank: int = 0

    def arm(self) -> None:
        """Makes larger forward passes fail as CUDA does."""
        plenty = TrainingLoop._losses

        def losses(loop: TrainingLoop, step: int, seen: MicroBatch, *rest: Any) -> Any:
            if len(seen.image) > self.images:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
            return plenty(loop, step, seen, *rest)

        TrainingLoop._losses = losses
