"""Which pseudo-labelled images have a salient target (paper A, section 2, algorithm 1)."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nakt_dist.limits import LARGEST_FACTOR, Limited, within

REFERENCE_PIXELS = 384 * 384
"""Image area, in pixels, for which the paper states α."""


_LIMIT = within(0, LARGEST_FACTOR, f"from 0 to {LARGEST_FACTOR:g}, or null for no limit")


@dataclass(frozen=True)
class ExclusionRule(Limited, group="exclusion"):
    """Drops images whose pseudo mask has too few target pixels or too much entropy.

    Paper A excludes an image when N < α or E > β (algorithm 1; its appendix's "and" is loose
    wording). N and E are those of the stored uint8 mask.

    Attributes:
        alpha: fewest target pixels at 384 × 384; None leaves the rule out.
        beta: largest grey-level entropy in bits; None leaves the rule out. Never applied to
            the mean of binary teachers alone.
        combine: exclude when ``"either"`` rule says so, or only when ``"both"`` do.
        scale_alpha: scale α with the image's area, so that it stays the same share of the
            image; off as in the paper.
    """

    alpha: float | None = field(default=256, metadata=_LIMIT)
    beta: float | None = field(default=2.5, metadata=_LIMIT)
    combine: Literal["either", "both"] = "either"
    scale_alpha: bool = False

    def alpha_at(self, height: int, width: int) -> float | None:
        """Returns α in pixels for images of a size."""
        if self.alpha is None or not self.scale_alpha:
            return self.alpha
        return self.alpha * height * width / REFERENCE_PIXELS

    def kept(
        self, target_pixels: np.ndarray, entropy: np.ndarray, height: int, width: int, soft: bool
    ) -> np.ndarray:
        """Says which images stay.

        Args:
            target_pixels: int (N,), target pixels per image.
            entropy: float (N,), bits per image.
            height: rows of the masks.
            width: columns of the masks.
            soft: whether any teacher gave soft masks; β applies only then.

        Returns:
            bool (N,).
        """
        rules = []
        alpha = self.alpha_at(height, width)
        if alpha is not None:
            rules.append(target_pixels < alpha)
        if self.beta is not None and soft:
            rules.append(entropy > self.beta)
        if not rules:
            return np.ones(len(target_pixels), dtype=bool)
        join = np.logical_or if self.combine == "either" else np.logical_and
        return ~join.reduce(rules)
