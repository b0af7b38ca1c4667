"""Settings that choose samples and their findings: those to learn from, and those to test on.

Each role has a class of its own, so that no default of one is taken for the other's.
"""

from dataclasses import dataclass, field

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.sources.findings import LabelUse
from nakt_dist.transfer.exclusion import ExclusionRule


@dataclass(frozen=True)
class _SelectionConfig(Limited):
    """What both roles have in common.

    Attributes:
        dataset: folder or URL of a packed dataset.
        splits: the splits used; null for all.
        pseudo_labels: folder or URL of pseudo-labels; None takes the dataset's own masks.
        exclusion: which pseudo-labelled images to leave out; None keeps all.
        count: only so many samples, chosen by ``subset_seed``; smaller choices are part of larger.
        subset_seed: of that choice.
    """

    dataset: str = field(metadata=limits.PATH)
    splits: list[str] | None = field(metadata=limits.SPLITS)
    pseudo_labels: str | None = field(default=None, metadata=limits.PATH)
    exclusion: ExclusionRule | None = None
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
        streaming: read through a shuffle buffer instead of by index, for shards that do not
            fit on local disk; only statistically repeatable.
        shuffle_buffer: samples held for shuffling when streaming.
        cache: folder for local copies when a URL is read by index.
    """

    splits: list[str] | None = field(default_factory=lambda: ["train"], metadata=limits.SPLITS)
    streaming: bool = False
    shuffle_buffer: int = field(default=1000, metadata=limits.NOT_NEGATIVE)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            not self.streaming or self.shuffle_buffer, "data.shuffle_buffer", "1 or more"
        )
        if self.streaming and self.count is not None:
            raise ConfigurationError(
                "data.count with data.streaming: a stream has no order to choose from. "
                "Choose at pack time (pack --count), or read by index (data.streaming false)"
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


@dataclass(frozen=True)
class LabelConfig:
    """The findings of a packed dataset as targets; changing this needs no re-packing.

    Attributes:
        names: a label set (``chexpert``, ``mimic_cxr``, ``chestxray14``,
            ``chestxray14_with_no_finding``, ``shared``), or a list of findings; None for all
            that the dataset has.
        uncertain: what -1 counts as; None takes the manifest's policy (by default zero, paper B).
        blank: what a missing entry counts as; None takes the manifest's (by default zero).
    """

    names: str | list[str] | None = None
    uncertain: LabelUse | None = None
    blank: LabelUse | None = None
