"""The three hospitals: who comes, how their films are taken and how they are developed."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from nakt_dist.phantoms.chest.cohort import Habits

Corner = Literal["top left", "top right", "bottom left", "bottom right"]


@dataclass(frozen=True)
class Hospital:
    """One hospital; ranges are (least, most).

    Attributes:
        name: kind of phantom, which also keys its random numbers.
        habits: what its studies consist of.
        aspects: widths over heights of its films, drawn with equal chances.
        lung_height: length of the lungs on the film, as a fraction of its height.
        drift: how far the chest lies off the middle, in image heights.
        tilt: largest rotation of the chest on the film, in radians.
        contrast: exponent of the grey curve; above 1 darkens the middle.
        equalised: share of histogram equalisation in the grey curve, 0 to 1.
        blackest: grey level of unhindered rays, 0 to 1.
        whitest: grey level of the densest parts, 0 to 1.
        grain: standard deviation of the noise.
        blur: how many times the film is softened.
        collimated: share of films with black margins.
        marker: where the letter of the side is burned in.
        word: where films taken in bed say so.
        graphic: how they say so: letters in a box, letters over an arrow, or an arrow alone.
    """

    name: str
    habits: Habits
    aspects: tuple[float, ...]
    lung_height: tuple[float, float]
    drift: float
    tilt: float
    contrast: tuple[float, float]
    equalised: tuple[float, float]
    blackest: tuple[float, float]
    whitest: tuple[float, float]
    grain: tuple[float, float]
    blur: int
    collimated: float
    marker: Corner
    word: Corner
    graphic: Literal["box", "letters and arrow", "arrow"]


_HOSPITALS = (
    Hospital(
        name="chest_chexpert",
        habits=Habits(with_lateral=0.28, two_frontal=0.12, only_lateral=0.03, portable=0.72),
        aspects=(1.2, 1.2, 0.83),
        lung_height=(0.58, 0.70),
        drift=0.05,
        tilt=0.07,
        contrast=(1.25, 1.75),
        equalised=(0.0, 0.1),
        blackest=(0.0, 0.03),
        whitest=(0.80, 0.95),
        grain=(0.018, 0.035),
        blur=1,
        collimated=0.6,
        marker="top left",
        word="top right",
        graphic="box",
    ),
    Hospital(
        name="chest_mimic",
        habits=Habits(with_lateral=0.45, two_frontal=0.12, only_lateral=0.04, portable=0.6),
        aspects=(0.83, 1.2, 0.83),
        lung_height=(0.60, 0.74),
        drift=0.035,
        tilt=0.045,
        contrast=(0.95, 1.2),
        equalised=(0.55, 0.8),
        blackest=(0.0, 0.02),
        whitest=(0.97, 1.0),
        grain=(0.008, 0.018),
        blur=0,
        collimated=0.25,
        marker="top right",
        word="bottom left",
        graphic="letters and arrow",
    ),
    Hospital(
        name="chest_chestxray14",
        habits=Habits(with_lateral=0.0, two_frontal=0.0, only_lateral=0.0, portable=0.4),
        aspects=(1.0,),
        lung_height=(0.62, 0.76),
        drift=0.03,
        tilt=0.04,
        contrast=(0.7, 0.95),
        equalised=(0.0, 0.2),
        blackest=(0.02, 0.10),
        whitest=(0.88, 1.0),
        grain=(0.012, 0.03),
        blur=1,
        collimated=0.35,
        marker="bottom right",
        word="top left",
        graphic="arrow",
    ),
)

HOSPITALS: Mapping[str, Hospital] = MappingProxyType(
    {hospital.name: hospital for hospital in _HOSPITALS}
)
