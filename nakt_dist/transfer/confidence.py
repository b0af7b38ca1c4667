"""Which pseudo-findings are sure enough to learn from: what α and β are for masks."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited, within

_ROUNDING = 1e-5
"""More than what was stored of an answer is off by, and less than the next one is away."""

_PROBABILITY = within(0, 1, "in [0, 1], or null for no limit")
_DISAGREEMENT = within(0, 0.5, "in [0, 0.5], or null for no limit")


@dataclass(frozen=True)
class ConfidenceRule(Limited, group="confidence"):
    """Drops findings of which the teachers are not sure, image by image.

    Two thresholds as of UPS (arXiv 2101.06329, equation 5), with the spread between teachers as
    uncertainty in place of dropout's. An image of which no finding is left is excluded.

    Attributes:
        positive: smallest probability of a finding that counts as present.
        negative: largest probability of one that counts as absent. Between the two a finding is
            ignored; null, for both, ignores none.
        largest_disagreement: largest standard deviation between teachers; null for no limit.
        targets: ``soft`` learns the probability, ``hard`` 1 from 0.5 on and 0 below.
    """

    positive: float | None = field(default=None, metadata=_PROBABILITY)
    negative: float | None = field(default=None, metadata=_PROBABILITY)
    largest_disagreement: float | None = field(default=None, metadata=_DISAGREEMENT)
    targets: Literal["soft", "hard"] = "soft"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.positive is None) != (self.negative is None) or (
            self.positive is not None
            and self.negative is not None
            and not self.negative < self.positive
        ):
            raise ConfigurationError(
                f"confidence.positive is {self.positive} and confidence.negative {self.negative}; "
                "set both, the negative one below the positive one, or both to null"
            )

    def judge(self, probability: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
        """Makes targets of what teachers say.

        At a limit an answer counts, whichever way it was rounded when it was stored.

        Args:
            probability: float (N, K) in [0, 1]; NaN where no teacher knows the finding.
            disagreement: float (N, K) in [0, 0.5]; likewise.

        Returns:
            float32 (N, K) in [0, 1]; NaN where a finding is to be ignored.
        """
        dropped = np.isnan(probability)
        if self.positive is not None and self.negative is not None:
            below = probability < self.positive - _ROUNDING
            dropped |= below & (probability > self.negative + _ROUNDING)
        if self.largest_disagreement is not None:
            dropped |= disagreement > self.largest_disagreement + _ROUNDING
        targets = probability >= 0.5 if self.targets == "hard" else probability
        return np.where(dropped, np.nan, targets).astype(np.float32)


EVERYTHING = ConfidenceRule()
"""Learns every probability as it is."""
