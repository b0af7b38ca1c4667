"""One evaluation of one network, read from its record."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import Verdicts, judge_record, warn
from nakt_dist.records.fields import printable, read_field, read_interval, read_percent
from nakt_dist.records.lineage import NOT_KNOWN, Lineage, Lineages, TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report.network_names import NetworkName, name_network
from nakt_dist.report.roles import Role, role_of


@dataclass(frozen=True)
class EvaluatedRun:
    """One evaluation.

    Attributes:
        name: of the network where that tells the runs apart, else of the evaluation.
        network_given_name: what the network's own weights file is called; empty if unknown.
        place: its folder as the page names it, below the folder the user gave.
        folder: its folder.
        weights_sha256: of the network's weights file.
        network: which network.
        lineage: what it learnt from.
        role: the part it plays.
        tested_on: which images.
        images: how many of them count.
        images_left_out: how many have no defined Dice.
        dice_mean: over the images, in percent.
        dice_std: population standard deviation over the images, in percent.
        dice_interval: 95 % bootstrap interval of the mean, in percent.
        seconds: of the evaluation.
        exposure: how the network may have met its test images, by role.
    """

    name: str
    network_given_name: str
    place: str
    folder: Path
    weights_sha256: str
    network: NetworkName
    lineage: Lineage
    role: Role
    tested_on: EvaluationSet
    images: int
    images_left_out: int
    dice_mean: float
    dice_std: float
    dice_interval: tuple[float, float]
    seconds: float
    exposure: Verdicts = field(compare=False)

    @property
    def transfer(self) -> TrainingSet | None:
        """The training on pseudo masks behind this network, if there was one."""
        return self.lineage.transfer

    @property
    def excluded(self) -> bool:
        """Whether its transferal images were chosen by an exclusion rule."""
        return self.transfer is not None and self.transfer.exclusion is not None

    @property
    def dice(self) -> str:
        """Mean and standard deviation as the paper prints them."""
        return f"{self.dice_mean:.2f} ± {self.dice_std:.2f}"

    @property
    def interval(self) -> str:
        """The interval as text."""
        return "{:.2f} to {:.2f}".format(*self.dice_interval)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by role, then number of teachers, transferal dataset, exclusion and network."""
        transferal = (len(self.transfer.teachers), self.transfer.label) if self.transfer else ()
        position = list(Role).index(self.role)
        return (position, transferal, self.excluded, self.network.order, self.name, self.place)

    def seen_before(self) -> str | None:
        """Says how the network, and its teachers, may have met its test images, or None."""
        return "; ".join(warn(self.exposure, "Dice", "annotations of ")) or None


def read_evaluation(
    record: RunRecord,
    place: str,
    folder: Path,
    teachers: Iterable[str],
    known: Lineages = NOT_KNOWN,
) -> EvaluatedRun:
    """Reads what a record of ``nakt evaluate`` holds.

    Args:
        record: the record.
        place: its folder as the page names it.
        folder: its folder.
        teachers: SHA-256 of every known teacher's weights file.
        known: lineages of networks by their weights, for what lineages leave out.

    Raises:
        DatasetError: a field is missing or wrong, or no image has a defined Dice.
    """
    inputs, metrics = record.inputs, record.metrics
    images = read_field(metrics, "images", int)
    if images == 0:
        raise DatasetError("no image has a defined Dice")
    weights = printable(read_field(inputs, "weights_sha256", str))
    lineage = read_lineage(read_field(record.details, "lineage", Mapping), known)
    tested_on = EvaluationSet.from_record(record)
    return EvaluatedRun(
        name=printable(record.name),
        network_given_name=_given_name(record.details),
        place=place,
        folder=folder,
        weights_sha256=weights,
        network=name_network(read_field(record.details, "model", Mapping)),
        lineage=lineage,
        role=role_of(lineage, weights, teachers),
        tested_on=tested_on,
        images=images,
        images_left_out=read_field(metrics, "images_left_out", int),
        dice_mean=read_percent(metrics, "dice_mean"),
        dice_std=read_percent(metrics, "dice_std"),
        dice_interval=read_interval(metrics, "dice_interval_95"),
        seconds=record.seconds,
        exposure=judge_record(record, tested_on, known),
    )


def _given_name(details: Mapping[str, Any]) -> str:
    return printable(read_field(details, "network", str)) if "network" in details else ""
