"""Settings of ``evaluate``, ``attention`` and ``report``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.config.selecting import LabelConfig
from nakt_dist.config.teaching import TrainedNetworkConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig
from nakt_dist.signals import TapConfig
from nakt_dist.transfer.classes import ClassMap

_RATES = limits.limit(
    "a list of different rates in (0, 1]",
    lambda rates: all(0 < rate <= 1 for rate in rates) and len({*rates}) == len(rates),
)


@dataclass(frozen=True)
class OperatingPointConfig(Limited, group="operating_points"):
    """Thresholds and temperatures of a classifier, chosen on validation images.

    Attributes:
        validation: output folder of the same network's evaluation on validation images, none of
            which, and of whose patients none, is tested here.
        sensitivity: for each, the highest threshold is taken that reaches it there.
        specificity: for each, the lowest. Youden's threshold is always there, which makes the
            sum of both largest.
    """

    validation: str = field(metadata=limits.PATH)
    sensitivity: list[float] = field(default_factory=lambda: [0.9], metadata=_RATES)
    specificity: list[float] = field(default_factory=lambda: [0.9], metadata=_RATES)


@dataclass(frozen=True)
class EvaluateConfig(Limited):
    """``nakt evaluate``: every image scored, once: Dice, or AUROC of a classifier.

    Which of the two, the weights say, or the architecture of foreign ones.

    Attributes:
        weights: weights file, or the output folder of a training run (its best weights).
        dataset: folder or URL of a packed dataset with masks, or with findings for a classifier.
        output: folder for predictions and the record.
        splits: the splits tested; None for all.
        model: architecture, when the weights file does not name it.
        preprocessing: input, as far as it is not that of the weights file.
        labels: of classifiers: the labels to test and what unsure ones count as; for foreign
            weights, the names of the outputs in order. None tests all that network and
            dataset share.
        classes: of a network that segments with several outputs, their names in order,
            ``background`` among them, where the weights file does not say.
        class_map: what the classes of the masks are called by the network.
        batch_size: images per forward pass.
        threshold: of segmentation: probability above which a pixel is target; of several classes
            the most probable one is taken.
        both_empty: metrics of an image whose mask and prediction are empty: those of agreement
            (Dice 1, distance 0) or not a number. Of several classes those that are not in an image
            are many: ``nan`` leaves them out.
        surface_distances: of segmentation: measure, besides, how far the outlines of prediction
            and mask lie apart, in pixels (HD95 and average): milliseconds per image.
        teacher_record: the teacher's evaluation, for the knowledge-transfer capability; with the
            preprocessing with which it taught.
        operating_points: of classifiers: thresholds and temperatures from validation images.
        compare_with: output folder of another classifier's evaluation on the same test set, for
            the paired differences of AUROC, of the mean and of each finding.
        bootstrap_samples: resamplings behind the 95 % intervals, of patients for classifiers.
        overlays: of segmentation: how many images to draw with prediction and mask; 0 for none.
        seed: of the bootstrap.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of torch; None leaves torch's choice.
        cache: folder for local copies when ``dataset`` is a URL.
    """

    weights: str = field(metadata=limits.PATH)
    dataset: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    splits: list[str] | None = field(default_factory=lambda: ["test"], metadata=limits.SPLITS)
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: LabelConfig | None = None
    classes: list[str] | None = None
    class_map: ClassMap = field(default_factory=ClassMap)
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    threshold: float = field(
        default=0.5, metadata=limits.limit("in (0, 1)", lambda share: 0 < share < 1)
    )
    both_empty: Literal["one", "nan"] = "one"
    surface_distances: bool = False
    teacher_record: str | None = field(default=None, metadata=limits.PATH)
    operating_points: OperatingPointConfig | None = None
    compare_with: str | None = field(default=None, metadata=limits.PATH)
    bootstrap_samples: int = field(
        default=10_000, metadata=limits.within(1, 10**7, "positive, at most 10⁷")
    )
    overlays: int = field(default=0, metadata=limits.NOT_NEGATIVE)
    seed: int = field(default=0, metadata=limits.SEED)
    device: str = "auto"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)


@dataclass(frozen=True)
class ReportConfig(Limited):
    """``nakt report RUNS…``: tables, figures and one page from run records.

    Attributes:
        runs: folders that hold records, at any depth.
        output: folder for ``report.md``, ``report.html`` and the figures.
        title: of the page.
        images: show sheets of real images on the page, too; those of phantoms always are.
    """

    runs: list[str] = field(metadata=limits.SEARCHED)
    output: str = field(default="runs/report", metadata=limits.PATH)
    title: str = "Knowledge transfer report"
    images: bool = False


@dataclass(frozen=True)
class ShownNetworkConfig(TrainedNetworkConfig):
    """A trained network whose attention is shown.

    Attributes:
        labels: its outputs' names in order, or a label set such as ``chestxray14``, when the
            weights file does not say.
    """

    labels: str | list[str] | None = None


@dataclass(frozen=True)
class AttentionConfig(Limited):
    """``nakt attention``: where a student and its teacher look, side by side.

    Attributes:
        student: the network whose attention and class activation are shown.
        teacher: the network it is compared with, whether it taught the student or not.
        dataset: folder or URL of a packed dataset.
        output: folder for the sheet, the similarities and the record.
        splits: the splits shown and measured; None for all.
        preset: taps by name, ``paper`` or ``authors_code``. With neither ``preset`` nor
            ``taps`` they are those the student was trained with, else ``paper``'s.
        taps: pairs of layers instead; the similarities are averaged over them.
        labels: findings whose class activation is shown, of the student's outputs; None takes
            the four with most positive images.
        images: how many images the sheet shows, chosen so that each label's positives come in
            turn; a smaller choice is part of a larger.
        samples: keys of the samples to show instead.
        similarity_images: measure the similarity on so many images, chosen by ``seed``; None
            measures all.
        batch_size: images per forward pass.
        seed: of the choices.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of torch; None leaves torch's choice.
        cache: folder for local copies when ``dataset`` is a URL.
    """

    student: ShownNetworkConfig
    teacher: ShownNetworkConfig
    dataset: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    splits: list[str] | None = field(default_factory=lambda: ["test"], metadata=limits.SPLITS)
    preset: Literal["paper", "authors_code"] | None = None
    taps: list[TapConfig] | None = None
    labels: list[str] | None = field(
        default=None, metadata=limits.limit("a list of findings, or left out", len)
    )
    images: int = field(default=8, metadata=limits.within(1, 64, "from 1 to 64"))
    samples: list[str] | None = field(
        default=None,
        metadata=limits.limit("a list of 1 to 64 keys", lambda keys: keys and len(keys) <= 64),
    )
    similarity_images: int | None = field(default=None, metadata=limits.POSITIVE)
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    seed: int = field(default=0, metadata=limits.SEED)
    device: str = "auto"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset is not None and self.taps:
            raise ConfigurationError(
                f"preset is {self.preset} and taps are set as well; leave out one of them"
            )
        for name in ("labels", "samples"):
            values = getattr(self, name) or []
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ConfigurationError(f"{name} has '{twice}' twice; leave it there once")
