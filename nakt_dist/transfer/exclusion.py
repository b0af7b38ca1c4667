"""Which pseudo-labelled images have a salient target (paper A, section 2, algorithm 1)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.limits import LARGEST_FACTOR, PATH, SPLITS, Limited, require, within

REFERENCE_PIXELS = 384 * 384
"""Image area, in pixels, for which the paper states α."""


FURTHER_LIMITS = {
    "smallest_confidence": "mean_confidence",
    "smallest_expected_dice": "expected_dice",
    "largest_disagreement": "teacher_disagreement",
}
"""Limits of ours beside α and β, and the statistic of a pseudo mask that each is of."""

_LIMIT = within(0, LARGEST_FACTOR, f"from 0 to {LARGEST_FACTOR:g}, or null for no limit")
_SHARE_OR_NONE = within(0, 1, "in [0, 1], or null for no limit")


@dataclass(frozen=True)
class Calibration(Limited, group="exclusion.calibration"):
    """A threshold as the teachers' masks of images of their own kind say it, without any label.

    A mask of a transferal image is trusted as long as the teachers are no less sure of it than
    they are of almost all images from where they learnt. Ours.

    Attributes:
        pseudo_labels: folder of pseudo masks by the same teachers, of such images; None once the
            threshold is found.
        splits: which of them, none learnt from by a teacher; None for all.
        percentile: share of them, in percent, that is no less sure than the threshold.
        measure: how sure: by ``entropy``, the threshold is β; by ``expected_dice``, it is
            ``smallest_expected_dice``, and β is left out.
    """

    pseudo_labels: str | None = field(metadata=PATH)
    splits: tuple[str, ...] | None = field(default=("validation",), metadata=SPLITS)
    percentile: float = field(default=95, metadata=within(0, 100, "from 0 to 100"))
    measure: Literal["entropy", "expected_dice"] = "entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "splits", self.splits and tuple(self.splits))

    @property
    def threshold(self) -> str:
        """The field of an exclusion rule that it finds."""
        return "beta" if self.measure == "entropy" else "smallest_expected_dice"

    @property
    def share(self) -> str:
        """What the threshold is, in words."""
        side = "below" if self.measure == "entropy" else "above"
        return f"{self.percentile:g} % of its teachers' own images are {side}"

    def find(self, values: np.ndarray) -> float:
        """Returns the threshold to three decimals, rounded so that the image of that value stays.

        Args:
            values: float64 (N,) with N > 0, ``measure`` of each of the images.
        """
        if self.measure == "entropy":
            return math.ceil(1000 * float(np.percentile(values, self.percentile))) / 1000
        return math.floor(1000 * float(np.percentile(values, 100 - self.percentile))) / 1000


@dataclass(frozen=True)
class ExclusionRule(Limited, group="exclusion"):
    """Drops images whose pseudo mask has too few target pixels or too much entropy.

    Paper A excludes an image when N < α or E > β (algorithm 1; its appendix's "and" is loose
    wording). N and E are those of the stored uint8 mask.

    Of masks with several classes, N counts the pixels whose most probable class is not the
    background, and E is the mean of the grey-level entropies of the classes' masks, which for one
    class are the paper's. Where most classes are absent from most images, that mean is small: a
    β for it is smaller, too, or each class is judged by itself.

    Attributes:
        alpha: fewest target pixels at 384 × 384; None leaves the rule out.
        beta: largest grey-level entropy in bits; None leaves the rule out. Never applied to
            the mean of binary teachers alone.
        combine: exclude when ``"either"`` rule says so, or only when ``"both"`` do.
        scale_alpha: scale α with the image's area, so that it stays the same share of the
            image; off as in the paper.
        smallest_confidence: of the mean over pixels of max(y, 1 - y), from 0.5 to 1; an image
            below is excluded, whatever α and β say. Ours; None leaves it out.
        smallest_expected_dice: of the Dice that the mask has if each pixel is target with the
            probability that the teachers give it, from 0 to 1; likewise. It says of a mask how far
            it can be trusted whatever its size, which entropy does not.
        largest_disagreement: of the mean standard deviation between teachers, from 0 to 0.5;
            likewise.
        judged: the ``image`` as a whole; or its classes, each by the pixels where it is the most
            probable and the entropy of its own mask: an image stays where ``any_class`` passes
            both rules, or where ``every_class`` does.
        classes: those that are judged; None for all but the background.
        calibration: where β, or ``smallest_expected_dice`` in its place, is to be found; None
            takes them as they are.
    """

    alpha: float | None = field(default=256, metadata=_LIMIT)
    beta: float | None = field(default=2.5, metadata=_LIMIT)
    combine: Literal["either", "both"] = "either"
    scale_alpha: bool = False
    smallest_confidence: float | None = field(default=None, metadata=_SHARE_OR_NONE)
    smallest_expected_dice: float | None = field(default=None, metadata=_SHARE_OR_NONE)
    largest_disagreement: float | None = field(
        default=None, metadata=within(0, 0.5, "in [0, 0.5], or null for no limit")
    )
    judged: Literal["image", "any_class", "every_class"] = "image"
    classes: tuple[str, ...] | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.calibration is None or self.judged == "image",
            "exclusion.judged",
            "image where exclusion.calibration is set",
        )
        asked = self.calibration
        if asked is not None and asked.pseudo_labels is not None:
            found = f"left out where exclusion.calibration finds {asked.threshold}"
            require(self.beta in (None, type(self).beta), "exclusion.beta", found)
            other = asked.threshold != "smallest_expected_dice"
            given = self.smallest_expected_dice is not None
            require(other or not given, "exclusion.smallest_expected_dice", found)
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
            by_class = self.judged != "image" and self.classes
            require(
                by_class,
                "exclusion.classes",
                "left out unless exclusion.judged is any_class "
                "or every_class, and then a list of classes",
            )

    def to_json(self) -> dict[str, Any]:
        """Returns what a lineage holds of it; what is not the paper's only where it is set."""
        value = asdict(self)
        for name in FURTHER_LIMITS:
            if value[name] is None:
                del value[name]
        if self.calibration is None:
            del value["calibration"]
        if self.judged == "image":
            del value["judged"], value["classes"]
        return value

    def judged_classes(self, known: Sequence[str]) -> tuple[str, ...]:
        """Returns the classes that are judged; empty where it is the image.

        Args:
            known: those of the masks, the background first; empty for one target.

        Raises:
            ConfigurationError: the masks have no classes, or not one of those named.
        """
        if self.judged == "image":
            return ()
        unknown = [name for name in self.classes or () if name not in known[1:]]
        if unknown or not known:
            raise ConfigurationError(
                f"exclusion.judged is {self.judged}, and "
                + (
                    f"exclusion.classes has '{unknown[0]}', which is none of the masks' classes"
                    f"{nearest_name(unknown[0], known[1:])} ({', '.join(known[1:])})"
                    if known
                    else "these masks have one target; set exclusion.judged to image"
                )
            )
        return self.classes or tuple(known[1:])

    def without(self, *names: str) -> "ExclusionRule":
        """Returns the rule without some thresholds, as if nothing had been found either."""
        none: dict[str, Any] = dict.fromkeys(names)
        return replace(self, calibration=None, **none)

    def with_found(self, values: np.ndarray) -> "ExclusionRule":
        """Returns the rule with the threshold of its calibration in place of β.

        Args:
            values: as for ``Calibration.find``.
        """
        assert self.calibration is not None
        found: dict[str, Any] = {
            "beta": None,
            self.calibration.threshold: self.calibration.find(values),
        }
        return replace(self, **found, calibration=replace(self.calibration, pseudo_labels=None))

    def sure(self, column: Callable[[str], np.ndarray]) -> np.ndarray | bool:
        """Says of which images the teachers are sure enough by ``FURTHER_LIMITS``.

        Args:
            column: gives a statistic of the masks by its name, float (N,).

        Returns:
            bool (N,), or True where no limit is set.
        """
        sure: np.ndarray | bool = True
        for name, statistic in FURTHER_LIMITS.items():
            limit = getattr(self, name)
            if limit is not None:
                values = column(statistic)
                passes = values >= limit if name.startswith("smallest") else values <= limit
                sure = sure & passes
        return sure

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
            target_pixels: int (N,), target pixels per image; by class (N, C).
            entropy: float (N,), bits per image; likewise.
            soft: whether any teacher gave soft masks; β applies only then.

        Returns:
            bool (N,).
        """
        assert self.calibration is None or self.calibration.pseudo_labels is None, (
            "the threshold is not found"
        )
        rules = []
        alpha = self.alpha_at(height, width)
        if alpha is not None:
            rules.append(target_pixels < alpha)
        if self.beta is not None and soft:
            rules.append(entropy > self.beta)
        if not rules:
            return np.ones(len(target_pixels), dtype=bool)
        join = np.logical_or if self.combine == "either" else np.logical_and
        passes = ~join.reduce(rules)
        if passes.ndim == 1:
            return passes
        return passes.any(1) if self.judged == "any_class" else passes.all(1)
