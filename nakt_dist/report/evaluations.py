"""What a network reached on one test set, read from a record of ``nakt evaluate``."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from nakt_dist.errors import DatasetError
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import Verdicts, judge_record, warn
from nakt_dist.records.fields import printable, read_field, read_if_there
from nakt_dist.records.finding_results import ClassificationResult
from nakt_dist.records.lineage import NOT_KNOWN, Lineage, Lineages, TrainingSet
from nakt_dist.records.lineage_reading import PRETRAINED, read_lineage
from nakt_dist.records.mask_results import ClassScore, MaskScore, SegmentationResult
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report.document import NOTHING, WARNING
from nakt_dist.report.paper import NETWORKS
from nakt_dist.report.roles import Role, role_of

EXPORTED_FROM = "exported_from"
"""Where a record of an ONNX file says which weights it is another form of."""


@dataclass(frozen=True)
class Found:
    """Something that lies in a folder below one that the user gave.

    Attributes:
        place: its folder as the page names it, below the folder the user gave.
    """

    place: str
    folder: Path


@dataclass(frozen=True)
class FoundRecord(Found):
    """A record, and the SHA-256 of its file."""

    record: RunRecord
    sha256: str


@dataclass(frozen=True)
class NetworkName:
    """A network as tables show it.

    Attributes:
        label: the paper's name, or ours, with the options that differ from its defaults.
        paper_name: of the architecture, or None.
    """

    label: str
    paper_name: str | None
    encoder: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Sorts the papers' networks first, in their order."""
        names = list(NETWORKS.values())
        return (names.index(self.paper_name) if self.paper_name else len(names), self.label)


