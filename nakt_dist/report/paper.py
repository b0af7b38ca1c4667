"""The figures printed in the paper, and which of our datasets and networks they belong beside.

"Network-Agnostic Knowledge Transfer for Medical Image Segmentation" (paper A): its tables
2 to 7 and the teachers' Dice of its sections 5.1 and 5.2, as data in ``paper_figures``.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

NETWORKS = {
    "unet": "U-Net",
    "attention_unet": "AttU-Net",
    "sdu_net": "SDU-Net",
    "panoptic_fpn": "Panoptic-FPN",
    "deeplabv3plus": "DeepLabv3+",
}
"""Our names of the paper's networks, and the paper's, in the order of its columns."""

IMAGE_SIZE = (384, 384)
ENCODER = "resnet50"
ANNOTATED_IMAGES = 50
TEACHER_IMAGES = 1237
BREAST_LESION_2 = "Breast Lesion-2"
BAHEYA = "Baheya Breast Lesion"
TEST_IMAGES = {BREAST_LESION_2: 148, BAHEYA: 697}
EPOCHS = "500 epochs for the teacher, 30 to 500 for the students, 50 for fine-tuning"

# The beginnings of words in a dataset's name that say which of the paper's it stands for.
_DATASETS = (
    (BREAST_LESION_2, ("breast[ _-]?lesion[ _-]?2",)),
    (None, ("breast[ _-]?lesion[ _-]?1",)),  # the teacher's own set; no table tests on it
    (BAHEYA, ("busi", "baheya", "breast")),
    ("Thyroid Nodule", ("ddti", "tn3k", "thyroid")),
    ("Nerve Structure", ("nerve",)),
    ("Skin Lesion", ("isic", "skin", "dermoscopy")),
    ("PASCAL VOC2012", ("voc", "pascal", "photographs")),
)


@dataclass(frozen=True)
class PaperDice:
    """One Dice score of the paper.

    Attributes:
        where: the table or section that prints it, such as ``"table 2"``.
        test_set: as the paper calls it.
        role: ``teacher``, ``student``, ``fine-tuned student`` and the like.
        transferal_dataset: as the paper calls it; empty for teachers and from scratch.
        exclusion: whether images without a salient target were excluded.
        network: as the paper calls it.
        mean: mean over the test images, in percent.
        std: standard deviation over the test images, in percent.
    """

    where: str
    test_set: str
    role: str
    transferal_dataset: str
    exclusion: bool
    network: str
    mean: float
    std: float


def dataset_name(ours: str) -> str | None:
    """Returns the paper's dataset that one of ours stands for, judged by its name alone."""
    for theirs, beginnings in _DATASETS:
        if re.search(rf"(?<![a-z0-9])({'|'.join(beginnings)})", ours.lower()):
            return theirs
    return None


def counterpart_test_sets(ours: str) -> tuple[str, ...]:
    """Returns the paper's test sets whose figures belong beside a test set of ours.

    A breast set gets two: Breast Lesion-2 comes from the teacher's own source (table 2), and
    the public Baheya set from another one (table 3).
    """
    theirs = dataset_name(ours)
    if theirs == BAHEYA:
        return (BREAST_LESION_2, BAHEYA)
    return () if theirs is None else (theirs,)


def find_dice(
    test_dataset: str,
    role: str,
    network: str,
    transferal_dataset: str | None = None,
    exclusion: bool = False,
) -> list[PaperDice]:
    """Finds the paper's Dice scores beside which one of ours belongs.

    Args:
        test_dataset: our name of the test set.
        role: as in ``PaperDice``.
        network: the paper's name of the network.
        transferal_dataset: our name of the transferal dataset; None where there is none.
        exclusion: whether images were excluded.

    Returns:
        None, one, or one for each of two test sets.
    """
    theirs = "" if transferal_dataset is None else dataset_name(transferal_dataset)
    wanted = counterpart_test_sets(test_dataset)
    return [
        score
        for score in _dice()
        if score.test_set in wanted
        and (score.role, score.network) == (role, network)
        and (score.transferal_dataset, score.exclusion) == (theirs, exclusion)
    ]


def find_capability(test_dataset: str, transferal_dataset: str) -> list[str]:
    """Returns the paper's knowledge-transfer capabilities, in percent, as text with the table."""
    theirs, wanted = dataset_name(transferal_dataset), counterpart_test_sets(test_dataset)
    found = []
    for row in _rows("capability.csv"):
        if row["test_set"] in wanted and row["transferal_dataset"] == theirs:
            misprint = (
                f", printed as {row['printed']}" if row["printed"] != row["capability"] else ""
            )
            found.append(f"{row['capability']} ({row['where']}{misprint})")
    return found


def find_exclusion(transferal_dataset: str) -> tuple[int, int] | None:
    """Returns the paper's numbers of images before and after exclusion (table 7)."""
    theirs = dataset_name(transferal_dataset)
    for row in _rows("exclusion.csv"):
        if row["dataset"] == theirs:
            return int(row["before"]), int(row["after"])
    return None


@cache
def _dice() -> tuple[PaperDice, ...]:
    return tuple(_read_dice())


def _read_dice() -> Iterator[PaperDice]:
    for row in _rows("dice.csv"):
        values: dict[str, Any] = dict(row)
        values |= {"mean": float(row["mean"]), "std": float(row["std"])}
        yield PaperDice(**values | {"exclusion": row["exclusion"] == "yes"})


@cache
def _rows(name: str) -> tuple[Mapping[str, str], ...]:
    path = resources.files("nakt_dist.report") / "paper_figures" / name
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple(csv.DictReader(stream))
