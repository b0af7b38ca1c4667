"""Other ways than the mean to make one answer of several: the median, and STAPLE."""

from typing import Literal

import torch

Combination = Literal["mean", "median", "staple"]

MOST_VOTERS = 12
"""Of STAPLE, which counts how often each pattern of votes occurs."""

_ROUNDS = 100
_SURE = 1e-6
_LEAST = 1e-300


def median(outputs: torch.Tensor) -> torch.Tensor:
    """Returns the median of answers; of an even number the mean of the two in the middle.

    Args:
        outputs: float (T, ...); NaN where one has no answer.

    Returns:
        float of the shape of one answer; NaN where none has one.
    """
    ordered = outputs.sort(0).values  # those that are no number come last
    count = (~outputs.isnan()).sum(0, keepdim=True)
    lower, upper = (
        ordered.gather(0, place)[0] for place in ((count - 1).clamp(0) // 2, count // 2)
    )
    return (lower + upper) / 2


def staple(outputs: torch.Tensor) -> torch.Tensor:
    """Weighs votes by how reliable they show each voter to be, image by image.

    Expectation maximisation of Warfield and others (STAPLE, IEEE TMI 2004, equations 16 to 19),
    without a spatial prior: the prior of target is the share of votes for it. Begun with a
    sensitivity and specificity of 0.99 each, and ended after 100 rounds.

    Args:
        outputs: float (T, N, H, W), probabilities; above 0.5 is a vote for target.

    Returns:
        float32 (N, H, W): the probability of target.
    """
    voters, images = outputs.shape[:2]
    votes = (outputs > 0.5).flatten(2)
    bits = 2 ** torch.arange(voters, device=outputs.device)
    # What pixels share is their pattern of votes: at most 2^T in the place of H × W.
    pattern = (votes * bits[:, None, None]).sum(0)
    offsets = 2**voters * torch.arange(images, device=outputs.device)[:, None]
    counted = torch.bincount((pattern + offsets).flatten(), minlength=2**voters * images)
    count = counted.view(images, 2**voters).double()
    said = _patterns(voters).to(outputs.device)
    prior = (count @ said / count.sum(1, keepdim=True)).mean(1, keepdim=True)
    sensitivity = torch.full((images, voters), 0.99, dtype=torch.double, device=outputs.device)
    specificity = sensitivity.clone()
    target = count
    for _ in range(_ROUNDS):
        present, absent = _likelihood(said, sensitivity), _likelihood(1 - said, specificity)
        target = prior * present / (prior * present + (1 - prior) * absent).clamp(min=_LEAST)
        sensitivity = _share(count * target, said)
        specificity = _share(count * (1 - target), 1 - said)
    return target.gather(1, pattern).float().view(outputs.shape[1:])


def _likelihood(right: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    """Probability of each pattern (N, 2^T), where each voter is right at its rate (N, T)."""
    return (right * rate[:, None] + (1 - right) * (1 - rate[:, None])).prod(2)


def _share(count: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """How often each voter is right, (N, T), over pixels (N, 2^T); never quite 0 or 1."""
    share = count @ right / count.sum(1, keepdim=True).clamp(min=_LEAST)
    return share.clamp(_SURE, 1 - _SURE)


def _patterns(voters: int) -> torch.Tensor:
    """Returns what each voter says in each pattern of votes, float64 (2^T, T) of 0 and 1."""
    numbers = torch.arange(2**voters)[:, None]
    return (numbers // 2 ** torch.arange(voters) % 2).double()
