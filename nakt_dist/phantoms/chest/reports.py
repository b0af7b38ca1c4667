"""What the published tables say about a study: certain, uncertain and blank labels.

As in the published datasets, labels come from reports: faint signs are often called
uncertain and sometimes missed, absent ones are mostly not mentioned.
"""

from collections.abc import Mapping

from nakt_dist.phantoms.chest.drawing import ChestPhantom
from nakt_dist.phantoms.chest.findings import Sign
from nakt_dist.phantoms.chest.signs import MASS_RADIUS, lesion_radius
from nakt_dist.phantoms.fields import keyed_generator

CHEXPERT_LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
CHESTXRAY14_LABELS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
NO_FINDING = "No Finding"

# a label that is also given whenever one of its kinds is
_KINDS_OF = {
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
    "Lung Opacity": ("Edema", "Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis"),
}
_SHOWN_AS = {"Pleural Other": "Pleural Thickening"}
_CHESTXRAY14_SIGNS = {
    "Effusion": "Pleural Effusion", "Infiltration": "Lung Opacity", "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion", "Pleural_Thickening": "Pleural Thickening",
}  # fmt: skip
FAINT_UNCERTAIN, FAINT_CERTAIN = 0.6, 0.15  # the rest of the faint ones is not mentioned
CLEAR_UNCERTAIN, CLEAR_MISSED = 0.03, 0.01
ABSENT_UNCERTAIN = 0.015
# how often a report says that there is none
ABSENT_MENTIONED = {
    "Pneumothorax": 0.3, "Pleural Effusion": 0.22, "Edema": 0.15, "Consolidation": 0.18,
    "Cardiomegaly": 0.1, "Enlarged Cardiomediastinum": 0.1,
}  # fmt: skip
ABSENT_MENTIONED_ELSE = 0.03
LEAST_AGREED = 0.25  # severity from which a panel of readers agrees on a finding
FAINT_LISTED = 0.35  # share of the faint signs that ChestX-ray14 lists


def reported_labels(drawing: ChestPhantom) -> dict[str, int | None]:
    """Returns the CheXpert labels of a study as a report's reader gives them.

    Args:
        drawing: any image of the study.

    Returns:
        1, 0, -1 (uncertain) or None (not mentioned) for each of `CHEXPERT_LABELS`.
    """
    first = drawing.visit.first_image
    generator = keyed_generator(drawing.seed, f"{drawing.kind}/labels", first)
    values: dict[str, int | None] = {}
    for label, chance in zip(CHEXPERT_LABELS, generator.random(len(CHEXPERT_LABELS)), strict=True):
        sign = drawing.signs.get(_SHOWN_AS.get(label, label))
        values[label] = _reported(label, sign, float(chance))
    for label, kinds in _KINDS_OF.items():
        own = [values[kind] for kind in (label, *kinds)]
        values[label] = 1 if 1 in own else -1 if -1 in own else values[label]
    found = {name for name, value in values.items() if value in (1, -1)}
    values[NO_FINDING] = None if found - {NO_FINDING, "Support Devices"} else 1
    return values


def _reported(label: str, sign: Sign | None, chance: float) -> int | None:
    if sign is None:
        if chance < ABSENT_UNCERTAIN and label != "Support Devices":
            return -1
        mentioned = ABSENT_MENTIONED.get(label, ABSENT_MENTIONED_ELSE)
        return 0 if chance > 1 - mentioned else None
    if sign.is_faint and label != "Support Devices":
        if chance < FAINT_UNCERTAIN:
            return -1
        return 1 if chance < FAINT_UNCERTAIN + FAINT_CERTAIN else None
    if chance < CLEAR_MISSED:
        return None
    return -1 if chance > 1 - CLEAR_UNCERTAIN else 1


def agreed_labels(signs: Mapping[str, Sign]) -> dict[str, int]:
    """Returns the CheXpert labels that a panel of readers agrees on: 0 or 1 for each."""
    values = {}
    for label in CHEXPERT_LABELS:
        sign = signs.get(_SHOWN_AS.get(label, label))
        values[label] = int(sign is not None and sign.severity >= LEAST_AGREED)
    for label, kinds in _KINDS_OF.items():
        values[label] = max(values[kind] for kind in (label, *kinds))
    found = any(values[label] for label in CHEXPERT_LABELS[:-1])
    values[NO_FINDING] = int(not found)
    return values


def listed_findings(drawing: ChestPhantom) -> str:
    """Returns ChestX-ray14's `Finding Labels`: names joined by `|`, or `No Finding`."""
    first = drawing.visit.first_image
    generator = keyed_generator(drawing.seed, f"{drawing.kind}/labels", first)
    chances = generator.random(len(CHESTXRAY14_LABELS))
    listed = []
    for label, chance in zip(CHESTXRAY14_LABELS, chances, strict=True):
        sign = drawing.signs.get(_CHESTXRAY14_SIGNS.get(label, label))
        if sign is None or (sign.is_faint and chance >= FAINT_LISTED):
            continue
        is_mass = lesion_radius(sign) >= MASS_RADIUS
        if sign.finding != "Lung Lesion" or is_mass == (label == "Mass"):
            listed.append(label)
    return "|".join(sorted(listed)) or NO_FINDING
