"""How alike two networks' attention is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.taps import TappedNetwork, TeacherTap
from nakt_dist.transfer.attention import attention_map, check_planes, match_size, plane_distances

MEASURES = ("similarity", "similarity_to_other_image", "plane_similarity")
"""What is measured on each image, see ``similarities``."""


@dataclass(frozen=True)
class Attention:
    """What two networks make of a batch.

    Attributes:
        output: the student's, float32 (N, K) or (N, K, H, W).
        student: its tapped activations, each (N, C, h, w).
        teacher: the teacher's, likewise; sizes and channels may differ.
        other: the teacher's of another image for each; None where none was read.
    """

    output: torch.Tensor
    student: tuple[torch.Tensor, ...]
    teacher: tuple[torch.Tensor, ...]
    other: tuple[torch.Tensor, ...] | None = None

    def maps(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Returns per tap the student's and the teacher's map, float32 (N, 1, h, w).

        A map is the mean of squares over channels; the teacher's is averaged, or repeated, to
        the student's size.
        """
        return self._beside(self.teacher)

    def other_maps(self) -> list[tuple[torch.Tensor, torch.Tensor]] | None:
        """Returns per tap the student's map and the teacher's of another image; see ``maps``."""
        return None if self.other is None else self._beside(self.other)

    def _beside(self, teacher: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        pairs = []
        for student, activation in zip(self.student, teacher, strict=True):
            map_of_student = attention_map(student)
            size = map_of_student.shape[-2:]
            pairs.append((map_of_student, match_size(attention_map(activation), size)))
        return pairs


class AttentionReader:
    """Runs a student and a teacher on the same images, and reads their taps.

    Args:
        taps: pairs of module paths, the student's and the teacher's.

    Raises:
        ConfigurationError: a network has no such module.
    """

    def __init__(
        self, student: TrainedNetwork, teacher: TrainedNetwork, taps: Sequence[tuple[str, str]]
    ) -> None:
        self.student = student
        self.teacher = teacher
        self.taps = taps
        self._student = TappedNetwork(student.network, [tap[0] for tap in taps])
        self._teacher = TeacherTap(teacher.network, [tap[1] for tap in taps])

    @torch.inference_mode()
    def read(self, image: torch.Tensor, other: torch.Tensor | None = None) -> Attention:
        """Reads the taps.

        Args:
            image: float32 (N, C, H, W) in [0, 1].
            other: another image for each, likewise, for the teacher alone; None for none.

        Raises:
            ConfigurationError: a tap does not give planes, or is not passed exactly once.
        """
        output, student = self._student(self.student.prepare(image))
        teacher = self._teacher.activations(self.teacher.prepare(image))
        for whose, activations in (("student", student), ("teacher", teacher)):
            for activation in activations:
                check_planes(activation, whose)
        of_other = None
        if other is not None:
            of_other = self._teacher.activations(self.teacher.prepare(other))
        return Attention(output.float(), student, teacher, of_other)


def map_similarity(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Correlation (Pearson's) of attention maps over places.

    Not the cosine: maps are 0 or more everywhere, so that even those of random networks have a
    cosine above 0.9.

    Args:
        student: float (N, 1, h, w).
        teacher: float (N, 1, h, w).

    Returns:
        float64 (N,) in [-1, 1], about 0 for unrelated maps; not a number where a map is the same
        everywhere.
    """
    centred = []
    for maps in (student, teacher):
        maps = maps.flatten(1).double()
        centred.append(maps - maps.mean(1, keepdim=True))
    norms = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    similarity = ((centred[0] * centred[1]).sum(1) / norms).clamp(-1, 1)
    flat = norms <= 1e-12 * student.flatten(1).norm(dim=1) * teacher.flatten(1).norm(dim=1)
    return torch.where(flat, torch.nan, similarity)


def plane_similarity(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 - d / 2 with d the distance of equation 2 (paper B), over planes that are not all zero.

    Args:
        student: (N, C, h, w), activations.
        teacher: (N, c, H, W).

    Returns:
        float64 (N,): 1 for planes of the same direction, 0 for opposite ones, about 0.29 for
        unrelated ones; not a number where C and c differ, or no pair of planes counts.
    """
    if student.shape[1] != teacher.shape[1]:
        return torch.full((len(student),), torch.nan, dtype=torch.float64)
    teacher = match_size(teacher.float(), student.shape[-2:])
    distances, counts = plane_distances(student.float(), teacher)
    return 1 - distances.double().sum(1) / counts.sum(1) / 2  # 0 / 0 is not a number


def similarities(attention: Attention) -> dict[str, np.ndarray]:
    """Measures how alike two networks' attention is on each image of a batch.

    Returns:
        float64 (N,) each, averaged over the taps: ``similarity`` of the two maps;
        ``similarity_to_other_image``, of the student's map to the teacher's of another image
        (not a number where none was read); and ``plane_similarity``.
    """
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in MEASURES}
    others = attention.other_maps()
    for tap, pair in enumerate(attention.maps()):
        nothing = torch.full((len(pair[0]),), torch.nan, dtype=torch.float64)
        values = (
            map_similarity(*pair),
            nothing if others is None else map_similarity(*others[tap]),
            plane_similarity(attention.student[tap], attention.teacher[tap]),
        )
        for name, value in zip(MEASURES, values, strict=True):
            columns[name].append(value.cpu())
    return {name: torch.stack(values).mean(0).numpy() for name, values in columns.items()}


def summarise_similarity(
    similarity: np.ndarray, other: np.ndarray, positive: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Averages the similarity over the images of each finding.

    Args:
        similarity: float (N,); not a number is left out.
        other: float (N,), to another image's map; likewise.
        positive: bool (N, K).
        names: of the K findings.

    Returns:
        Per finding ``name``, ``images`` (positive ones, with a similarity), and their
        ``similarity_mean``, ``similarity_std`` (population) and
        ``similarity_to_other_image_mean``; None where there is no image.
    """
    return [
        {"name": name, **_describe(similarity[column], other[column])}
        for name, column in zip(names, positive.T, strict=True)
    ]


def _describe(similarity: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    counted, others = similarity[~np.isnan(similarity)], other[~np.isnan(other)]
    return {
        "images": len(counted),
        "similarity_mean": mean_or_none(counted),
        "similarity_std": float(counted.std()) if len(counted) else None,
        "similarity_to_other_image_mean": mean_or_none(others),
    }


def mean_or_none(values: np.ndarray) -> float | None:
    """Returns the mean of the values that are numbers, or None."""
    counted = values[~np.isnan(values)]
    return float(counted.mean()) if len(counted) else None
