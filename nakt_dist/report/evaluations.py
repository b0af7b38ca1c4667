"""One evaluation of one network, read from its record."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.report import paper
from nakt_dist.report.fields import label_dataset, printable, read_field, read_met, read_names
from nakt_dist.report.following import NOBODY, Followed
from nakt_dist.report.lineage import Lineage, Role, Training, parse_lineage
from nakt_dist.report.training_sets import TrainingSet
from nakt_dist.runtime.record import RunRecord

_NUMBER = (int, float)
_CHOSEN = "has its best epoch chosen on the very splits it was tested on: its Dice is too high"


@dataclass(frozen=True)
class NetworkName:
    """A network as tables show it.

    Attributes:
        label: the paper's name, or ours, with the options that differ from its defaults.
        paper_name: the paper's name of the architecture, or None.
        encoder: name of the encoder, where an option names one.
    """

    label: str
    paper_name: str | None
    encoder: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Sorts the paper's networks first, in its order."""
        names = list(paper.NETWORKS.values())
        return (names.index(self.paper_name) if self.paper_name else len(names), self.label)


@dataclass(frozen=True)
class EvaluationSet:
    """The images a network was tested on and how they were scored; equal ones compare.

    Attributes:
        dataset: name of the dataset.
        fingerprint: of its manifest.
        splits: splits tested; None for all.
        phantom: whether the images are procedural.
        height: rows of the images.
        width: columns of the images.
        threshold: probability above which a pixel is target.
        both_empty: Dice where mask and prediction are empty: ``"one"`` or ``"nan"``.
    """

    dataset: str
    fingerprint: str
    splits: tuple[str, ...] | None
    phantom: bool
    height: int
    width: int
    threshold: float
    both_empty: str

    @property
    def label(self) -> str:
        """The dataset's name with its splits."""
        splits = "all splits" if self.splits is None else "split " + " + ".join(self.splits)
        return f"{label_dataset(self.dataset, self.phantom)}, {splits}"


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
        met: the roles in which the network met its test images, by the record: ``training``,
            ``validation``, ``parents`` (and those before) or ``teacher``.
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
    met: frozenset[str] = frozenset()

    @property
    def transfer(self) -> Training | None:
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
        """Says how the network may have met its test images while it learnt, or None.

        Splits decide, not keys: a smaller choice out of a split counts as the split. Pictures
        that were met in another packing are known from the record alone.
        """
        trainings = self.lineage.trainings
        verdicts = [_seen_in(training, self.tested_on) for training in trainings]
        verdicts += [
            _seen_by_teacher(training.following.teacher, self.tested_on)
            for training in trainings
            if training.following is not None
        ]
        chosen_on = self.lineage.validated_on
        if (
            chosen_on is not None
            and chosen_on.fingerprint == self.tested_on.fingerprint
            and not _apart(chosen_on.splits, self.tested_on.splits)
        ):
            verdicts.append((1, _CHOSEN))
        verdicts += [_met_in(role, trainings) for role in self.met]
        return min((verdict for verdict in verdicts if verdict), default=(0, None))[1]


def _seen_in(training: Training, tested: EvaluationSet) -> tuple[int, str] | None:
    """Returns how grave a meeting of training and test is (0 the gravest), and in words."""
    if training.dataset != tested.dataset and training.fingerprint != tested.fingerprint:
        return None
    same_packing = training.fingerprint == tested.fingerprint
    if same_packing and _apart(training.splits, tested.splits):
        return None
    if same_packing and not training.teachers:
        return (
            0,
            "learnt from annotations of the very splits it was tested on: its Dice is too high",
        )
    if same_packing:
        return 2, "learnt from its test images with pseudo masks, without their annotations"
    if not training.teachers:
        return 1, "learnt from annotations of another packing of its test set: images may be shared"
    return 3, "learnt from pseudo masks of another packing of its test set: images may be shared"


def _seen_by_teacher(teacher: Followed, tested: EvaluationSet) -> tuple[int, str] | None:
    """The same for the teacher that a network followed; None where that is not known."""
    if teacher.fingerprint is None:
        return None
    if teacher.fingerprint != tested.fingerprint:
        if teacher.dataset != tested.dataset:
            return None
        return 3, "followed a teacher that learnt from another packing of its test set"
    if not teacher.splits_known:
        return 3, "followed a teacher that learnt from the dataset of its test"
    if _apart(teacher.splits, tested.splits):
        return None
    return 2, "followed a teacher that learnt from the very splits it was tested on"


