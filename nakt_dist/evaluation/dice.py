"""Dice per image (paper A, section 5), and of each of several classes."""

import torch

from nakt_dist.transfer.classes import ONE_TARGET
from nakt_dist.transfer.losses import split_void


def dice_per_image(
    prediction: torch.Tensor, target: torch.Tensor, both_empty: float = 1.0
) -> torch.Tensor:
    """Dice similarity 2 |P ∩ T| / (|P| + |T|) of binary masks.

    Args:
        prediction: bool (N, 1, H, W).
        target: bool of the same shape.
        both_empty: value where neither has a pixel; 1 counts agreement, nan leaves it out.

    Returns:
        float64 (N,), in [0, 1].
    """
    prediction, target = prediction.flatten(1), target.flatten(1)
    overlap = (prediction & target).sum(1).double()
    total = prediction.sum(1).double() + target.sum(1).double()
    return torch.where(total > 0, 2 * overlap / total.clamp(min=1), both_empty)


def class_areas(
    prediction: torch.Tensor, target: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts, by class, the pixels that prediction and target share, and those that they have.

    Args:
        prediction: int (N, H, W), the number of each pixel's class, 0 for the background.
        target: float planes of the masks, (N, K - 1, H, W) or with void as the last one
            (N, K, H, W); a pixel that is void by more than a half counts for neither.
        classes: K.

    Returns:
        |P ∩ T| and |P| + |T|, float64 (N, K - 1); Dice is twice the first by the second.
    """
    predicted, annotated = class_masks(prediction, target, classes)
    shared = (predicted & annotated).flatten(2).sum(2).double()
    return shared, predicted.flatten(2).sum(2).double() + annotated.flatten(2).sum(2).double()


def class_masks(
    prediction: torch.Tensor, target: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns where each class but the background is predicted, and where it is the target.

    Args:
        prediction: as for ``class_areas``.
        target: likewise; of soft masks a class is the target where it is the most probable.
        classes: K.

    Returns:
        bool (N, K - 1, H, W) each; void pixels are in neither.
    """
    foreground, void = split_void(target, classes)
    if classes == len(ONE_TARGET):  # as below, in a fraction of the time
        predicted, annotated = prediction[:, None] == 1, foreground > 0.5
    else:
        shares = torch.cat([1 - foreground.sum(1, keepdim=True), foreground], dim=1)
        numbers = torch.arange(1, classes, device=target.device)[:, None, None]
        predicted = prediction[:, None] == numbers
        annotated = shares.argmax(1)[:, None] == numbers
    if target.shape[1] < classes:  # nothing is void
        return predicted, annotated
    counts = void <= 0.5
    return predicted & counts, annotated & counts


def predicted_classes(probability: torch.Tensor, threshold: float) -> torch.Tensor:
    """Returns the number of each pixel's class, 0 for the background.

    Args:
        probability: float32 (N, K, H, W), as ``TrainedNetwork.probability`` gives it.
        threshold: above which the only class, of one output or two, is predicted.

    Returns:
        int64 (N, H, W).
    """
    if probability.shape[1] > len(ONE_TARGET):
        return probability.argmax(1)
    return (probability[:, -1] > threshold).long()
