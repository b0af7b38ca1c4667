"""The AUROC printed in paper B, and beside which of our runs each may stand.

"Evaluating Knowledge Transfer in the Neural Network for Medical Images" (paper B): its tables
2, 3 and 5, as data in ``paper_figures/auroc.csv``.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

NETWORKS = {"densenet121": "DenseNet-121", "densenet40": "DenseNet-40"}
"""Our names of the paper's networks, and the paper's, in its order."""

IMAGE_SIZE = (256, 256)
SEEDS = 3
TRANSFER_LEARNING, ATTENTION_TRANSFER = "transfer learning", "attention transfer"

# The beginnings of words in a name that say which of the paper's datasets it stands for.
_DATASETS = (
    ("CheXpert", "che?xpert"),
    ("MIMIC-CXR", "mimic"),
    ("ChestX-ray14", "chest[ _-]?x[ _-]?ray[ _-]?14|nih"),
    ("ImageNet", "imagenet"),
)
_TOLERANCE = 0.02
"""A training set this much larger or smaller than the paper's still stands beside it."""


@dataclass(frozen=True)
class PaperAuroc:
    """One mean AUROC of the paper, over three repetitions.

    Attributes:
        table: its number.
        dataset: learnt from and tested on, as the paper calls it.
        samples: images learnt from.
        initialisation: the dataset that the first weights come from.
        method: ``transfer learning`` or ``attention transfer``.
        teacher: the dataset that the teacher learnt from; empty for transfer learning.
        network: the student, as the paper calls it.
        trainable: parameters that learn, in millions.
        mean: in percent.
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


def dataset_name(ours: str) -> str | None:
    """Returns the paper's dataset that a name of ours stands for, judged by the name alone."""
    for theirs, beginning in _DATASETS:
        if re.search(rf"(?<![a-z0-9])({beginning})", ours.lower()):
            return theirs
    return None


def same_size(samples: int, theirs: int) -> bool:
    """Says whether a training set is about as large as one of the paper's."""
    return abs(samples - theirs) <= _TOLERANCE * theirs


def find_auroc(
    dataset: str,
    samples: int,
    initialisation: str,
    network: str,
    trainable_parameters: int,
    teacher_dataset: str | None = None,
) -> list[PaperAuroc]:
    """Finds what the paper prints for a run like ours.

    Args:
        dataset: our name of the dataset learnt from and tested on.
        samples: images learnt from.
        initialisation: our name of where the first weights come from.
        network: the paper's name of the student.
        trainable_parameters: how many learn.
        teacher_dataset: our name of what the teacher learnt from; None for transfer learning.

    Returns:
        Empty where the paper has no such run.
    """
    teacher = "" if teacher_dataset is None else dataset_name(teacher_dataset)
    names = (dataset_name(dataset), dataset_name(initialisation), network, teacher)
    return [
        each
        for each in all_auroc()
        if (each.dataset, each.initialisation, each.network, each.teacher) == names
        and each.trainable == round(trainable_parameters / 1e6, 1)
        and same_size(samples, each.samples)
    ]


@cache
def all_auroc() -> tuple[PaperAuroc, ...]:
    """Returns all of them, in the paper's order."""
    path = resources.files("nakt_dist.report") / "paper_figures" / "auroc.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        return tuple(_read_row(row) for row in csv.DictReader(stream))


def _read_row(row: Mapping[str, Any]) -> PaperAuroc:
    return PaperAuroc(
        table=int(row["table"]),
        dataset=row["dataset"],
        samples=int(row["samples"]),
        initialisation=row["initialization"],
        method=row["method"],
        teacher=row["teacher"],
        network=row["student"],
        trainable=float(row["trainable_parameters_millions"]),
        mean=float(row["auc_mean_percent"]),
        half_width=float(row["auc_ci95_percent"]),
    )
