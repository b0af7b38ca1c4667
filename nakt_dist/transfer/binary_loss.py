"""Losses of outputs that do not exclude each other: findings, and the pixels of a mask."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited

if TYPE_CHECKING:
    from torch import Tensor

_FOCUS = limits.within(0, 10, "from 0 to 10")
_SMALLEST = 1e-8
_OF = {
    "cross_entropy": (),
    "focal": ("gamma", "alpha"),
    "asymmetric": ("gamma_positive", "gamma_negative", "margin"),
}


@dataclass(frozen=True)
class BinaryLoss(Limited, group="recipe.loss"):
    """What a yes-or-no answer costs; None takes the value of the loss's own paper.

    With p the probability and t the target in [0, 1], cross-entropy is
    ``-t log p - (1 - t) log(1 - p)``. The others leave less to answers that are nearly right:

    * focal (Lin 2017, equation 5): ``-α t (1 - p)^γ log p - (1 - α) (1 - t) p^γ log(1 - p)``;
      without α both factors are 1 (equation 4);
    * asymmetric (Ridnik 2021, equation 7): ``-t (1 - p)^γ₊ log p - (1 - t) q^γ₋ log(1 - q)`` with
      q = max(p - margin, 0).

    The papers have t = 0 or 1 and add the terms up; here a soft target weighs both terms, and the
    mean is taken as of cross-entropy. A soft target is then not where the loss is least.

    Attributes:
        name: ``cross_entropy`` (the papers of this project), ``focal`` or ``asymmetric``.
        gamma: of focal, 2; with 0 it is cross-entropy.
        alpha: of focal, share of the positives in the weight; None weighs both alike.
        gamma_positive: of asymmetric, 0.
        gamma_negative: of asymmetric, 4.
        margin: of asymmetric, 0.05: negatives below it cost nothing.
    """

    name: Literal["cross_entropy", "focal", "asymmetric"] = "cross_entropy"
    gamma: float | None = field(default=None, metadata=_FOCUS)
    alpha: float | None = field(
        default=None, metadata=limits.limit("above 0 and below 1", lambda share: 0 < share < 1)
    )
    gamma_positive: float | None = field(default=None, metadata=_FOCUS)
    gamma_negative: float | None = field(default=None, metadata=_FOCUS)
    margin: float | None = field(
        default=None, metadata=limits.limit("0 or more, below 1", lambda share: 0 <= share < 1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for owner, names in _OF.items():
            for name in names if owner != self.name else ():
                if (value := getattr(self, name)) is not None:
                    raise ConfigurationError(
                        f"recipe.loss.{name} is {value:g} and the loss {self.name}; leave it out, "
                        f"or set recipe.loss.name to {owner}"
                    )

    def entries(
        self, logits: "Tensor", target: "Tensor", positive_weight: "Tensor | None" = None
    ) -> "Tensor":
        """Returns the loss of each entry.

        Args:
            logits: any shape, float32 or float64.
            target: of the same shape and dtype, in [0, 1].
            positive_weight: factor of the positive term, as broadcast; None for 1.

        Returns:
            Of the same shape, 0 or more.
        """
        from torch.nn import functional

        if self.name == "cross_entropy":
            return functional.binary_cross_entropy_with_logits(
                logits, target, pos_weight=positive_weight, reduction="none"
            )
        terms = self._focal if self.name == "focal" else self._asymmetric
        positive, negative = terms(logits)
        if positive_weight is not None:
            positive = positive * positive_weight
        return target * positive + (1 - target) * negative

    def mean(self, logits: "Tensor", target: "Tensor", weight: "Tensor | None" = None) -> "Tensor":
        """Returns the mean over all entries, a scalar.

        Args:
            logits: as for ``entries``; ``target`` likewise.
            weight: factor of each entry, of the same shape; None for 1. It leaves their number.
        """
        if self.name != "cross_entropy":
            entries = self.entries(logits, target)
            return (entries if weight is None else entries * weight).mean()
        from torch.nn import functional

        # The same number as the mean of entries; its gradient is rounded otherwise.
        return functional.binary_cross_entropy_with_logits(logits, target, weight)

    def _focal(self, logits: "Tensor") -> tuple["Tensor", "Tensor"]:
        gamma = 2.0 if self.gamma is None else self.gamma
        positive, negative = _focused(logits, gamma), _focused(-logits, gamma)
        if self.alpha is None:
            return positive, negative
        return self.alpha * positive, (1 - self.alpha) * negative

    def _asymmetric(self, logits: "Tensor") -> tuple["Tensor", "Tensor"]:
        gamma_positive = self.gamma_positive or 0.0
        gamma = 4.0 if self.gamma_negative is None else self.gamma_negative
        margin = 0.05 if self.margin is None else self.margin
        positive = _focused(logits, gamma_positive)
        if margin == 0:
            return positive, _focused(-logits, gamma)
        # Above 0, where roots have no slope; what is below costs nothing that float32 could show.
        shifted = (logits.sigmoid() - margin).clamp(min=_SMALLEST)
        return positive, -(shifted**gamma) * (-shifted).log1p()


CROSS_ENTROPY = BinaryLoss()


def _focused(logits: "Tensor", gamma: float) -> "Tensor":
    """Returns ``-(1 - p)^γ log p``, finite with its gradient for any logit."""
    from torch.nn import functional

    return -(gamma * functional.logsigmoid(-logits)).exp() * functional.logsigmoid(logits)