def name_network(model: Mapping[str, Any], without: Container[str] = ()) -> NetworkName:
    """Names the network that a record describes.

    Args:
        model: its ``name`` and ``options``.
        without: options that are no part of the name.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    name = printable(read_field(model, "name", str))
    given = read_if_there(model, "options", Mapping) or {}
    options = {k: v for k, v in sorted(given.items()) if v is not None and k not in without}
    encoder = options.pop("encoder_name", None)
    words = [] if encoder is None else [str(encoder)]
    words += [f"{key}={value}" for key, value in options.items()]
    label = NETWORKS.get(name, name.removeprefix("timm:"))
    label += f" ({', '.join(words)})" if words else ""
    return NetworkName(
        label=printable(label),
        paper_name=NETWORKS.get(name),
        encoder=None if encoder is None else printable(str(encoder)),
    )


@dataclass(frozen=True)
class Evaluation(Found):
    """Which network was tested on what, and what it reached: the same for every task.

    Attributes:
        name: of the network where that tells the runs apart, else of the evaluation.
        lineage: what it learnt from; not whole for weights that are not ours.
        tested_on: which images, and how they were scored.
        images: how many of them count.
        mean: of the task's metric over them, in percent.
        seconds: that the evaluation took.
        exposure: how the network may have met its test images, by role.
        forms: SHA-256 of its other files: of the weights that an ONNX file was exported from, or
            of the ONNX files whose evaluations this one stands for.
        is_onnx: whether it is an ONNX file that says which weights it was exported from.
        seen: its preprocessing; empty where the record does not say it.
    """

    name: str
    weights_sha256: str
    network: NetworkName
    lineage: Lineage
    tested_on: EvaluationSet
    images: int
    mean: float
    seconds: float
    exposure: Verdicts = field(compare=False)
    forms: frozenset[str]
    is_onnx: bool
    seen: Mapping[str, Any] = field(compare=False)

    @property
    def original(self) -> str:
        """SHA-256 of the weights: of an ONNX file those that it was exported from."""
        return next(iter(self.forms)) if self.is_onnx else self.weights_sha256

    @property
    def files(self) -> frozenset[str]:
        """SHA-256 of all files that are this network."""
        return self.forms | {self.weights_sha256}

    METRIC: ClassVar[str]
    LEARNT: ClassVar[str] = ""
    """What is learnt of images, where a warning names it."""

    @property
    def uses_phantoms(self) -> bool:
        """Whether its test, it, its parents or whom they followed know procedural images."""
        return self.tested_on.phantom or any(
            each.learnt.phantom or (each.following is not None and each.following.teacher.phantom)
            for each in self.lineage.generations
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """How the network, and its teachers, may have met its test images."""
        return warn(self.exposure, self.METRIC, self.LEARNT)

    @property
    def warned(self) -> str:
        """The mark behind its number; empty where there is nothing to warn of."""
        return f" {WARNING}" if self.warnings else ""


def _read_shared(
    found: FoundRecord,
    images: int,
    mean: float,
    known: Lineages,
    findings: tuple[str, ...] = (),
    without: Container[str] = (),
) -> Evaluation:
    """Reads what is the same for every task; of segmentation there are no findings."""
    record = found.record
    lineage = read_lineage(read_field(record.details, "lineage", Mapping), known)
    tested_on = EvaluationSet.from_record(record, findings)
    original = read_if_there(record.details, EXPORTED_FROM, str)
    network = name_network(read_field(record.details, "model", Mapping), without)
    return Evaluation(
        name=printable(record.name),
        place=found.place,
        folder=found.folder,
        weights_sha256=printable(read_field(record.inputs, "weights_sha256", str)),
        network=replace(network, label=f"{network.label}, ONNX") if original else network,
        lineage=lineage,
        tested_on=tested_on,
        images=images,
        mean=mean,
        seconds=record.seconds,
        exposure=judge_record(record, tested_on, known),
        forms=frozenset([printable(original)] if original else ()),
        is_onnx=bool(original),
        seen=read_if_there(record.inputs, "preprocessing", Mapping) or {},
    )


@dataclass(frozen=True)
class SegmentationRun(Evaluation):
    """One evaluation of a network that segments.

    Attributes:
        network_given_name: what the network's own weights file is called; empty if unknown.
        images_left_out: how many have no defined Dice.
        std: population standard deviation of the images' Dice, in percent.
        interval: 95 % bootstrap interval of their mean, in percent.
        others: what else was measured of masks.
        classes: the scores of each of several classes; empty for one target.
    """

    network_given_name: str
    role: Role
    images_left_out: int
    std: float
    interval: tuple[float, float]
    others: tuple[MaskScore, ...] = ()
    classes: tuple[ClassScore, ...] = ()

    METRIC = "Dice"
    LEARNT = "annotations of "

    @classmethod
    def read(
        cls, found: FoundRecord, teachers: Iterable[str], known: Lineages = NOT_KNOWN
    ) -> "SegmentationRun":
        """Reads a record.

        Args:
            teachers: SHA-256 of every known teacher's weights file.
            known: lineages of networks by their weights, for what lineages leave out.

        Raises:
            DatasetError: a field is missing or wrong, or no image has a defined Dice.
        """
        details = found.record.details
        result = SegmentationResult.from_json(found.record.metrics)
        dice = result.dice
        if dice.mean is None or dice.std is None or dice.interval is None:
            raise DatasetError("no image has a defined Dice")
        shared = _read_shared(found, dice.images, dice.mean, known)
        given_name = read_field(details, "network", str) if "network" in details else ""
        given_name += " (ONNX)" if given_name and shared.is_onnx else ""
        return cls(
            **vars(shared),
            network_given_name=printable(given_name),
            role=role_of(shared.lineage, shared.weights_sha256, teachers),
            images_left_out=dice.images_left_out,
            std=dice.std,
            interval=dice.interval,
            others=result.others,
            classes=ClassScore.all_from(details),
        )

    @property
    def transfer(self) -> TrainingSet | None:
        """The training on pseudo masks behind this network, if there was one."""
        return self.lineage.transfer

    @property
    def excluded(self) -> bool:
        """Whether images of a transferal dataset behind it were excluded by a rule."""
        return self.transfer is not None and any(each.exclusion for each in self.transfer.parts)

    @property
    def dice(self) -> str:
        """Mean and standard deviation as the paper prints them."""
        return f"{self.mean:.2f} ± {self.std:.2f}"

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by role, then number of teachers, transferal dataset, exclusion and network."""
        transferal = (len(self.transfer.teachers), self.transfer.label) if self.transfer else ()
        position = list(Role).index(self.role)
        return (position, transferal, self.excluded, self.network.order, self.name, self.place)

    @property
    def warning(self) -> str | None:
        """All warnings in one sentence, or None."""
        return "; ".join(self.warnings) or None


@dataclass(frozen=True)
class ClassifierRun(Evaluation):
    """One evaluation of a classifier; ``mean`` is over the findings that have both classes."""

    result: ClassificationResult

    METRIC = "AUROC"

    @classmethod
    def read(cls, found: FoundRecord, known: Lineages = NOT_KNOWN) -> "ClassifierRun":
        """Reads a record.

        Args:
            known: lineages of networks by their weights, for what lineages leave out.

        Raises:
            DatasetError: a field is missing or wrong, or no finding has both classes.
        """
        result = ClassificationResult.from_record(found.record)
        if result.auroc is None:
            raise DatasetError("no finding has both classes: there is no AUROC")
        names = tuple(each.name for each in result.findings)
        shared = _read_shared(found, result.images, result.auroc, known, names, PRETRAINED)
        return cls(**vars(shared), result=result)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by test set, network and what it learnt from."""
        samples = self.lineage.learnt.samples
        return (self.tested_on.label, self.network.order, samples, self.name, self.place)


def is_classifier_test(record: RunRecord) -> bool:
    """Says whether a record is a classifier's evaluation."""
    return record.stage == "evaluate" and record.metrics.get("task") == "classification"


def show_interval(interval: tuple[float, float] | None) -> str:
    """Returns the limits of an interval as text, or a dash."""
    return NOTHING if interval is None else "{:.2f} to {:.2f}".format(*interval)
