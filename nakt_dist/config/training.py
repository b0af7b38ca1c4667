"""Settings of ``train``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.config.recipe import RecipeConfig
from nakt_dist.config.selecting import (
    DataConfig,
    LabelConfig,
    SourceConfig,
    ValidationConfig,
    check_sources,
    is_unlabelled,
    weight_of,
)
from nakt_dist.config.teaching import TrainingTeacherConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig

_REFUSED_IN_NAMES = "/\\#?%:"
_LONGEST_NAME = 128
_LONGEST_TAG = 64
_MOST_PROFILED = 50
"""Steps; of a large network they are a million events, and 1.5 GB of memory."""


@dataclass(frozen=True)
class AugmentationConfig(Limited, group="augmentation"):
    """The paper's five augmentations; image and mask move together.

    Attributes:
        enabled: off trains on the images as they are.
        smallest_crop: rows and columns keep at least this share of their number.
        flip_probability: of a horizontal flip.
        largest_rotation: degrees, to both sides.
        gamma: range of the exponent.
        contrast: range of the factor around the image's mean.
    """

    enabled: bool = True
    smallest_crop: float = field(default=0.7, metadata=limits.SHARE)
    flip_probability: float = field(default=0.5, metadata=limits.within(0, 1, "in [0, 1]"))
    largest_rotation: float = field(default=45.0, metadata=limits.within(0, 360, "in [0, 360]"))
    gamma: tuple[float, float] = field(
        default=(0.7, 1.3),
        metadata=limits.limit(
            f"ascending, positive, at most {limits.LARGEST_FACTOR:g}",
            lambda ends: 0 < ends[0] <= ends[1] <= limits.LARGEST_FACTOR,
        ),
    )
    contrast: tuple[float, float] = field(
        default=(0.7, 1.3),
        metadata=limits.limit(
            f"ascending, 0 or more, at most {limits.LARGEST_FACTOR:g}",
            lambda ends: 0 <= ends[0] <= ends[1] <= limits.LARGEST_FACTOR,
        ),
    )


@dataclass(frozen=True)
class CheckpointConfig(Limited, group="checkpoint"):
    """When training writes what it needs to go on.

    Attributes:
        every_epochs: epochs between checkpoints and validations.
        every_steps: steps between checkpoints besides; None for none.
        keep: how many checkpoints stay, besides the best one; the one before the last is used
            should the last be damaged.
    """

    every_epochs: int = field(default=1, metadata=limits.POSITIVE)
    every_steps: int | None = field(default=None, metadata=limits.POSITIVE)
    keep: int = field(default=2, metadata=limits.POSITIVE)


@dataclass(frozen=True)
class TrackingConfig(Limited, group="tracking"):
    """Where metrics go besides ``metrics.jsonl``; never images, never identifiers.

    Attributes:
        wandb: ``off``, ``offline`` (files only, needs no account) or ``online``.
        project: W&B project, without the team.
        entity: W&B team or user; None takes that of ``WANDB_ENTITY``, or of the account.
        group: of W&B runs that belong together; None takes the name of the study that started
            the run, if one did.
        tags: of the W&B run, besides dataset, network, method, number of images and seed.
        every_steps: steps between logged training losses.
        prometheus_folder: where every process keeps a file for Prometheus' node exporter; None
            writes none.
    """

    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "nakt_dist"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    every_steps: int = field(default=1, metadata=limits.POSITIVE)
    prometheus_folder: str | None = field(default=None, metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("tracking.", self.project, self.entity, self.group, self.tags)


def check_names(
    where: str, project: str, entity: str | None, group: str | None, tags: Sequence[str]
) -> None:
    """Refuses names that W&B would not take.

    Args:
        where: what stands before the names of the fields.

    Raises:
        ConfigurationError: names the field and what is wrong.
    """
    team, slash, rest = project.partition("/")
    if slash and entity is None and not (_fault(team) or _fault(rest)):
        raise ConfigurationError(
            f"{where}project is {project!r}, and no / may be in the name of a W&B "
            f"project; set {where}entity to {team} and {where}project to {rest}"
        )
    for name, value in (("project", project), ("entity", entity)):
        if value is not None and (fault := _fault(value)):
            raise ConfigurationError(
                f"{where}{name} is {value[:60]!r}, {fault}; W&B takes names of 1 to "
                f"{_LONGEST_NAME} characters without {' '.join(_REFUSED_IN_NAMES)}"
            )
    if group is not None and not (group.strip() and len(group) <= _LONGEST_NAME):
        raise ConfigurationError(
            f"{where}group is {group[:60]!r}, expected 1 to {_LONGEST_NAME} characters, or null"
        )
    for tag in tags:
        if not (tag.strip() and len(tag) <= _LONGEST_TAG):
            raise ConfigurationError(
                f"{where}tags has {tag[:80]!r}, expected 1 to {_LONGEST_TAG} characters each"
            )


def _fault(name: str) -> str | None:
    """Says what W&B does not take in the name of a project or a team; None where it takes it."""
    refused = [character for character in _REFUSED_IN_NAMES if character in name]
    if refused:
        return f"with {' and '.join(refused)} in it"
    if not name.strip():
        return "which is empty"
    if name != name.strip() or not name.isprintable():
        return "with blanks around it or control characters in it"
    if len(name) > _LONGEST_NAME:
        return f"of {len(name)} characters"
    return None


@dataclass(frozen=True)
class ProfileConfig(Limited, group="profile"):
    """Which steps ``torch.profiler`` records; it decides no result.

    Attributes:
        steps: how many are recorded, 50 at most, for ``profile/page.html``, which says where their
            time goes, and for the trace beside it; None records none.
        after: steps of the launch before them, in which its speed settles.
    """

    steps: int | None = field(
        default=None,
        metadata=limits.within(
            1, _MOST_PROFILED, f"from 1 to {_MOST_PROFILED}, or null for no profile"
        ),
    )
    after: int = field(default=10, metadata=limits.POSITIVE)


@dataclass(frozen=True)
class TrainConfig(Limited):
    """``nakt train``: a network learns from masks, pseudo masks or findings, or from a teacher.

    Attributes:
        output: folder for checkpoints, metrics and the record; an unfinished run in it goes on.
        task: ``segmentation`` of a target, or ``classification`` of findings.
        model: the network; None takes that of ``init``, or the U-Net or DenseNet-121. A
            classifier gets as many outputs as there are findings.
        data: what it learns from: a dataset, or a list of several, each with its share.
        labels: which findings are learnt, and what unsure ones count as (classification).
        validation: what the best epoch is chosen on, by mean Dice or mean AUROC, of images that
            are not learnt from; None takes the last.
        teacher: a frozen network to follow while training: attention transfer, distillation.
        recipe: how.
        augmentation: of the training images.
        preprocessing: what the network sees; written into its weights file. What it leaves out
            is that of ``init``, or what is usual, see ``PreprocessingConfig``.
        init: weights to start from: an own run (paper A, algorithm 2), or a classifier's file
            from elsewhere, whose head is replaced where its findings are others (paper B);
            ``imagenet`` is EfficientNet-Lite0's, as the extra ``imagenet`` brings it. A
            classifier of timm starts the encoder ``tu-NAME`` of a network that segments.
        init_labels: what the outputs of a file from elsewhere mean, in order, or a label set
            such as ``chestxray14``: where these are the findings to learn, its head is kept.
        trainable: ``all``, ``last34`` (DenseNet-121's last 34 layers, paper B), or module paths;
            the rest keeps its values.
        frozen_bn_eval: BatchNorms that are not trained keep their statistics as well; the
            original went on updating them.
        checkpoint: when to save.
        tracking: W&B.
        profile: which steps are recorded, to say where their time goes.
        seed: of the weights, the order and the augmentation.
        device: ``auto`` or ``cpu``.
        workers: threads per process that read and decode the next batches; None takes its share
            of the cores, 0 reads a batch when a step wants it.
        memory_cache_megabytes: decoded images that the processes of a machine keep together, as
            many as fit; None takes up to half of the memory that is left, 0 keeps none.
        threads: CPU threads of torch per process; None leaves torch's choice.
        log_keys: write the keys of every global batch to ``batches.jsonl``.
        watchdog_seconds: when nothing happens for so long (a step, a batch of validation, a
            checkpoint), the job ends and says what each process was doing.
    """

    output: str = field(metadata=limits.PATH)
    data: DataConfig | list[SourceConfig]
    recipe: RecipeConfig
    task: Literal["segmentation", "classification"] = "segmentation"
    model: ModelSpec | None = None
    labels: LabelConfig | None = None
    validation: ValidationConfig | None = None
    teacher: TrainingTeacherConfig | None = None
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    preprocessing: PreprocessingConfig | None = None
    init: str | None = field(default=None, metadata=limits.PATH)
    init_labels: str | list[str] | None = None
    trainable: str | list[str] = "all"
    frozen_bn_eval: bool = False
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    seed: int = field(default=0, metadata=limits.SEED)
    device: Literal["auto", "cpu"] = "auto"
    workers: int | None = field(
        default=None,
        metadata=limits.within(
            0, limits.MOST_PROCESSES, f"0 or more, at most {limits.MOST_PROCESSES}"
        ),
    )
    memory_cache_megabytes: int | None = field(default=None, metadata=limits.NOT_NEGATIVE)
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    log_keys: bool = False
    watchdog_seconds: float = field(default=600.0, metadata=limits.SECONDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            isinstance(self.validation, ValidationConfig | None), "validation", "a ValidationConfig"
        )
        check_sources(self.sources)
        if self.is_streaming and self.recipe.steps is None:
            raise ConfigurationError(
                "data.streaming needs recipe.steps: a stream has no epochs. "
                "Set recipe.steps and recipe.epochs to null"
            )
        if self.recipe.early_stopping is not None and self.validation is None:
            raise ConfigurationError(
                "recipe.early_stopping needs validation, by which it stops; set validation, or "
                "recipe.early_stopping to null"
            )
        unlabelled = [source.dataset for source in self.sources if is_unlabelled(source)]
        if unlabelled and self.recipe.mean_teacher is None and self.teacher is None:
            raise ConfigurationError(
                f"data: {unlabelled[0]} is unlabelled, and nothing would be learnt from it; set "
                "recipe.mean_teacher, or teacher"
            )
        if self.task == "segmentation":
            limits.require(
                not (unlabelled or self.recipe.mean_teacher),
                "data.unlabelled and recipe.mean_teacher",
                "left out unless task is classification",
            )
            given = [self.labels, *(getattr(source, "labels", None) for source in self.sources)]
            limits.require(not any(given), "labels", "left out unless task is classification")
            limits.require(
                self.recipe.positive_weighting == "none",
                "recipe.positive_weighting",
                "none unless task is classification",
            )
            limits.require(
                not any(source.confidence for source in self.sources),
                "data.confidence",
                "left out unless task is classification; data.exclusion judges pseudo masks",
            )
        else:
            limits.require(
                not any(source.exclusion for source in self.sources),
                "data.exclusion",
                "left out where task is classification; data.confidence judges pseudo-findings",
            )
            limits.require(
                self.validation is None or self.validation.pseudo_labels is None,
                "validation.pseudo_labels",
                "left out where task is classification: an AUROC needs labels",
            )

    @property
    def sources(self) -> tuple[DataConfig, ...]:
        """The datasets that are learnt from, in order."""
        return tuple(self.data) if isinstance(self.data, list) else (self.data,)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The weight of each source; None where each image is learnt from once an epoch."""
        weights = map(weight_of, self.sources)
        return tuple(each for each in weights if each is not None) or None

    @property
    def is_streaming(self) -> bool:
        """Whether images are read through a shuffle buffer instead of by index."""
        return self.sources[0].streaming
