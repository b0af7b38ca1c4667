"""What one training run consists of."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from nakt_dist.config import TrainConfig
from nakt_dist.loading.images import Images
from nakt_dist.loading.sampler import Share
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.preemption import StopRequests
from nakt_dist.training.tasks import TrainingTask


@dataclass(frozen=True)
class TrainingRun:
    """Everything a loop works with.

    Attributes:
        network: with the weights to start from; what is not trained is frozen already.
        training: samples to learn from.
        validation: samples to choose the best epoch on, or None.
        metadata: written into every weights file: preprocessing and lineage.
        share: how this launch divides the global batches.
        timeout: how long a process waits for its peers.
        alike: what has to be the same in every process.
        stop: signals that ask to leave.
    """

    config: TrainConfig
    spec: ModelSpec
    network: nn.Module
    task: TrainingTask
    training: Images
    validation: Images | None
    metadata: Mapping[str, str]
    accelerator: Accelerator
    share: Share
    timeout: timedelta
    alike: Mapping[str, Any]
    stop: StopRequests

    @property
    def output(self) -> Path:
        """Folder of the run."""
        return Path(self.config.output)
