"""The patients themselves: sex, age and build."""

from dataclasses import dataclass

from nakt_dist.phantoms.fields import keyed_generator


@dataclass(frozen=True)
class Body:
    """One patient's build, in lung heights where it is a length.

    Attributes:
        is_female: sex.
        age: years at the first study.
        half_width: from the midline to the side of the lungs.
        depth: from the front to the back of the lungs.
        fat: 0 slim to 1 obese.
        heart: width of a healthy heart over that of the chest.
        rib_spacing: from one rib to the next.
        rib_phase: place of the first rib, 0 to 1 spacing.
        bone: how dense the bones are, 0 to 1; falls with age.
        dome: how much higher the right half of the diaphragm stands than the left.
    """

    is_female: bool
    age: int
    half_width: float
    depth: float
    fat: float
    heart: float
    rib_spacing: float
    rib_phase: float
    bone: float
    dome: float


def draw_body(seed: int, stream: str, patient: int) -> Body:
    """Draws one patient.

    Args:
        patient: number of the patient, from 0.
    """
    generator = keyed_generator(seed, f"{stream}/bodies", patient)
    age = round(18 + 74 * generator.beta(2.2, 1.7))
    return Body(
        is_female=bool(generator.random() < 0.45),
        age=age,
        half_width=generator.uniform(0.53, 0.64),
        depth=generator.uniform(0.68, 0.86),
        fat=generator.beta(1.4, 2.2),
        heart=generator.uniform(0.38, 0.475),
        rib_spacing=generator.uniform(0.086, 0.102),
        rib_phase=generator.random(),
        bone=generator.uniform(0.75, 1.0) - 0.003 * max(age - 50, 0),
        dome=generator.uniform(0.0, 0.06),
    )
