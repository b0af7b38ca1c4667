"""What a network reached on one test set, read from a record of ``nakt evaluate``."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nakt_dist.errors import DatasetError
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import Verdicts, judge_record, warn
from nakt_dist.records.fields import (
    FieldError,
    printable,
    read_field,
    read_if_there,
    read_interval,
    read_interval_or_null,
    read_percent,
    read_percent_or_null,
)
from nakt_dist.records.lineage import NOT_KNOWN, Lineage, Lineages, TrainingSet
from nakt_dist.records.lineage_reading import PRETRAINED, read_lineage
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report.document import WARNING
from nakt_dist.report.paper import NETWORKS
from nakt_dist.report.roles import Role, role_of


@dataclass(frozen=True)
class FoundRecord:
    """A record and where it lies.

    Attributes:
        place: its folder as the page names it, below the folder the user gave.
        folder: its folder.
        record: its content.
        sha256: of the file.
    """

    place: str
    folder: Path
    record: RunRecord
    sha256: str


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
class Evaluation:
    """Which network was tested, and on what: the same for every task.

    Attributes:
        name: of the network where that tells the runs apart, else of the evaluation.
        place: its folder as the page names it, below the folder the user gave.
        folder: its folder.
        weights_sha256: of the network's weights file.
        network: what the network is called.
        lineage: what it learnt from; not whole for weights that are not ours.
        tested_on: which images, and how they were scored.
        images: how many of them count.
        seconds: that the evaluation took.
        exposure: how the network may have met its test images, by role.
    """

    name: str
    place: str
    folder: Path
    weights_sha256: str
    network: NetworkName
    lineage: Lineage
    tested_on: EvaluationSet
    images: int
    seconds: float
    exposure: Verdicts = field(compare=False)

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
        """What stands behind a number of its: a mark, or nothing."""
        return f" {WARNING}" if self.warnings else ""


def _read_shared(
    found: FoundRecord,
    findings: tuple[str, ...],
    known: Lineages,
    without: Container[str] = (),
) -> Evaluation:
    """Reads what is the same for every task; of segmentation there are no findings."""
    record = found.record
    lineage = read_lineage(read_field(record.details, "lineage", Mapping), known)
    tested_on = EvaluationSet.from_record(record, findings)
    return Evaluation(
        name=printable(record.name),
        place=found.place,
        folder=found.folder,
        weights_sha256=printable(read_field(record.inputs, "weights_sha256", str)),
        network=name_network(read_field(record.details, "model", Mapping), without),
        lineage=lineage,
        tested_on=tested_on,
        images=read_field(record.metrics, "images", int),
        seconds=record.seconds,
        exposure=judge_record(record, tested_on, known),
    )


@dataclass(frozen=True)
class SegmentationRun(Evaluation):
    """One evaluation of a network that segments.

    Attributes:
        network_given_name: what the network's own weights file is called; empty if unknown.
        role: the part it plays.
        images_left_out: how many have no defined Dice.
        mean: of the images' Dice, in percent.
        std: population standard deviation over the images, in percent.
        interval: 95 % bootstrap interval of the mean, in percent.
    """

    network_given_name: str
    role: Role
    images_left_out: int
    mean: float
    std: float
    interval: tuple[float, float]

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
        metrics, details = found.record.metrics, found.record.details
        if read_field(metrics, "images", int) == 0:
            raise DatasetError("no image has a defined Dice")
        shared = _read_shared(found, (), known)
        given_name = read_field(details, "network", str) if "network" in details else ""
        return cls(
            **vars(shared),
            network_given_name=printable(given_name),
            role=role_of(shared.lineage, shared.weights_sha256, teachers),
            images_left_out=read_field(metrics, "images_left_out", int),
            mean=read_percent(metrics, "dice_mean"),
            std=read_percent(metrics, "dice_std"),
            interval=read_interval(metrics, "dice_interval_95"),
        )

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
class FindingScore:
    """How well one finding is told.

    Attributes:
        name: of the finding.
        positives: images that show it.
        negatives: images that do not.
        auroc: in percent; None where a class is absent.
        average_precision: in percent, or None.
        calibration_error: in percentage points, or None.
    """

    name: str
    positives: int
    negatives: int
    auroc: float | None
    average_precision: float | None
    calibration_error: float | None

    @classmethod
    def read(cls, value: Any) -> "FindingScore":
        """Reads what a record says of a finding."""
        return cls(
            name=printable(read_field(value, "name", str)),
            positives=read_field(value, "positives", int),
            negatives=read_field(value, "negatives", int),
            auroc=read_percent_or_null(value, "auroc"),
            average_precision=read_percent_or_null(value, "average_precision"),
            calibration_error=_read_points(value, "calibration_error"),
        )


@dataclass(frozen=True)
class GroupScore:
    """How well one group of patients is served.

    Attributes:
        attribute: such as ``"sex"``.
        group: such as ``"F"``.
        images: how many.
        auroc: mean over findings, in percent; None where none counts.
        counted: findings behind the mean.
    """

    attribute: str
    group: str
    images: int
    auroc: float | None
    counted: int

    @classmethod
    def read(cls, value: Any) -> "GroupScore":
        """Reads what a record says of a group."""
        return cls(
            attribute=printable(read_field(value, "attribute", str)),
            group=printable(read_field(value, "group", str)),
            images=read_field(value, "images", int),
            auroc=read_percent_or_null(value, "auroc_mean"),
            counted=read_field(value, "labels_counted", int),
        )


@dataclass(frozen=True)
class ClassifierRun(Evaluation):
    """One evaluation of a classifier. AUROC and the like are in percent.

    Attributes:
        patients: how many known patients.
        mean: of the AUROC of the findings that have both classes.
        interval: 95 % bootstrap interval of it over patients; None where there is none.
        average_precision: mean, or None.
        calibration_error: mean, or None.
        counted: findings behind the means.
        findings: each finding's scores, in order.
        groups: of patients, in order.
        gaps: largest less smallest AUROC by attribute, in percentage points.
    """

    patients: int
    mean: float
    interval: tuple[float, float] | None
    average_precision: float | None
    calibration_error: float | None
    counted: int
    findings: tuple[FindingScore, ...]
    groups: tuple[GroupScore, ...]
    gaps: Mapping[str, float]

    METRIC = "AUROC"

    @classmethod
    def read(cls, found: FoundRecord, known: Lineages = NOT_KNOWN) -> "ClassifierRun":
        """Reads a record.

        Args:
            known: lineages of networks by their weights, for what lineages leave out.

        Raises:
            DatasetError: a field is missing or wrong, or no finding has both classes.
        """
        metrics, details = found.record.metrics, found.record.details
        if metrics.get("auroc_mean") is None:
            raise DatasetError("no finding has both classes: there is no AUROC")
        findings = tuple(map(FindingScore.read, read_field(details, "labels", list)))
        shared = _read_shared(found, tuple(each.name for each in findings), known, PRETRAINED)
        gaps = details.get("gaps") or {}
        found_gaps = {printable(str(name)): read_percent_or_null(gaps, name) for name in gaps}
        return cls(
            **vars(shared),
            patients=read_field(metrics, "patients", int),
            mean=read_percent(metrics, "auroc_mean"),
            interval=read_interval_or_null(metrics, "auroc_interval_95"),
            average_precision=read_percent_or_null(metrics, "average_precision_mean"),
            calibration_error=_read_points(metrics, "calibration_error_mean"),
            counted=read_field(metrics, "labels_counted", int),
            findings=findings,
            groups=tuple(map(GroupScore.read, details.get("subgroups") or [])),
            gaps={name: gap for name, gap in found_gaps.items() if gap is not None},
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of findings that lack a class."""
        return tuple(each.name for each in self.findings if each.auroc is None)

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts by test set, network and what it learnt from."""
        samples = self.lineage.learnt.samples
        return (self.tested_on.label, self.network.order, samples, self.name, self.place)


def is_classifier_test(record: RunRecord) -> bool:
    """Says whether a record is a classifier's evaluation."""
    return record.stage == "evaluate" and record.metrics.get("task") == "classification"


def _read_points(metrics: Mapping[str, Any], name: str) -> float | None:
    """Returns what the record holds as a share, as percentage points."""
    value = read_field(metrics, name, (int, float, type(None)))
    if value is not None and not 0 <= value <= 1:
        raise FieldError(name, value, "a share from 0 to 1")
    return None if value is None else 100 * float(value)


def show_interval(interval: tuple[float, float]) -> str:
    """Returns the limits of an interval as text."""
    return "{:.2f} to {:.2f}".format(*interval)
