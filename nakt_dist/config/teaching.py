"""Settings of networks that are trained, of ``teach`` and of ``inspect``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.limits import Limited
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig
from nakt_dist.signals import Signals
from nakt_dist.transfer.classes import ClassMap
from nakt_dist.transfer.confidence import EVERYTHING, ConfidenceRule
from nakt_dist.transfer.exclusion import ExclusionRule


@dataclass(frozen=True)
class TrainedNetworkConfig(Limited):
    """A network that has been trained, here or elsewhere.

    Attributes:
        weights: a ``.safetensors`` file (ours or another hospital's), a legacy ``.pt``, an ONNX
            file, or the output folder of a training run (its best weights), here or of a library
            that docs/converting.md names.
        name: what to call it; by default the file's folder.
        model: its architecture; None when the weights file names it, as ours do. Of the network
            that the file names, it replaces the options that it gives. Of an ONNX file ``onnx``,
            with the options ``output`` and ``activation`` where the file does not say them.
        preprocessing: its input, as far as it is not that of the weights file.
    """

    weights: str = field(metadata=limits.PATH)
    name: str | None = None
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None


@dataclass(frozen=True)
class TeacherConfig(TrainedNetworkConfig, group="teachers"):
    """One teacher of an ensemble.

    Attributes:
        weight: w of the weighted mean Σ w T(x) / Σ w (paper A, algorithm 1).
        output: ``soft`` probabilities, or ``binary``: 1 above 0.5, of several classes for the most
            probable.
        labels: a classifier's outputs' names in order, or a label set such as ``chestxray14``,
            when the weights file does not say.
        classes: of several outputs of a network that segments their names in order, ``background``
            among them, where the weights file does not say; two are otherwise background and
            target.
        class_map: what they are called in the pseudo masks, where that is something else.
        flips: ``horizontal`` and ``vertical``: it sees each image mirrored besides.
        scales: it sees each image at these multiples of its input's size besides.
    """

    weight: float = field(default=1.0, metadata=limits.FACTOR)
    output: Literal["soft", "binary"] = "soft"
    labels: str | list[str] | None = None
    classes: list[str] | None = None
    class_map: ClassMap = field(default_factory=ClassMap)
    flips: list[Literal["horizontal", "vertical"]] = field(
        default_factory=list,
        metadata=limits.limit(
            "horizontal, vertical, or both", lambda found: len(set(found)) == len(found)
        ),
    )
    scales: list[float] = field(
        default_factory=list,
        metadata=limits.limit(
            "different numbers from 0.25 to 4, without 1",
            lambda found: (
                len(set(found)) == len(found)
                and 1 not in found
                and all(0.25 <= s <= 4 for s in found)
            ),
        ),
    )


@dataclass(frozen=True)
class PrivacyConfig(Limited, group="privacy"):
    """Private votes of several hospitals' classifiers (PATE): what a student may learn of them.

    Attributes:
        key: file with the secret that the noise comes from, made where it is absent; whoever has
            it can take the noise away. Beside it, ``KEY.spent.json`` counts what was asked.
        noise: standard deviation of the noise on the count of votes, in votes.
        epsilon: budget: the largest ε, over all that was asked of these teachers with this key.
        delta: its δ; well below one over the number of patients of a hospital.
        threshold: fewest votes of the majority, after noise, with which a query is answered; None
            answers all (Confident-GNMax).
        threshold_noise: standard deviation of that comparison's noise, in votes.
        images: of which so many are asked about, chosen by a hash of their keys; None for all.
    """

    key: str = field(metadata=limits.PATH)
    noise: float = field(metadata=limits.FACTOR)
    epsilon: float = field(metadata=limits.FACTOR)
    delta: float = field(default=1e-5, metadata=limits.within(1e-300, 0.1, "in (0, 0.1]"))
    threshold: float | None = field(default=None, metadata=limits.FACTOR)
    threshold_noise: float | None = field(default=None, metadata=limits.FACTOR)
    images: int | None = field(default=None, metadata=limits.POSITIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            (self.threshold is None) == (self.threshold_noise is None),
            "privacy.threshold and privacy.threshold_noise",
            "set both or neither",
        )


@dataclass(frozen=True)
class LearntImagesConfig(Limited, group="teacher.card.trained_on"):
    """Images that a network of others learnt from, as its authors publish them.

    Attributes:
        dataset: its name; that of the packing, such as ``chexpert``, where it can be packed.
        images: a list of them, CSV or Parquet, by the column ``pixels`` (numbers of pictures as
            in ``index.parquet`` of a packing, which may be given itself) or ``source`` (names in
            the dataset, as there). ``nakt evaluate`` looks for its images in it.
        complete: whether the list names all: a picture that is not in it was then not met.
    """

    dataset: str = field(metadata=limits.limit("a name, not {value!r}", str.strip))
    images: str | None = field(default=None, metadata=limits.PATH)
    complete: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            self.images or not self.complete,
            "teacher.card.trained_on.complete",
            "false without images",
        )


@dataclass(frozen=True)
class NetworkCardConfig(Limited, group="teacher.card"):
    """What is known of a network of others; its students' lineage passes it on.

    Attributes:
        licence: under which it is published, such as ``apache-2.0``.
        trained_on: the images that it learnt from; of several trainings the last one first.
    """

    licence: str = field(metadata=limits.limit("a name, not {value!r}", str.strip))
    trained_on: list[LearntImagesConfig] = field(
        metadata=limits.limit("a list with at least one dataset", len)
    )


@dataclass(frozen=True)
class FindingsTableConfig(Limited, group="table"):
    """What a network of others says of images, as a table in the place of the network.

    Attributes:
        file: CSV or ``.csv.gz``, a row for each image, with probabilities from 0 to 1; of images
            that it does not name nothing is learnt.
        name: what to call the network.
        image: the column with the image's file name.
        card: the network's licence and training images, which a table does not tell.
        prefix: what stands before a finding's name in the column that holds it.
    """

    file: str = field(metadata=limits.PATH)
    name: str
    image: str
    card: NetworkCardConfig
    prefix: str = ""


@dataclass(frozen=True)
class TeachConfig(Limited):
    """``nakt teach``: teachers write pseudo masks, or pseudo-findings, for a packed dataset.

    Attributes:
        dataset: folder or URL of the packed dataset.
        output: folder for the pseudo-labels.
        teachers: at least one; all segment, or all classify.
        table: in their place, what a network of others says of the images.
        classes: of the pseudo masks, ``background`` among them; None for those of the first
            teacher. Each teacher must know all of them.
        combination: ``mean``, weighted; ``median``; or ``staple``, which weighs votes (probability
            above 0.5) by how reliable each teacher shows itself to be in an image (masks of one
            target only).
        privacy: teachers vote in private (pseudo-findings only); None stores what they say.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the forward pass; the mean is float32 always. ``auto`` is the fastest that
            keeps the stored masks within one grey level of float32's in all but 0.1 % of the
            pixels: ``tf32`` on a GPU, ``float32`` on a CPU. ``bfloat16`` does not keep them.
        threads: CPU threads of torch; None leaves torch's choice. One makes CPU results
            independent of the machine's number of cores.
        cache: folder for local copies when ``dataset`` is a URL.
    """

    dataset: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    teachers: list[TeacherConfig] = field(default_factory=list)
    table: FindingsTableConfig | None = None
    classes: list[str] | None = None
    combination: Literal["mean", "median", "staple"] = "mean"
    privacy: PrivacyConfig | None = None
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    device: str = "auto"
    precision: Literal["auto", "float32", "tf32", "bfloat16"] = "auto"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            bool(self.teachers) != bool(self.table),
            "teachers",
            "a list with at least one teacher, or left out where a table is given",
        )
        limits.require(
            not (self.table and (self.privacy or self.classes)),
            "privacy and classes",
            "left out with a table, which says its own",
        )
        weights = {each.weight for each in self.teachers}
        limits.require(
            self.combination == "mean" or len(weights) == 1,
            "combination",
            f"mean where teachers have weights of their own ({', '.join(map(str, weights))}); the "
            "median and STAPLE take each alike",
        )
        limits.require(
            self.combination == "mean" or self.privacy is None,
            "combination",
            "left out with privacy, under which teachers vote",
        )


@dataclass(frozen=True)
class InspectConfig(Limited):
    """``nakt inspect PSEUDO_LABELS``: counts, histograms and a sheet of overlays.

    Attributes:
        pseudo_labels: folder of pseudo-labels; or a packed dataset, whose findings and masks
            are counted, with sheets of its images and masks where ``output`` is given.
        dataset: the packed dataset they belong to: for the overlays of masks, and to compare
            pseudo-findings with its labels; None does neither.
        output: folder for the figures; by default ``PSEUDO_LABELS-inspection`` beside it.
        exclusion: the rule whose effect on pseudo masks is shown.
        confidence: the rule whose effect on pseudo-findings is shown.
        images: how many kept and how many excluded images the sheet shows.
        seed: of their choice.
        against: of a packed dataset: other packed datasets in which its images are looked for.
        near_duplicates: of a packed dataset: look also for pictures that are alike without having
            the same pixels; every image is decoded.
    """

    pseudo_labels: str = field(metadata=limits.PATH)
    dataset: str | None = field(default=None, metadata=limits.PATH)
    output: str | None = field(default=None, metadata=limits.PATH)
    exclusion: ExclusionRule = field(default_factory=ExclusionRule)
    confidence: ConfidenceRule = EVERYTHING
    images: int = field(default=8, metadata=limits.NOT_NEGATIVE)
    seed: int = field(default=0, metadata=limits.SEED)
    against: list[str] = field(default_factory=list, metadata=limits.PATHS)
    near_duplicates: bool = False


@dataclass(frozen=True)
class TrainingTeacherConfig(Signals, TrainedNetworkConfig, group="teacher"):
    """The frozen network that a student follows while it trains, and what it takes from it.

    Attributes:
        labels: its outputs' names in order, or a label set such as ``chestxray14``, when the
            weights file does not say; for signals that match outputs, such as distillation.
        card: licence and training images of a network whose file does not say them.
    """

    labels: str | list[str] | None = None
    card: NetworkCardConfig | None = None

    def __post_init__(self) -> None:
        TrainedNetworkConfig.__post_init__(self)
        Signals.__post_init__(self)