def _met_in(role: str, trainings: tuple[Training, ...]) -> tuple[int, str]:
    """The same for a role in which the record says that test images were met."""
    images = "images that it was tested on"
    if role == "validation":
        return 1, f"has its best epoch chosen on {images}: its Dice is too high"
    if role == "teacher":
        return 2, f"followed a teacher that learnt from {images}"
    start = "started from weights that " if role == "parents" else ""
    behind = trainings[1:] if role == "parents" else trainings[:1]
    if behind and all(each.teachers for each in behind):
        return 2, f"{start}learnt from {images} with pseudo masks, without their annotations"
    return 0, f"{start}learnt from {images}: its Dice is too high"


def _apart(learnt: tuple[str, ...] | None, tested: tuple[str, ...] | None) -> bool:
    """Says whether splits of one packing share no image; None stands for all of them."""
    return learnt is not None and tested is not None and not set(learnt) & set(tested)


def read_evaluation(
    record: RunRecord,
    place: str,
    folder: Path,
    teachers: Iterable[str],
    known: Mapping[str, TrainingSet] = NOBODY,
) -> EvaluatedRun:
    """Reads what a record of ``nakt evaluate`` holds.

    Args:
        record: the record.
        place: its folder as the page names it.
        folder: its folder.
        teachers: SHA-256 of every known teacher's weights file.
        known: what networks learnt from, by their weights, for what lineages leave out.

    Raises:
        DatasetError: a field is missing or wrong, or no image has a defined Dice.
    """
    inputs, metrics = record.inputs, record.metrics
    images = read_field(metrics, "images", int)
    if images == 0:
        raise DatasetError("no image has a defined Dice")
    interval = read_field(metrics, "dice_interval_95", list)
    if len(interval) != 2:
        raise DatasetError(f"the field 'dice_interval_95' has {len(interval)} limits, expected 2")
    limits = {"lower": interval[0], "upper": interval[1]}
    weights = printable(read_field(inputs, "weights_sha256", str))
    lineage = parse_lineage(read_field(record.details, "lineage", Mapping), known)
    return EvaluatedRun(
        name=printable(record.name),
        network_given_name=_given_name(record.details),
        place=place,
        folder=folder,
        weights_sha256=weights,
        network=_name_network(read_field(record.details, "model", Mapping)),
        lineage=lineage,
        role=lineage.role(weights, teachers),
        tested_on=_read_evaluation_set(record),
        images=images,
        images_left_out=read_field(metrics, "images_left_out", int),
        dice_mean=_percent(metrics, "dice_mean"),
        dice_std=_percent(metrics, "dice_std"),
        dice_interval=(_percent(limits, "lower"), _percent(limits, "upper")),
        seconds=record.seconds,
        met=read_met(record.details),
    )


def _given_name(details: Mapping[str, Any]) -> str:
    return printable(read_field(details, "network", str)) if "network" in details else ""


def _read_evaluation_set(record: RunRecord) -> EvaluationSet:
    return EvaluationSet(
        dataset=printable(read_field(record.details, "test_set.dataset", str)),
        fingerprint=printable(read_field(record.inputs, "dataset_fingerprint", str)),
        splits=read_names(record.inputs, "splits"),
        phantom=read_field(record.details, "test_set.phantom", bool),
        height=read_field(record.details, "test_set.height", int),
        width=read_field(record.details, "test_set.width", int),
        threshold=read_field(record.inputs, "threshold", _NUMBER),
        both_empty=printable(read_field(record.inputs, "both_empty", str)),
    )


def _percent(metrics: Mapping[str, Any], name: str) -> float:
    value = read_field(metrics, name, _NUMBER)
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise DatasetError(f"the field '{name}' is {value!r}, expected a number from 0 to 100")
    return float(value)


def _name_network(model: Mapping[str, Any]) -> NetworkName:
    name = printable(read_field(model, "name", str))
    given = read_field(model, "options", Mapping)
    options = {key: value for key, value in given.items() if value is not None}
    encoder = options.pop("encoder_name", None)
    words = [] if encoder is None else [str(encoder)]
    words += [f"{key}={value}" for key, value in sorted(options.items())]
    label = paper.NETWORKS.get(name, name) + (f" ({', '.join(words)})" if words else "")
    return NetworkName(
        printable(label),
        paper.NETWORKS.get(name),
        None if encoder is None else printable(str(encoder)),
    )
