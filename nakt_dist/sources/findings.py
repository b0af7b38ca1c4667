"""Chest X-ray findings: one vocabulary for all datasets, and what unsure labels count as.

Findings have CheXpert's names. A packed image keeps what its dataset says: 1 (present), 0
(absent), -1 (uncertain) or nothing (blank). A ``LabelPolicy`` turns that into targets when the
data are read, so that trying another policy needs no second packing.
"""

import functools
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from nakt_dist.errors import ConfigurationError, DatasetError, nearest_name

LabelUse = Literal["zero", "one", "ignore"]
OTHERWISE = "default"
"""Names, among uses by finding, that of the findings that are not named."""

NO_FINDING = "No Finding"
CHEXPERT_FINDINGS: tuple[str, ...] = (
    NO_FINDING, "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
CHESTXRAY14_FINDINGS: tuple[str, ...] = (
    "Atelectasis", "Cardiomegaly", "Pleural Effusion", "Infiltration", "Mass", "Nodule",
    "Pneumonia", "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis",
    "Pleural Thickening", "Hernia",
)  # fmt: skip
TORCHXRAYVISION_FINDINGS: tuple[str, ...] = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema",
    "Fibrosis", "Pleural Effusion", "Pneumonia", "Pleural Thickening", "Cardiomegaly", "Nodule",
    "Mass", "Hernia", "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
LABEL_SETS: dict[str, tuple[str, ...]] = {
    "chexpert": CHEXPERT_FINDINGS,
    "mimic_cxr": tuple(sorted(CHEXPERT_FINDINGS)),  # as the columns of its table
    "chestxray14": CHESTXRAY14_FINDINGS,
    "chestxray14_with_no_finding": (*CHESTXRAY14_FINDINGS, NO_FINDING),
    "torchxrayvision": TORCHXRAYVISION_FINDINGS,
    "shared": (
        "Atelectasis", "Cardiomegaly", "Pleural Effusion", "Pneumonia", "Pneumothorax",
        "Consolidation", "Edema", NO_FINDING,
    ),
}  # fmt: skip
"""By name, in the order of the published tables: so the outputs of networks of others lie that
learnt from them."""
_LONGEST_KEPT = 200
_TARGET = {"zero": 0.0, "one": 1.0, "ignore": np.nan}


@dataclass(frozen=True)
class LabelPolicy:
    """What a label that is neither present nor absent counts as.

    The default is U-zero with blanks as zero: a target is 1 only where the label is 1
    (paper B, "Labels").

    Attributes:
        uncertain: what -1 counts as: ``"zero"``, ``"one"`` or ``"ignore"``; or that by finding,
            and under ``OTHERWISE`` of all others.
        blank: what a missing label counts as: one of the three.
    """

    uncertain: LabelUse | dict[str, LabelUse] = "zero"
    blank: LabelUse = "zero"

    def __post_init__(self) -> None:
        one = {"uncertain": self.uncertain}
        own = {OTHERWISE: None, **self.uncertain} if isinstance(self.uncertain, dict) else one
        for name, value in {**own, "blank": self.blank}.items():
            if value not in get_args(LabelUse):
                raise ConfigurationError(
                    f"The label policy '{name}' is {value!r}{nearest_name(str(value), _TARGET)} "
                    f"(known: {', '.join(_TARGET)})"
                )

    def uses(self, finding: str) -> dict[int | None, float]:
        """Returns the target of each label of a finding: 1, 0, -1 and None, which is blank."""
        uncertain = use_of(self.uncertain, finding)
        return {1: 1.0, 0: 0.0, -1: _TARGET[uncertain], None: _TARGET[self.blank]}


def use_of(uses: Any, finding: str) -> Any:
    """Returns what an unsure label of a finding counts as: the use of all, or its own."""
    return uses.get(finding, uses.get(OTHERWISE)) if isinstance(uses, Mapping) else uses


def describe_use(uses: Any) -> str:
    """Returns words such as ``"zero"``, or ``"zero, of Edema one"``."""
    if not isinstance(uses, Mapping):
        return str(uses or "not said")
    own = [f", of {name} {use}" for name, use in uses.items() if name != OTHERWISE]
    return f"{uses.get(OTHERWISE)}{''.join(own)}"


def finding_form(name: str) -> str:
    """Returns the form that the spellings of a finding share.

    Letter case, blanks, underscores, signs without a width and the Unicode form of letters do not
    tell findings apart: ``Pleural_thickening`` is ``Pleural Thickening``.
    """
    return _short_form(name) if len(name) <= _LONGEST_KEPT else _short_form.__wrapped__(name)


@functools.lru_cache(maxsize=10_000)
def _short_form(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    shown = (sign for sign in folded if sign != "_" and unicodedata.category(sign) != "Cf")
    return "".join("".join(shown).split())


_CANONICAL = {finding_form(name): name for name in (*CHEXPERT_FINDINGS, *CHESTXRAY14_FINDINGS)}
_CANONICAL["effusion"] = "Pleural Effusion"
KNOWN_FORMS = frozenset(_CANONICAL)
"""Forms of the findings that have a common name."""


def canonical_finding(name: str) -> str:
    """Returns the common name of a published finding, such as that of ``Effusion``.

    A name without one is returned as it is. How it is spelt does not matter (``finding_form``).
    """
    return _CANONICAL.get(finding_form(name), name)


def resolve_label_names(
    names: str | Sequence[str] | None, available: Sequence[str]
) -> tuple[str, ...]:
    """Returns the findings that a setting asks for, in the order of the targets.

    Args:
        names: a name in ``LABEL_SETS``, a list of findings, or None for all that are available.
        available: the dataset's findings, in its order.

    Raises:
        ConfigurationError: the dataset has no findings; a name is unknown, stands there twice
            or is not labelled in this dataset; the list is empty.
    """
    if not available:
        raise ConfigurationError(
            "The dataset labels no findings; use one that was packed with a chest layout or a "
            "table of labels"
        )
    if names is None:
        return tuple(available)
    if isinstance(names, str):
        return _labels_of_set(names, available)
    if not names:
        raise ConfigurationError(
            f"The list of labels is empty; name some of {', '.join(available)}, or leave it out "
            "for all"
        )
    for name in names:
        if name not in available:
            raise ConfigurationError(
                f"The dataset has no label '{name}'{nearest_name(str(name), available)} "
                f"(known: {', '.join(available)})"
            )
        if list(names).count(name) > 1:
            raise ConfigurationError(f"The label '{name}' is listed twice; leave it there once")
    return tuple(names)


def _labels_of_set(name: str, available: Sequence[str]) -> tuple[str, ...]:
    if name not in LABEL_SETS:
        in_a_list = f"; write a single finding as a list: ['{name}']" if name in available else ""
        raise ConfigurationError(
            f"There is no label set '{name}'{nearest_name(name, LABEL_SETS)} "
            f"(known: {', '.join(LABEL_SETS)}){in_a_list}"
        )
    lacking = [finding for finding in LABEL_SETS[name] if finding not in available]
    if lacking:
        raise ConfigurationError(
            f"The label set '{name}' holds {', '.join(lacking)}, which this dataset does not "
            f"label; choose another set ('shared' crosses the chest datasets) or list some of "
            f"{', '.join(available)}"
        )
    return LABEL_SETS[name]


def targets(
    findings: Sequence[Mapping[str, int | None] | None], names: Sequence[str], policy: LabelPolicy
) -> np.ndarray:
    """Returns what a classifier should say about each image.

    Args:
        findings: per image the labels by finding: 1, 0 or -1; a finding that is not named, or
            is None, is blank. An image of which nothing is known (None) is ignored throughout.
        names: the findings wanted, in the order of the columns.
        policy: what -1 and blank count as.

    Returns:
        float32 of shape images × findings: 0, 1, or NaN where the label is ignored.

    Raises:
        DatasetError: a label is none of 1, 0, -1 and None.
    """
    values = np.full((len(findings), len(names)), np.nan, np.float32)
    uses = [(name, policy.uses(name)) for name in names]
    for row, labels in enumerate(findings):
        if labels is None:
            continue
        try:
            values[row] = [use[labels.get(name)] for name, use in uses]
        except (KeyError, TypeError):
            known = (1, 0, -1, None)
            wrong = {name: labels.get(name) for name in names if labels.get(name) not in known}
            raise DatasetError(
                f"The labels of image {row} hold {wrong}; expected 1, 0, -1 or nothing. Pack "
                "the dataset again"
            ) from None
    return values
