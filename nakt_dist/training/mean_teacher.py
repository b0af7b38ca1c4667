"""Mean teacher: a student agrees with the average of its own weights, with labels or without."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nakt_dist.config import MeanTeacherConfig, RecipeConfig

CONSISTENCY = "consistency"
"""Of the loss in metrics."""


@dataclass(frozen=True)
class Consistency:
    """What a student is to agree with in a micro-batch.

    Attributes:
        logits: of the average, float32 (N, K), for another view of the same images.
        weight: of the loss in this step.
    """

    logits: torch.Tensor
    weight: float

    def loss(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the mean of (σ(student) - σ(average))² over images and findings, a scalar.

        Args:
            logits: the student's, float32 (N, K).
        """
        return nn.functional.mse_loss(logits.sigmoid(), self.logits.sigmoid())


def weight_at(config: MeanTeacherConfig, step: int) -> float:
    """Returns the weight of the loss in a step, from 0: it rises as exp(-5 (1 - t)²).

    So in Laine and Aila (arXiv 1610.02242) and in mean teacher (arXiv 1703.01780).
    """
    if step >= config.ramp_up_steps:
        return config.weight
    return config.weight * math.exp(-5 * (1 - step / config.ramp_up_steps) ** 2)


def describe_mean_teacher(recipe: RecipeConfig) -> dict[str, str]:
    """Says in words how the average teaches, if it does, as a part of a lineage.

    By these a report tells methods apart.
    """
    config = recipe.mean_teacher
    if config is None:
        return {}
    rising = f" from step {config.ramp_up_steps}" if config.ramp_up_steps else ""
    told = f"mean teacher (weight {config.weight:g}{rising}, decay {recipe.ema_decay:g})"
    return {"mean_teacher": told}


@contextmanager
def batch_statistics(network: nn.Module, student: nn.Module) -> Iterator[None]:
    """Lets the BatchNorms of a network in eval mode use the batch's statistics, and learn none.

    The running ones differ from process to process between two scorings; what they give would
    depend on when a run was interrupted. Those that the student keeps frozen are alike everywhere,
    and are used as there.

    Args:
        student: of the same modules, in the mode in which it learns.
    """
    pairs = zip(network.modules(), student.modules(), strict=True)
    norms = [mine for mine, its in pairs if isinstance(mine, _BatchNorm) and its.training]
    tracked = [each.track_running_stats for each in norms]
    try:
        for each in norms:
            each.training, each.track_running_stats = True, False
        yield
    finally:
        for each, before in zip(norms, tracked, strict=True):
            each.training, each.track_running_stats = False, before
