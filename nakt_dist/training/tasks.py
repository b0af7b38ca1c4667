"""What is learnt: the forward pass, the loss of a batch, and what the best epoch is chosen by."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.auroc import mean_auroc
from nakt_dist.evaluation.dice import class_areas, class_masks, dice_per_image
from nakt_dist.models.input_images import at_size, prepare_image
from nakt_dist.training.by_source import SourceRows
from nakt_dist.training.following import Following
from nakt_dist.training.mean_teacher import CONSISTENCY, Consistency
from nakt_dist.transfer.binary_loss import CROSS_ENTROPY
from nakt_dist.transfer.classes import ONE_TARGET
from nakt_dist.transfer.classification import classification_loss
from nakt_dist.transfer.losses import class_segmentation_loss, segmentation_loss


@dataclass(frozen=True, eq=False)
class TrainingTask(ABC):
    """The forward pass and the loss of a network, and of the teacher it follows if any."""

    metric: ClassVar[str]
    """Name of the validation metric, larger is better, in [0, 1]."""

    in_channels: int
    preprocessing: PreprocessingConfig
    recipe: RecipeConfig
    following: Following | None = None

    def wrap(self, network: nn.Module) -> nn.Module:
        """Returns the module to train: the network, with taps where a teacher's maps are met."""
        return network if self.following is None else self.following.wrap(network, self._prepare)

    def logits(self, network: nn.Module, image: torch.Tensor) -> torch.Tensor:
        """Runs the bare network on images float32 (N, C, H, W) in [0, 1]."""
        return self._finish(network(self._prepare(image)), image)

    def forward(
        self,
        network: Callable[[torch.Tensor], Any],
        image: torch.Tensor,
        target: torch.Tensor,
        divisor: float | None = None,
        sources: Sequence[SourceRows] = (),
        consistency: Consistency | None = None,
    ) -> Mapping[str, torch.Tensor]:
        """Runs what ``wrap`` returned, and judges it.

        Args:
            image: float32 (N, C, H, W) in [0, 1].
            divisor: as for ``classification_loss``; None averages over this part of the batch.
            sources: whose loss is told besides, without what is taken from a teacher.
            consistency: what the average of the weights says of the images, if it teaches.

        Returns:
            ``loss`` and its components, scalars averaged over the batch.
        """
        result, following = network(self._prepare(image)), self.following
        output, maps = result if following is not None and following.taps else (result, ())
        logits = self._finish(output, image)
        losses = dict(self.loss(logits, target, divisor))
        if following is not None:
            extra, components = following.losses(image, logits, maps, self._finish, target)
            losses = {**losses, "loss": losses["loss"] + extra, **components}
        if consistency is not None:
            losses[CONSISTENCY] = consistency.loss(logits)
            losses["loss"] = losses["loss"] + consistency.weight * losses[CONSISTENCY]
        return {**losses, **self._by_source(logits, target, sources)}

    @torch.no_grad()
    def _by_source(
        self, logits: torch.Tensor, target: torch.Tensor, sources: Sequence[SourceRows]
    ) -> dict[str, torch.Tensor]:
        found = {}
        for each in sources:
            found[each.metric] = logits.new_zeros((), dtype=torch.float32)
            if len(each.rows):
                own = self.loss(logits[each.rows], target[each.rows], each.divisor)
                found[each.metric] = own["loss"].float() * each.factor
        return found

    def _prepare(self, image: torch.Tensor) -> torch.Tensor:
        return prepare_image(image, self.in_channels, self.preprocessing)

    @abstractmethod
    def _finish(self, output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Brings a network's output to the form that the loss compares, float32."""

    @abstractmethod
    def loss(
        self, logits: torch.Tensor, target: torch.Tensor, divisor: float | None = None
    ) -> Mapping[str, torch.Tensor]:
        """Returns ``loss`` and its components of finished logits."""

    @abstractmethod
    def validation_rows(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns what each image contributes to validation, float64 (N, D)."""

    @abstractmethod
    def validation_metrics(self, rows: np.ndarray) -> dict[str, float]:
        """Returns the metrics of all images' rows, float64 (N, D); ``metric`` among them."""


@dataclass(frozen=True, eq=False)
class SegmentationTask(TrainingTask):
    """Dice loss and cross-entropy against annotations or pseudo masks (paper A, section 5).

    Targets are float32 (N, P, H, W) in [0, 1], a plane for each class but the background, and
    perhaps one of void; of one logit the target's alone.

    Args:
        classes: the names of what is told apart, the background first.
    """

    metric = "dice"

    classes: tuple[str, ...] = ONE_TARGET

    def _finish(self, output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return at_size(output, image.shape[-2:])

    def loss(
        self, logits: torch.Tensor, target: torch.Tensor, divisor: float | None = None
    ) -> Mapping[str, torch.Tensor]:
        """Returns ``loss``, ``dice_loss`` and that of pixels; all of them count but void ones.

        Raises:
            ConfigurationError: the loss is not for several classes, or void.
        """
        weights = self.recipe.dice_weight, self.recipe.cross_entropy_weight
        weighting = self.recipe.certainty_weighting
        if logits.shape[1] == 1 and target.shape[1] == 1:
            return segmentation_loss(
                logits, target, *weights, weighting=weighting, loss=self.recipe.loss
            )
        if self.recipe.loss != CROSS_ENTROPY:
            raise ConfigurationError(
                f"recipe.loss is {self.recipe.loss.name}, which is for masks of one target; these "
                "have several classes, or void pixels. Set recipe.loss.name to cross_entropy"
            )
        if logits.shape[1] == 1:  # what is void is known, as of class indices
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return class_segmentation_loss(logits, target, *weights, weighting=weighting)

    def validation_rows(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the Dice of each image, float64 (N, 1); of K outputs areas, (N, 2 (K - 1))."""
        if logits.shape[1] == 1:
            masks = class_masks((logits[:, 0] > 0).long(), target, len(ONE_TARGET))
            return dice_per_image(*masks).double()[:, None]
        return torch.cat(class_areas(logits.argmax(1), target, logits.shape[1]), dim=1)

    def validation_metrics(self, rows: np.ndarray) -> dict[str, float]:
        """Returns the mean Dice; of several outputs also that of each class, and the mean of them.

        An image counts for the classes that it has, or is said to have; for a network with two
        outputs as for one with one output also where neither has the target.
        """
        if rows.shape[1] == 1:
            return {"dice": float(rows.mean())}
        shared, both = np.split(rows, 2, axis=1)
        dice = np.divide(2 * shared, both, where=both > 0, out=np.ones_like(both))
        counts = (both > 0) | (len(self.classes) == len(ONE_TARGET))
        by_class = {
            f"dice_{name}": float(dice[counts[:, number], number].mean())
            for number, name in enumerate(self.classes[1:])
            if counts[:, number].any()
        }
        return {"dice": float(np.mean(list(by_class.values()) or [1.0])), **by_class}


@dataclass(frozen=True, eq=False)
class ClassificationTask(TrainingTask):
    """Binary cross-entropy of findings that do not exclude each other (paper B).

    Targets are float32 (N, K) of 0, 1, or not a number where a label is ignored.

    Args:
        positive_weight: float32 (K,), factor of each finding's positive term, on the device of
            the network; None for 1.
    """

    metric = "auroc"

    positive_weight: torch.Tensor | None = None

    def _finish(self, output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return output.float()

    def loss(
        self, logits: torch.Tensor, target: torch.Tensor, divisor: float | None = None
    ) -> Mapping[str, torch.Tensor]:
        """Returns ``loss`` and its component, such as ``cross_entropy``."""
        return classification_loss(
            logits, target, self.positive_weight, divisor,
            self.recipe.certainty_weighting, self.recipe.loss,
        )  # fmt: skip

    def validation_rows(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns logits and targets side by side, float64 (N, 2K)."""
        return torch.cat([logits, target], dim=1).double()

    def validation_metrics(self, rows: np.ndarray) -> dict[str, float]:
        """Returns the mean AUROC over labels with both classes, and the cross-entropy."""
        logits, targets = np.split(rows, 2, axis=1)
        unweighted = classification_loss(torch.from_numpy(logits), torch.from_numpy(targets))
        # Logits rank like probabilities, without the ties that saturation makes.
        auroc = mean_auroc(logits, targets).mean
        assert auroc is not None  # a training without a finding of both classes does not start
        return {"auroc": auroc, "loss": float(unweighted["cross_entropy"])}
