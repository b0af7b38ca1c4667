"""What is wrong with the patients: findings, how often they occur together, how clear they are."""

from collections.abc import Mapping
from dataclasses import dataclass

from numpy.random import Generator

from nakt_dist.phantoms.fields import keyed_generator

FAINT_SHARE = 0.22
CLEAR = 0.4  # severities below are faint: readers disagree over them

# findings of the patient stay from one study to the next, the others come and go
LASTING = (
    "Cardiomegaly", "Enlarged Cardiomediastinum", "Emphysema", "Fibrosis", "Hernia",
    "Pleural Thickening", "Lung Lesion", "Fracture",
)  # fmt: skip
PASSING = (
    "Edema", "Pleural Effusion", "Consolidation", "Pneumonia", "Lung Opacity", "Atelectasis",
    "Pneumothorax", "Support Devices",
)  # fmt: skip
SIGNS = LASTING + PASSING
PASSING_STAYS = 0.4

# how likely a condition makes each finding
_CONDITIONS: Mapping[str, Mapping[str, float]] = {
    "failing heart": {"Cardiomegaly": 0.75, "Edema": 0.55, "Pleural Effusion": 0.55},
    "infection": {"Consolidation": 0.45, "Pneumonia": 0.5, "Pleural Effusion": 0.2},
    "injury": {"Fracture": 0.4, "Pneumothorax": 0.5, "Lung Opacity": 0.15},
    "smoking": {"Emphysema": 0.4, "Lung Lesion": 0.4, "Pneumothorax": 0.1},
    "scarring": {"Fibrosis": 0.4, "Pleural Thickening": 0.45, "Atelectasis": 0.15},
    "intensive care": {
        "Support Devices": 0.85, "Atelectasis": 0.3, "Pleural Effusion": 0.15, "Edema": 0.1,
        "Pneumothorax": 0.1,
    },
    "other": {
        "Cardiomegaly": 0.08, "Enlarged Cardiomediastinum": 0.12, "Edema": 0.03,
        "Pleural Effusion": 0.1, "Consolidation": 0.05, "Pneumonia": 0.04, "Lung Opacity": 0.12,
        "Atelectasis": 0.14, "Pneumothorax": 0.06, "Lung Lesion": 0.1, "Fracture": 0.03,
        "Pleural Thickening": 0.03, "Hernia": 0.03, "Emphysema": 0.02, "Fibrosis": 0.02,
        "Support Devices": 0.1,
    },
}  # fmt: skip
_CONDITION_SHARES = {
    "failing heart": 0.26, "infection": 0.25, "injury": 0.17, "smoking": 0.18, "scarring": 0.14,
}  # fmt: skip
HEALTHY_SHARE = 0.2


@dataclass(frozen=True)
class Sign:
    """One finding of one study, as the films show it.

    Attributes:
        finding: one of `SIGNS`.
        severity: above 0 to 1; below `CLEAR` the sign is faint.
        side: -1 the patient's right, 1 the left.
        lateral: 0 at the medial edge of the lung to 1 at the lateral edge.
        height: 0 at the apex to 1 at the diaphragm.
        depth: 0 at the front to 1 at the back.
        form: 0 to 1, which of the forms that the finding has.
    """

    finding: str
    severity: float
    side: int
    lateral: float
    height: float
    depth: float
    form: float

    @property
    def is_faint(self) -> bool:
        """Whether readers disagree over it."""
        return self.severity < CLEAR


def draw_conditions(generator: Generator) -> tuple[str, ...]:
    """Draws what a patient suffers from: names of conditions, none for a healthy one."""
    is_healthy = generator.random() < HEALTHY_SHARE
    chances = generator.random(len(_CONDITION_SHARES))
    if is_healthy:
        return ()
    shares = zip(_CONDITION_SHARES.items(), chances, strict=True)
    return ("other", *(name for (name, share), chance in shares if chance < share))


def draw_signs(
    generator: Generator, conditions: tuple[str, ...], findings: tuple[str, ...]
) -> dict[str, Sign]:
    """Draws which of the findings there are, where and how severe.

    Args:
        generator: source of random numbers; as many are taken whatever the outcome.

    Returns:
        The signs by finding, in the order of `findings`.
    """
    numbers = generator.random((len(findings), 8))
    signs = {}
    for finding, row in zip(findings, numbers, strict=True):
        absent = 1.0
        for condition in conditions:
            absent *= 1 - _CONDITIONS[condition].get(finding, 0.0)
        if row[0] < absent:
            continue
        is_faint = row[1] < FAINT_SHARE
        severity = 0.15 + 0.2 * row[2] if is_faint else 0.45 + 0.55 * row[2]
        side = 1 if row[3] < 0.5 else -1
        signs[finding] = Sign(finding, float(severity), side, *(float(v) for v in row[4:]))
    return signs


def study_signs(
    seed: int, stream: str, patient: int, study: int, is_portable: bool
) -> dict[str, Sign]:
    """Returns what the films of one study show.

    Args:
        patient: number of the patient, from 0.
        study: number of the study, unique in the dataset.
        is_portable: whether the film was taken in bed, as that of very ill patients is.
    """
    of_patient = keyed_generator(seed, f"{stream}/findings of patients", patient)
    of_study = keyed_generator(seed, f"{stream}/findings of studies", study)
    conditions = draw_conditions(of_patient)
    lasting = draw_signs(of_patient, conditions, LASTING)
    usual = draw_signs(of_patient, conditions, PASSING)
    if is_portable and conditions and of_study.random() < 0.6:
        conditions = (*conditions, "intensive care")
    present = draw_signs(of_study, conditions, PASSING)
    stays = of_study.random(len(PASSING)) < PASSING_STAYS
    for finding, stay in zip(PASSING, stays, strict=True):
        if stay and finding in usual:
            present[finding] = usual[finding]
        elif stay and finding != "Support Devices":
            present.pop(finding, None)
    return {**lasting, **present}
