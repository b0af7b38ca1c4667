"""What is target in the masks of a dataset, applied to one mask."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.mask_levels import MaskLevels
from nakt_dist.imaging.mask_survey import MaskSummary, Meaning, meaning, tell_values

HOW_TO_SAY = (
    "Say which values are target: mask_values.target '[1]' (with mask_values.void '[255]' for a "
    "border that is neither), mask_values.target nonzero for every value but 0, or "
    "mask_values.threshold 128 for soft masks; or save the masks as 0 and 255"
)

HOW_TO_SAY_LOSSY = (
    "A lossy file keeps no value exactly: save the masks as PNG, from what they were made of, or "
    "say with mask_values.threshold where the target begins"
)


def how_to_say(summaries: Iterable[MaskSummary]) -> str:
    """Returns what to do about masks that cannot be read."""
    return HOW_TO_SAY_LOSSY if all(each["lossy"] for each in summaries) else HOW_TO_SAY


@dataclass(frozen=True)
class MaskRule:
    """What is target in the binary masks of one dataset.

    Attributes:
        targets: values of the target. Judged: each mask may hold 0 and one of them, or noise
            around 0 and it. Named: whatever the mask holds besides; colours as ``"#ff0000"``.
        void: values that count as neither.
        nonzero: every value but 0 and void is target.
        threshold: the target begins here; None otherwise.
        named: the settings say so, and it is not judged mask by mask.
        turn_masks: masks that say no EXIF orientation are turned as their image.
        alpha: in a mask of one colour and one transparency, the transparency tells.
        classes: values of several classes in the order of their indices, the background first;
            they are named, and nothing is target.
    """

    targets: tuple[int | float | str, ...] = ()
    void: tuple[int | str, ...] = ()
    nonzero: bool = False
    threshold: float | None = None
    named: bool = False
    alpha: bool = False
    turn_masks: bool = False
    classes: tuple[tuple[int | str, ...], ...] = ()

    @property
    def needs_colours(self) -> bool:
        """Whether values are named by colour, so that no hue may be taken for grey."""
        named = (*self.targets, *self.void, *itertools.chain.from_iterable(self.classes))
        return any(isinstance(value, str) for value in named)

    def accepts(self, summary: MaskSummary) -> bool:
        """Says whether a judged rule can read a mask.

        Args:
            summary: of a mask without problem.
        """
        form, value = self.meaning(summary)
        if form == "unclear":
            return False
        if form == "constant" and (value == 0 or summary["one_bit"]):
            return True
        # JPEG leaves flat areas of 253, also in a PNG that was made of it
        whitish = 192 if summary["lossy"] else 240
        near_white = whitish <= value <= 255 and summary["kind"] == "numbers"
        return value in self.targets or (255 in self.targets and (near_white or form == "dark"))

    def find_target(
        self, levels: MaskLevels, summary: MaskSummary
    ) -> tuple[np.ndarray, dict[str, int]]:
        """Finds the target of one mask.

        Args:
            levels: the mask, with colours where ``needs_colours``.

        Returns:
            bool (height, width), and how many pixels are ``void`` and how many hold ``other``
            values, neither 0 nor named; both are background.

        Raises:
            UnusableSample: ``mask_values_unclear``.
        """
        if self.named:
            return self._find_named(levels, summary)
        if not self.accepts(summary):
            seen = " or ".join(f"0 and {value:g}" for value in self.targets) or "0 alone"
            raise UnusableSample(
                "mask_values_unclear",
                f"'{summary['name']}' holds {tell_values(summary)}; expected {seen}, as the other "
                f"masks do. {how_to_say([summary])}",
            )
        form, value = self.meaning(summary)
        values = self._values(levels)
        if form == "soft" or (form in ("constant", "pair") and summary["lossy"]):
            return values >= value / 2 if value else values > 0, {"void": 0, "other": 0}
        if form == "dark":
            return np.zeros(values.shape, dtype=bool), {"void": 0, "other": 0}
        return values != 0, {"void": 0, "other": 0}

    def find_classes(
        self, levels: MaskLevels, summary: MaskSummary, void: int
    ) -> tuple[np.ndarray, dict[str, int]]:
        """Finds the class of each pixel of one mask, where ``classes`` names them.

        Args:
            levels: as for ``find_target``.
            void: index of what is void.

        Returns:
            uint8 (height, width), class indices; and how many pixels hold ``other`` values, packed
            as background.

        Raises:
            UnusableSample: ``mask_values_unclear``: it was compressed with loss.
        """
        if summary["lossy"]:
            raise UnusableSample(
                "mask_values_unclear",
                f"'{summary['name']}' holds {tell_values(summary)}, of which classes cannot be "
                f"told. {HOW_TO_SAY_LOSSY}",
            )
        values = self._values(levels)
        indices = np.zeros(values.shape, np.uint8)
        known = values == 0
        for index, named in (*enumerate(self.classes), (void, self.void)):
            found = np.isin(values, self.codes(named, summary))
            indices[found] = index
            known |= found
        return indices, {"other": int((~known).sum())}

    def _find_named(
        self, levels: MaskLevels, summary: MaskSummary
    ) -> tuple[np.ndarray, dict[str, int]]:
        codes = levels.kind == "colours"
        if codes and not (self.nonzero or self.needs_colours):
            raise UnusableSample(
                "mask_values_unclear",
                f"'{summary['name']}' holds {tell_values(summary)}; expected the numbers that "
                "mask_values names. Name its colours, such as mask_values.target '[\"#ff0000\"]'",
            )
        values = self._values(levels)
        if self.threshold is None:
            values = self._without_noise(values, summary)
        void = np.isin(values, self.codes(self.void, summary))
        if self.nonzero:
            target = values != 0
        elif self.threshold is not None:
            target = values >= self.threshold
        else:
            target = np.isin(values, self.codes(self.targets, summary))
        target &= ~void
        known = target | void | (values == 0)
        told = self.threshold is not None or 0 in self.targets  # of an inverted mask, the rest
        other = 0 if told else int(known.size - known.sum())
        return target, {"void": int(void.sum()), "other": other}

    def _without_noise(self, values: np.ndarray, summary: MaskSummary) -> np.ndarray:
        """Returns the values; noise and blur brought to 0 and full scale, cut at the middle.

        A soft mask without loss may also be asked for one of its levels, which is left exact.
        """
        form, top = self.meaning(summary)
        if form == "constant" and (top == 0 or summary["kind"] == "colours"):
            return values
        if form == "dark" or (form == "constant" and summary["lossy"] and top >= 192):
            top = 255
        targets, void = (
            set(self.codes(named, summary)) - {0} for named in (self.targets, self.void)
        )
        bright = targets | void
        if not summary["lossy"]:
            if form != "soft" or not bright <= {top}:
                return values
        elif form == "unclear" or (targets and void) or any(abs(v - top) > top / 4 for v in bright):
            named = ", ".join(map(str, (*self.targets, *self.void))) or "every value but 0"
            raise UnusableSample(
                "mask_values_unclear",
                f"'{summary['name']}' holds {tell_values(summary)}, in which {named} cannot be "
                f"told from noise. {HOW_TO_SAY_LOSSY}",
            )
        return np.where(values >= top / 2, max(bright, default=top), 0)

    def _values(self, levels: MaskLevels) -> np.ndarray:
        if self.alpha and levels.carrier == "neither":
            return np.full(levels.values.shape, levels.alpha, np.uint8)
        return levels.values

    @staticmethod
    def codes(values: Sequence[int | float | str], summary: MaskSummary) -> list[int | float]:
        """Returns those of the named values that a mask of colours, or another, may hold."""
        named = [value for value in values if isinstance(value, str)]
        if summary["kind"] == "colours":
            return [int(value[1:], 16) for value in named]
        levels = [
            int(v[1:3], 16) for v in named if v[1:3].lower() == v[3:5].lower() == v[5:].lower()
        ]
        return [*(value for value in values if not isinstance(value, str)), *levels]

    def meaning(self, summary: MaskSummary) -> Meaning:
        """Says how a mask can be read; where transparency tells, also one of a single colour."""
        if self.alpha and summary["carrier"] == "neither":
            return Meaning("constant", summary["alpha"])
        return meaning(summary)
