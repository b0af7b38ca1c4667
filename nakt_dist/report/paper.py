"""The figures printed in the papers, and which of our datasets and networks they belong beside.

Paper A, "Network-Agnostic Knowledge Transfer for Medical Image Segmentation": its tables 2 to 7
and the teachers' Dice of its sections 5.1 and 5.2. Paper B, "Evaluating Knowledge Transfer in the
Neural Network for Medical Images": its tables 2, 3 and 5. Both as data in ``paper_figures``.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, TypeVar, get_type_hints

from nakt_dist.transfer.exclusion import ExclusionRule

NETWORKS = {
    "unet": "U-Net",
    "attention_unet": "AttU-Net",
    "sdu_net": "SDU-Net",
    "panoptic_fpn": "Panoptic-FPN",
    "deeplabv3plus": "DeepLabv3+",
    "densenet121": "DenseNet-121",
    "densenet40": "DenseNet-40",
}
"""Our names of the papers' networks, and the papers', in the order of their columns."""

CHEST_FINDINGS = {"CheXpert": 14, "MIMIC-CXR": 14, "ChestX-ray14": 15}
"""How many findings paper B's mean AUROC is over; none of them unsure: U-zero, also of blanks."""
IMAGE_SIZE = (384, 384)
CHEST_IMAGE_SIZE = (256, 256)
ENCODER = "resnet50"
EXCLUSION = ExclusionRule(scale_alpha=True)
"""The paper's thresholds; α, which it gives for 384 × 384 pixels, as a share of the image."""
ANNOTATED_IMAGES = 50
TEACHER_IMAGES = 1237
BREAST_LESION_2 = "Breast Lesion-2"
BAHEYA = "Baheya Breast Lesion"
TEST_IMAGES = {BREAST_LESION_2: 148, BAHEYA: 697}
EPOCHS = "500 epochs for the teacher, 30 to 500 for the students, 50 for fine-tuning"

# The beginnings of words in a name that say which of the papers' datasets it stands for.
_DATASETS = (
    (BAHEYA, "busi|baheya"),
    (None, "breast[ _-]?lesion[ _-]?1"),  # the teacher's own set; no table tests on it
    (BREAST_LESION_2, "breast[ _-]?lesion"),  # whole, tests are on what the teacher did not see
    (BAHEYA, "breast"),
    ("Thyroid Nodule", "ddti|tn3k|thyroid"),
    ("Nerve Structure", "nerve"),
    ("Skin Lesion", "isic|skin|dermoscopy"),
    ("PASCAL VOC2012", "voc|pascal|photographs"),
)
_CHEST_DATASETS = (
    ("CheXpert", "che?xpert"),
    ("MIMIC-CXR", "mimic"),
    ("ChestX-ray14", "chest[ _-]?x[ _-]?ray[ _-]?14|nih"),
    ("ImageNet", "imagenet"),
)
_TOLERANCE = 0.02
"""A training set this much larger or smaller than paper B's still stands beside it."""


@dataclass(frozen=True)
class PaperDice:
    """One Dice score of paper A, in percent, with the names that the paper uses.

    Attributes:
        where: the table or section that prints it, such as ``"table 2"``.
        role: ``teacher``, ``student``, ``fine-tuned student`` and the like.
        transferal_dataset: empty for teachers and from scratch.
        exclusion: whether images without a salient target were excluded.
        std: standard deviation over the test images.
    """

    where: str
    test_set: str
    role: str
    transferal_dataset: str
    exclusion: bool
    network: str
    mean: float
    std: float


@dataclass(frozen=True)
class PaperAuroc:
    """One mean AUROC of paper B over three repetitions, in percent, with the paper's names.

    Attributes:
        dataset: learnt from and tested on.
        samples: images learnt from; of table 5's 5,606 the 80 % that are not held out.
        initialisation: the dataset that the first weights come from.
        method: ``transfer learning`` or ``attention transfer``.
        teacher: the dataset that the teacher learnt from; empty for transfer learning.
        network: the student.
        trainable: parameters that learn, in millions.
        half_width: of the 95 % interval, in percentage points.
    """

    table: int
    dataset: str
    samples: int
    initialisation: str
    method: str
    teacher: str
    network: str
    trainable: float
    mean: float
    half_width: float

    @property
    def text(self) -> str:
        """As the paper prints it."""
        return f"{self.mean:.2f} ± {self.half_width:.2f}"


