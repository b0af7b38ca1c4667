"""Test images with annotation and prediction drawn on them, on request only."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import EvaluateConfig
from nakt_dist.drawing.sheets import Group, Outline, Panel, draw_sheet
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.records.fields import label_dataset
from nakt_dist.runtime.files import write_bytes

FindMasks = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Takes images and targets as ``TaskScores.rows`` does; gives bool (N, P, H, W) each, the predicted
first, with a plane for each class but the background."""


def draw_overlays(
    path: Path,
    trained: TrainedNetwork,
    dataset: MaskedImages,
    table: pa.Table,
    config: EvaluateConfig,
    find_masks: FindMasks,
) -> None:
    """Draws images from the lowest to the highest Dice: the outlines of both masks on each.

    The sheet shows images, and so exists only where ``config.overlays`` asks for it; it holds
    no identifier.

    Args:
        table: their predictions, in the order of the dataset.
        config: of the evaluation; ``overlays`` says how many images.
        find_masks: predicts the masks of a batch of images, and finds the annotated ones.
    """
    dice = table["dice"].to_numpy()
    order = np.argsort(dice, kind="stable")
    order = order[~np.isnan(dice[order])]
    chosen = spread_over(len(order), config.overlays)
    panels = []
    for start in range(0, len(chosen), config.batch_size):
        places = chosen[start : start + config.batch_size]
        captions = [
            f"{place + 1} of {len(order)}, Dice {dice[order[place]]:.3f}" for place in places
        ]
        panels += _panels(trained, dataset, order[places], captions, find_masks)
    manifest = dataset.samples.images.manifest
    group = Group("Numbered from the lowest Dice to the highest", tuple(panels))
    label = label_dataset(manifest.dataset, manifest.phantom)
    write_bytes(path, draw_sheet(f"{trained.name} on {label}", [group]))


def spread_over(count: int, wanted: int) -> np.ndarray:
    """Returns at most ``wanted`` places out of ``count``, even over the range, with both ends."""
    places = np.linspace(0, count - 1, min(count, wanted))
    return np.unique(places.round().astype(np.int64))


@torch.inference_mode()
def _panels(
    trained: TrainedNetwork,
    dataset: MaskedImages,
    numbers: np.ndarray,
    captions: list[str],
    find_masks: FindMasks,
) -> list[Panel]:
    """Runs the network on some images; returns a panel for each."""
    device = next(trained.network.parameters()).device
    batch = dataset.batch(numbers.tolist())
    image, target = as_float(batch, device)
    # Of several classes the outlines are those of all together.
    predicted, annotated = (each.any(1).cpu().numpy() for each in find_masks(image, target))
    panels = []
    images = batch["image"].numpy()
    for pixels, caption, *masks in zip(images, captions, annotated, predicted, strict=True):
        outlines = (Outline(masks[0], "annotation"), Outline(masks[1], "prediction"))
        shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        panels.append(Panel(shown, caption, outlines))
    return panels
