"""Settings of how a network is trained: ``recipe``; the defaults are the papers'."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.transfer.binary_loss import BinaryLoss


@dataclass(frozen=True)
class OptimiserConfig(Limited, group="recipe.optimiser"):
    """An optimiser of torch; what is not named here is as torch has it.

    Attributes:
        name: ``adam`` (the papers), ``adamw`` or ``sgd``.
        weight_decay: of weights with two or more dimensions; biases and norms, which have one,
            are left alone. ``adamw`` shrinks weights by it times the learning rate; ``adam`` and
            ``sgd`` add it times the weight to the gradient.
        momentum: of ``sgd``; None for none.
        nesterov: look ahead by the momentum.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: float = field(default=0.0, metadata=limits.WEIGHT)
    momentum: float | None = field(
        default=None,
        metadata=limits.limit("above 0 and below 1, or null", lambda share: 0 < share < 1),
    )
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.momentum is not None and self.name != "sgd":
            raise ConfigurationError(
                f"recipe.optimiser.momentum is {self.momentum:g} and the optimiser {self.name}, "
                "which has moments of its own; leave momentum out, or set "
                "recipe.optimiser.name to sgd"
            )
        if self.nesterov and self.momentum is None:
            raise ConfigurationError(
                "recipe.optimiser.nesterov needs a momentum; set recipe.optimiser.momentum, such "
                "as 0.9, with name sgd"
            )


@dataclass(frozen=True)
class ScheduleConfig(Limited, group="recipe.schedule"):
    """How the learning rate changes; a function of the step alone.

    Attributes:
        name: ``constant``; ``step``, multiplied by ``decay_factor`` again and again (paper B); or
            ``cosine``, half a wave from the end of the warm-up down to the last step.
        decay_every_epochs: epochs between two steps down (paper B: 16); for ``step`` alone.
        decay_factor: of ``step``; paper B halves.
        final_share: of the learning rate, where ``cosine`` ends.
        warm_up_steps: steps in which the learning rate rises linearly to what it would be.
    """

    name: Literal["constant", "step", "cosine"] = "constant"
    decay_every_epochs: int | None = field(default=None, metadata=limits.POSITIVE)
    decay_factor: float = field(default=0.5, metadata=limits.SHARE)
    final_share: float = field(default=0.0, metadata=limits.within(0, 1, "in [0, 1]"))
    warm_up_steps: int = field(default=0, metadata=limits.NOT_NEGATIVE)

    @property
    def ends_with_training(self) -> bool:
        """Whether the length of the training decides all learning rates before its end."""
        return self.name == "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.name == "step") != (self.decay_every_epochs is not None):
            raise ConfigurationError(
                f"recipe.schedule.name is {self.name} and decay_every_epochs "
                f"{self.decay_every_epochs}; step needs decay_every_epochs, and no other has it"
            )


@dataclass(frozen=True)
class EarlyStoppingConfig(Limited, group="recipe.early_stopping"):
    """When to stop before the last step, by the metric that chooses the best epoch.

    Attributes:
        patience: validations in a row without gain after which training ends.
        smallest_gain: by how much the metric (Dice or mean AUROC, in [0, 1]) must be above its
            value at the last gain to be one.
    """

    patience: int = field(metadata=limits.POSITIVE)
    smallest_gain: float = field(default=0.0, metadata=limits.within(0, 1, "in [0, 1]"))


@dataclass(frozen=True)
class MeanTeacherConfig(Limited, group="recipe.mean_teacher"):
    """Mean teacher (arXiv 1703.01780): agree with the average of one's own weights.

    Attributes:
        weight: of the mean squared difference of probabilities, beside the loss of labels.
        ramp_up_steps: steps in which it rises to that.
    """

    weight: float = field(metadata=limits.FACTOR)
    ramp_up_steps: int = field(default=0, metadata=limits.NOT_NEGATIVE)


