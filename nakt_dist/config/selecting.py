"""Settings that choose samples and their findings: those to learn from, and those to test on.

Each role has a class of its own, so that no default of one is taken for the other's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.sources.findings import LabelUse
from nakt_dist.transfer.classes import ClassMap
from nakt_dist.transfer.confidence import ConfidenceRule
from nakt_dist.transfer.exclusion import ExclusionRule

_SOURCE_NAME = limits.limit(
    "of 1 to 60 letters, digits, blanks, _ and -, not {value!r}",
    lambda name: re.fullmatch(r"[\w -]{1,60}", name) is not None,
)


@dataclass(frozen=True)
class _SelectionConfig(Limited):
    """What both roles have in common.

    Attributes:
        dataset: folder or URL of a packed dataset.
        splits: the splits used; null for all.
        pseudo_labels: folder or URL of pseudo-labels; None takes the dataset's own masks or
            findings.
        class_map: what the classes of the masks are called where they are learnt.
        exclusion: which images to leave out by their pseudo masks; None keeps all.
        count: only so many samples, chosen by ``subset_seed``; smaller choices are part of larger.
        subset_seed: of that choice.
    """

    dataset: str = field(metadata=limits.PATH)
    splits: list[str] | None = field(metadata=limits.SPLITS)
    pseudo_labels: str | None = field(default=None, metadata=limits.PATH)
    exclusion: ExclusionRule | None = None
    class_map: ClassMap = field(default_factory=ClassMap)
    count: int | None = field(default=None, metadata=limits.POSITIVE)
    subset_seed: int = field(default=0, metadata=limits.SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exclusion is not None and self.pseudo_labels is None:
            raise ConfigurationError(
                f"{self.GROUP}exclusion is set but {self.GROUP}pseudo_labels is not: exclusion "
                f"judges pseudo masks. Set {self.GROUP}pseudo_labels, or {self.GROUP}exclusion to "
                "null"
            )


@dataclass(frozen=True)
class DataConfig(_SelectionConfig, group="data"):
    """Which samples are learnt from, with which targets.

    Attributes:
        confidence: which pseudo-findings to learn from; None takes all of them as they are.
        streaming: read through a shuffle buffer instead of by index, for shards that do not
            fit on local disk; only statistically repeatable.
        shuffle_buffer: samples held for shuffling when streaming.
        cache: folder for local copies when a URL is read by index.
    """

    splits: list[str] | None = field(default_factory=lambda: ["train"], metadata=limits.SPLITS)
    confidence: ConfidenceRule | None = None
    streaming: bool = False
    shuffle_buffer: int = field(default=1000, metadata=limits.NOT_NEGATIVE)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            not self.streaming or self.shuffle_buffer, "data.shuffle_buffer", "1 or more"
        )
        if self.confidence is not None and self.pseudo_labels is None:
            raise ConfigurationError(
                "data.confidence is set but data.pseudo_labels is not: confidence judges "
                "pseudo-findings. Set data.pseudo_labels, or data.confidence to null"
            )
        if self.streaming and self.count is not None:
            raise ConfigurationError(
                "data.count with data.streaming: a stream has no order to choose from. "
                "Choose at pack time (pack --count), or read by index (data.streaming false)"
            )


@dataclass(frozen=True)
class LabelConfig:
    """The findings of a packed dataset as targets; changing this needs no re-packing.

    Attributes:
        names: a label set (``chexpert``, ``mimic_cxr``, ``chestxray14``,
            ``chestxray14_with_no_finding``, ``shared``), or a list of findings; None for all
            that the dataset has.
        uncertain: what -1 counts as; None takes the manifest's policy (by default zero, paper B).
            By finding, ``{default: zero, Edema: one, Atelectasis: one}``; without ``default``
            the manifest's holds for all others.
        blank: what a missing entry counts as; None takes the manifest's (by default zero).
    """

    names: str | list[str] | None = None
    uncertain: LabelUse | dict[str, LabelUse] | None = None
    blank: LabelUse | None = None


@dataclass(frozen=True)
class SourceConfig(DataConfig, group="data"):
    """One of several datasets that are learnt from together; see docs/mixtures.md.

    Attributes:
        name: of the source in logs and records; None takes the dataset's.
        weight: its share of each global batch is this by the sum of all; None, of all sources,
            learns from each image once an epoch.
        labels: what unsure labels of this source count as, where that differs from ``labels`` of
            the run, whose findings are those of all sources.
        unlabelled: learn nothing from its own labels, if it has any; its images are for
            ``recipe.mean_teacher`` and for what is taken from ``teacher`` (classification).
    """

    name: str | None = field(default=None, metadata=_SOURCE_NAME)
    weight: float | None = field(default=None, metadata=limits.FACTOR)
    labels: LabelConfig | None = None
    unlabelled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            not self.unlabelled or (self.pseudo_labels is None and self.labels is None),
            "pseudo_labels and labels of an unlabelled source of data",
            "left out: no label of it is learnt",
        )
        limits.require(
            self.labels is None or self.labels.names is None,
            "labels.names of a source of data",
            "left out: the findings are those of the run (labels.names), and those that a source "
            "does not know are ignored there",
        )


@dataclass(frozen=True)
class ValidationConfig(_SelectionConfig, group="validation"):
    """Which samples the best epoch is chosen on; they are never augmented, and read by index.

    Attributes:
        cache: folder for local copies of a URL; None takes that of ``data``.
        same_images: allow images, and with them patients, that are learnt from as well; the
            best epoch is then the one that remembers them best.
    """

    splits: list[str] | None = field(default_factory=lambda: ["validation"], metadata=limits.SPLITS)
    cache: str | None = field(default=None, metadata=limits.PATH)
    same_images: bool = False


def weight_of(source: DataConfig) -> float | None:
    """Returns the weight of a source, if it has one."""
    return source.weight if isinstance(source, SourceConfig) else None


def is_unlabelled(source: DataConfig) -> bool:
    """Says whether no label of a source is learnt."""
    return isinstance(source, SourceConfig) and source.unlabelled


def check_sources(sources: Sequence[DataConfig]) -> None:
    """Refuses sources that cannot be learnt from together.

    Raises:
        ConfigurationError: there are none, some have a weight and others not, two have one name,
            or one is a stream.
    """
    limits.require(sources, "data", "settings by name, or a list of at least one source")
    if is_unlabelled(sources[0]):
        raise ConfigurationError(
            f"data: {sources[0].dataset} is unlabelled and comes first; put a source with labels "
            "before it, whose findings and policy are the run's"
        )
    if len(sources) > 1 and any(source.streaming for source in sources):
        raise ConfigurationError(
            f"data.streaming with {len(sources)} sources: a stream has no order that others could "
            "be mixed into. Read by index (data.streaming false), or train on one dataset"
        )
    without = [source.dataset for source in sources if weight_of(source) is None]
    if without and len(without) < len(sources):
        raise ConfigurationError(
            f"data: {', '.join(without)} of {len(sources)} sources have no weight; give each one, "
            "or none to learn from each image once an epoch"
        )
    named = [source.name for source in sources if isinstance(source, SourceConfig)]
    names = [name for name in named if name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f"data: two sources are named {twice!r}; name them apart")
