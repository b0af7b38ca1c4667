"""What the best epoch is chosen by: the task's rows of every validation image, each once."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from nakt_dist.loading.batches import as_float
from nakt_dist.loading.samples import CachedImages
from nakt_dist.runtime.distributed import gather_rows
from nakt_dist.training.learner import Learner
from nakt_dist.training.tasks import TrainingTask


@torch.no_grad()
def validation_rows(
    accelerator: Accelerator,
    learner: Learner,
    network: nn.Module,
    task: TrainingTask,
    dataset: CachedImages,
    batch_size: int,
    beat: Callable[[str], None],
) -> np.ndarray:
    """Scores every image on one of the processes.

    Args:
        accelerator: of this launch.
        learner: knows the precision.
        network: whole.
        task: what is learnt.
        dataset: to score.
        batch_size: images per forward pass.
        beat: called before each batch.

    Returns:
        float64 (images, D), in their order, alike on all processes.
    """
    network.eval()
    numbers = range(accelerator.process_index, len(dataset), accelerator.num_processes)
    pieces = []
    for start in range(0, len(numbers), batch_size):
        beat(f"validation, image {start}")
        items = [dataset[number] for number in numbers[start : start + batch_size]]
        image, target = as_float(torch.utils.data.default_collate(items), accelerator.device)
        with learner.autocast():
            logits = task.logits(network, image)
        pieces.append(task.validation_rows(logits, target))
    return gather_rows(accelerator, pieces, len(dataset))