@dataclass(frozen=True)
class RecipeConfig(Limited, group="recipe"):
    """How a network is trained; the defaults are paper A's.

    Attributes:
        epochs: passes over the data; give these or ``steps``.
        steps: optimiser steps.
        global_batch_size: images per optimiser step over all processes: the sequence of
            global batches does not depend on their number.
        micro_batch_size: images per forward pass and process; None takes the most. Smaller
            ones are accumulated.
        learning_rate: of the optimiser, where the schedule does not change it.
        optimiser: which takes the steps.
        schedule: of the learning rate.
        ema_decay: weights are averaged over the steps, each average keeping this share of the one
            before (at most (1 + n) / (10 + n) at step n): the average is scored, saved as the
            network and may teach, while the weights themselves go on learning. None does not.
        mean_teacher: the average teaches the weights meanwhile, of images with labels and without
            (classification); None does not.
        early_stopping: end before the last step; None does not.
        loss: of findings, and of the pixels of masks besides Dice.
        dice_weight: weight of the Dice loss (segmentation).
        cross_entropy_weight: weight of the loss per pixel (segmentation).
        certainty_weighting: weighs soft targets by how sure their teachers are, |2 t - 1|: each
            ``pixel`` (or finding), or each ``image`` by its mean; annotations count fully. Ours;
            ``none`` in the papers.
        positive_weighting: ``balanced`` weighs each finding's positives by its negatives /
            positives, from 1/100 to 100 (classification); the papers do not.
        largest_gradient_norm: clips the gradient; None, as in the paper, does not.
        not_finite: what follows a loss or gradient that is not a number: ``stop``, or ``skip``
            the batch; its keys go to ``not_finite.jsonl`` either way.
        halve_when_out_of_memory: when the GPU's memory is full, go on from the last checkpoint
            with micro-batches of half the size; the global batches stay as they are.
        precision: ``no`` (float32), ``bf16`` or ``fp16`` autocast; ``auto`` takes bf16 where the
            hardware has units for it, else float32, and a run that goes on what it began with.
        synchronised_batch_norm: BatchNorm's statistics are those of all processes' images, so that
            1 × 8 and 2 × 4 agree; otherwise each process has those of its own.
        channels_last: memory format of images and network; ``auto`` takes the faster one.
        compile: torch.compile the network.
    """

    epochs: int | None = None
    steps: int | None = None
    global_batch_size: int = field(default=4, metadata=limits.POSITIVE)
    micro_batch_size: int | None = field(default=None, metadata=limits.POSITIVE)
    learning_rate: float = field(default=1e-4, metadata=limits.FACTOR)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ema_decay: float | None = field(
        default=None, metadata=limits.limit("in (0, 1), or null", lambda share: 0 < share < 1)
    )
    mean_teacher: MeanTeacherConfig | None = None
    early_stopping: EarlyStoppingConfig | None = None
    loss: BinaryLoss = field(default_factory=BinaryLoss)
    dice_weight: float = field(default=1.0, metadata=limits.WEIGHT)
    cross_entropy_weight: float = field(default=1.0, metadata=limits.WEIGHT)
    certainty_weighting: Literal["none", "pixel", "image"] = "none"
    positive_weighting: Literal["none", "balanced"] = "none"
    largest_gradient_norm: float | None = field(
        default=None,
        metadata=limits.limit(
            f"positive, at most {limits.LARGEST_FACTOR:g}, or null for no clipping",
            lambda norm: 0 < norm <= limits.LARGEST_FACTOR,
        ),
    )
    not_finite: Literal["stop", "skip"] = "stop"
    halve_when_out_of_memory: bool = False
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    synchronised_batch_norm: bool = False
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.epochs is None) == (self.steps is None):
            raise ConfigurationError(
                f"recipe.epochs is {self.epochs} and recipe.steps {self.steps}; set exactly one"
            )
        length = self.steps if self.epochs is None else self.epochs
        limits.require(length and length > 0, "recipe.epochs or recipe.steps", "positive")
        limits.require(
            self.dice_weight or self.cross_entropy_weight,
            "recipe.dice_weight and recipe.cross_entropy_weight",
            f"from 0 to {limits.LARGEST_FACTOR:g}, and not both 0",
        )
        if self.mean_teacher is not None and self.ema_decay is None:
            raise ConfigurationError(
                "recipe.mean_teacher is set, and recipe.ema_decay is not: the teacher is the "
                "average of the weights. Set recipe.ema_decay, such as 0.99"
            )
        if self.positive_weighting == "balanced" and self.loss.alpha is not None:
            raise ConfigurationError(
                f"recipe.loss.alpha is {self.loss.alpha:g} and recipe.positive_weighting balanced: "
                "both weigh positives against negatives. Set one of them to null or none"
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Returns the optimiser steps of the whole training."""
        return self.steps or (self.epochs or 0) * steps_per_epoch
