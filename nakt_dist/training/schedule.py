"""The learning rate of each step, a function of the step alone: nothing to store for resuming."""

import math
from dataclasses import dataclass

from nakt_dist.config import RecipeConfig
from nakt_dist.errors import ConfigurationError


@dataclass(frozen=True)
class Schedule:
    """The learning rates of one training.

    Closed forms of torch's ``LinearLR``, ``StepLR`` and ``CosineAnnealingLR``, which come to a
    step only through all those before it.

    Attributes:
        steps_per_epoch: optimiser steps.

    Raises:
        ConfigurationError: the warm-up does not end before the training.
    """

    recipe: RecipeConfig
    steps_per_epoch: int

    def __post_init__(self) -> None:
        warm_up = self.recipe.schedule.warm_up_steps
        if warm_up >= self.total_steps:
            raise ConfigurationError(
                f"recipe.schedule.warm_up_steps is {warm_up} and the training has "
                f"{self.total_steps} steps; warm up for fewer, or train for more"
            )

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        return self.recipe.total_steps(self.steps_per_epoch)

    @property
    def is_constant(self) -> bool:
        """Whether all steps have the same learning rate."""
        schedule = self.recipe.schedule
        return schedule.name == "constant" and not schedule.warm_up_steps

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of a step, from 0."""
        schedule, rate = self.recipe.schedule, self.recipe.learning_rate
        if schedule.name == "step":
            assert schedule.decay_every_epochs is not None  # checked with the settings
            decays = step // self.steps_per_epoch // schedule.decay_every_epochs
            rate = rate * schedule.decay_factor**decays
        elif schedule.name == "cosine":
            done = (step - schedule.warm_up_steps) / (self.total_steps - schedule.warm_up_steps)
            wave = (1 + math.cos(math.pi * max(done, 0.0))) / 2
            rate = rate * (schedule.final_share + (1 - schedule.final_share) * wave)
        if step < schedule.warm_up_steps:
            rate = rate * (step + 1) / schedule.warm_up_steps
        return rate
