"""Multi-label classification loss with labels that may be ignored (paper B)."""

import numpy as np
import torch

from nakt_dist.transfer.binary_loss import CROSS_ENTROPY, BinaryLoss
from nakt_dist.transfer.losses import CertaintyWeighting, certainty


def classification_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    positive_weight: torch.Tensor | None = None,
    divisor: float | None = None,
    weighting: CertaintyWeighting = "none",
    loss: BinaryLoss = CROSS_ENTROPY,
) -> dict[str, torch.Tensor]:
    """Binary cross-entropy, or another loss of findings, over the labels that count.

    In float32 whatever the autocast.

    The paper averages over all labels of all images; here an ignored label (not a number) leaves
    both sum and count, so that it neither pulls nor dilutes.

    Args:
        logits: (N, K).
        target: (N, K), in [0, 1], or not a number where the label is ignored.
        positive_weight: (K,), factor of each label's positive term; None for 1.
        divisor: what the sum over the entries that count is divided by; None for their number.
            Where a batch is divided among processes and micro-batches, in which ignored labels
            fall unevenly, the mean number per part makes the mean over parts that of the batch.
        weighting: by the ``certainty`` of each finding (``pixel``) or image of the teachers that
            wrote the target; the divisor stays.

    Returns:
        ``loss`` and its only component, such as ``cross_entropy``, the same scalar: the mean over
        the entries that count; 0 with zero gradient when none does.
    """
    with torch.autocast(logits.device.type, enabled=False):
        kind = torch.promote_types(logits.dtype, torch.float32)
        counts = ~target.isnan()
        values = loss.entries(
            logits.to(kind),
            torch.where(counts, target, 0.0).to(kind),
            None if positive_weight is None else positive_weight.to(kind),
        )
        # Filled on the device: a number copied there would be waited for.
        number = counts.sum() if divisor is None else torch.full((), divisor, device=values.device)
        if weighting != "none":
            # Not a number times zero is none, in the gradient as well.
            values = values * certainty(target, weighting).nan_to_num(0.0).to(kind)
        mean = torch.where(counts, values, 0.0).sum() / number.clamp(min=1e-9)
    return {"loss": mean, loss.name: mean}


def positive_weights(targets: np.ndarray, limit: float = 100.0) -> torch.Tensor:
    """Weighs each label's positives as much as its negatives: negatives / positives.

    Args:
        targets: float (N, K) in [0, 1], of which a probability counts in part as either, and
            not a number as neither.
        limit: weights are kept within [1 / limit, limit]; one positive in a thousand would
            otherwise weigh as much as all else in its batch.

    Returns:
        float32 (K,); 1 for a label that lacks positives or negatives.
    """
    positives, negatives = np.nansum(targets, 0, np.float64), np.nansum(1 - targets, 0, np.float64)
    both = (positives > 0) & (negatives > 0)
    ratio = np.divide(negatives, positives, where=both, out=np.ones_like(positives))
    return torch.from_numpy(ratio.clip(1 / limit, limit).astype(np.float32))
