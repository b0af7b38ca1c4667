"""Which findings a classifier learns or is tested on, and what unsure labels count as."""

from dataclasses import dataclass

from nakt_dist.sources.labels import LabelUse


@dataclass(frozen=True)
class LabelConfig:
    """The findings of a packed dataset as targets; changing this needs no re-packing.

    Attributes:
        names: a label set (``chexpert``, ``mimic_cxr``, ``chestxray14``,
            ``chestxray14_with_no_finding``, ``shared``), or a list of findings; None for all
            that the dataset has.
        uncertain: what -1 counts as; None takes the manifest's policy (by default zero, paper B).
        blank: what a missing entry counts as; None takes the manifest's (by default zero).
    """

    names: str | list[str] | None = None
    uncertain: LabelUse | None = None
    blank: LabelUse | None = None