Printed = TypeVar("Printed", PaperDice, PaperAuroc)


def dataset_name(ours: str) -> str | None:
    """Returns paper A's dataset that one of ours stands for, judged by its name alone."""
    return _first_match(ours, _DATASETS)


def chest_dataset_name(ours: str) -> str | None:
    """Returns paper B's dataset that one of ours stands for, judged by its name alone."""
    return _first_match(ours, _CHEST_DATASETS)


def _first_match(ours: str, datasets: Sequence[tuple[str | None, str]]) -> str | None:
    for theirs, beginnings in datasets:
        if re.search(rf"(?<![a-z0-9])({beginnings})", ours.lower()):
            return theirs
    return None


def counterpart_test_sets(ours: str) -> tuple[str, ...]:
    """Returns paper A's test sets whose figures belong beside a test set of ours.

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
    """Finds the Dice scores of paper A beside which one of ours belongs.

    Args:
        test_dataset: our name of the test set.
        role: as in ``PaperDice``.
        transferal_dataset: our name of the transferal dataset; None where there is none.

    Returns:
        None, one, or one for each of two test sets.
    """
    theirs = "" if transferal_dataset is None else dataset_name(transferal_dataset)
    wanted = counterpart_test_sets(test_dataset)
    return [
        score
        for score in all_dice()
        if score.test_set in wanted
        and (score.role, score.network) == (role, network)
        and (score.transferal_dataset, score.exclusion) == (theirs, exclusion)
    ]


def find_capability(test_dataset: str, transferal_dataset: str) -> list[str]:
    """Returns paper A's knowledge-transfer capabilities, in percent, as text with the table."""
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
    """Returns paper A's numbers of images before and after exclusion (table 7)."""
    theirs = dataset_name(transferal_dataset)
    for row in _rows("exclusion.csv"):
        if row["dataset"] == theirs:
            return int(row["before"]), int(row["after"])
    return None


def find_auroc(
    dataset: str,
    samples: int,
    initialisation: str,
    network: str,
    trainable_parameters: int,
    teacher_dataset: str | None = None,
) -> list[PaperAuroc]:
    """Finds what paper B prints for a run like ours.

    Args:
        dataset: our name of the dataset learnt from and tested on.
        samples: images learnt from; the paper's may be 2 % more or fewer.
        initialisation: our name of where the first weights come from.
        teacher_dataset: our name of what the teacher learnt from; None for transfer learning.

    Returns:
        Empty where the paper has no such run.
    """
    teacher = "" if teacher_dataset is None else chest_dataset_name(teacher_dataset)
    names = (chest_dataset_name(dataset), chest_dataset_name(initialisation), network, teacher)
    return [
        each
        for each in all_auroc()
        if (each.dataset, each.initialisation, each.network, each.teacher) == names
        and each.trainable == round(trainable_parameters / 1e6, 1)
        and abs(samples - each.samples) <= _TOLERANCE * each.samples
    ]


def all_dice() -> tuple[PaperDice, ...]:
    """Returns every Dice score of paper A, in its order."""
    return _read("dice.csv", PaperDice)


def all_auroc() -> tuple[PaperAuroc, ...]:
    """Returns every AUROC of paper B, in its order."""
    return _read("auroc.csv", PaperAuroc)


@cache
def _read(name: str, kind: type[Printed]) -> tuple[Printed, ...]:
    """Reads a table whose columns are called like the fields of what it holds."""

    def value(text: str, of: Any) -> Any:
        return text == "yes" if of is bool else of(text)

    types = get_type_hints(kind)
    return tuple(
        kind(**{field: value(row[field], of) for field, of in types.items()}) for row in _rows(name)
    )


@cache
def _rows(name: str) -> tuple[Mapping[str, str], ...]:
    path = resources.files("nakt_dist.report") / "paper_figures" / name
    return tuple(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
