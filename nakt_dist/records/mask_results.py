"""What evaluations of segmentation measured, as their records hold it: metrics of masks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nakt_dist.records.fields import (
    printable,
    read_field,
    read_if_there,
    read_interval,
    read_percent,
)

_CAPABILITY = "knowledge_transfer_capability"
CLASSES = "classes"
"""Of a record's details: the scores of each of several classes."""

_IMAGES, _LEFT_OUT = "images", "images_left_out"
_LONGEST_DISTANCE = 10**6


@dataclass(frozen=True)
class MaskScore:
    """A metric of masks over the images of a test; None where no image counts.

    All but distances are in percent.

    Attributes:
        name: of the metric, such as ``"dice"``; of one in pixels it ends in ``_pixels``.
        images: how many count.
        images_left_out: how many have no defined value.
        mean: over the images.
        std: population standard deviation over the images.
        interval: 95 % bootstrap interval of the mean.
    """

    name: str
    images: int
    images_left_out: int
    mean: float | None = None
    std: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def in_pixels(self) -> bool:
        """Whether it is a distance, and no percentage."""
        return self.name.endswith("_pixels")

    def to_json(self, counts_of: str = "") -> dict[str, Any]:
        """Returns its part of a record's ``metrics``; ``counts_of`` names the counts' owner."""
        return {
            f"{counts_of}{_IMAGES}": self.images,
            f"{counts_of}{_LEFT_OUT}": self.images_left_out,
            f"{self.name}_mean": self.mean,
            f"{self.name}_std": self.std,
            f"{self.name}_interval_95": self.interval and list(self.interval),
        }

    @classmethod
    def from_json(cls, metrics: Mapping[str, Any], name: str, counts_of: str = "") -> "MaskScore":
        """Reads a record's ``metrics``; ``counts_of`` names the counts' owner.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        images = read_field(metrics, f"{counts_of}{_IMAGES}", int)
        left_out = f"{counts_of}{_LEFT_OUT}"
        empty = cls(name, images, read_if_there(metrics, left_out, int) or 0)
        if images == 0:
            return empty
        most = _LONGEST_DISTANCE if empty.in_pixels else 100
        return cls(
            name=name,
            images=images,
            images_left_out=read_field(metrics, left_out, int),
            mean=read_percent(metrics, f"{name}_mean", most),
            std=read_percent(metrics, f"{name}_std", most),
            interval=read_interval(metrics, f"{name}_interval_95", most),
        )


@dataclass(frozen=True)
class SegmentationResult:
    """The evaluation of a segmentation network.

    Attributes:
        compared: whether a teacher's evaluation was given.
        capability: the knowledge-transfer capability against it, in percent; None where one of
            them has no Dice.
    """

    dice: MaskScore
    others: tuple[MaskScore, ...] = ()
    compared: bool = False
    capability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns a record's ``metrics``; numbers of images without a name are those of Dice."""
        metrics = self.dice.to_json()
        for score in self.others:
            metrics |= score.to_json(f"{score.name}_")
        return metrics | ({_CAPABILITY: self.capability} if self.compared else {})

    @classmethod
    def from_json(cls, metrics: Mapping[str, Any]) -> "SegmentationResult":
        """Reads a record's ``metrics``, of which only Dice must be there.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        ending = f"_{_LEFT_OUT}"
        names = [name.removesuffix(ending) for name in metrics if name.endswith(ending)]
        return cls(
            dice=MaskScore.from_json(metrics, "dice"),
            others=tuple(MaskScore.from_json(metrics, name, f"{name}_") for name in names),
            compared=_CAPABILITY in metrics,
            capability=read_if_there(metrics, _CAPABILITY, (int, float)),
        )


@dataclass(frozen=True)
class ClassScore:
    """How well one of several classes is segmented."""

    name: str
    result: SegmentationResult

    def to_json(self) -> dict[str, Any]:
        """Returns one of the ``classes`` in a record's details."""
        return {"name": self.name, **self.result.to_json()}

    @classmethod
    def all_from(cls, details: Mapping[str, Any]) -> "tuple[ClassScore, ...]":
        """Reads a record's details; empty where it tells no classes apart.

        Raises:
            DatasetError: a field is missing or wrong; names it.
        """
        return tuple(
            cls(printable(read_field(each, "name", str)), SegmentationResult.from_json(each))
            for each in read_if_there(details, CLASSES, list) or ()
        )
