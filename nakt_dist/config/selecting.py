"""Settings that choose samples: those to learn from, and those to choose the best epoch on.

Each role has a class of its own, so that no default of one is taken for the other's.
"""

from dataclasses import dataclass, field

from nakt_dist.config.plain import require, require_paths, require_seed, require_splits
from nakt_dist.config.teaching import require_rule
from nakt_dist.errors import ConfigurationError
from nakt_dist.transfer.exclusion import ExclusionRule


@dataclass(frozen=True)
class DataConfig:
    """Which samples are learnt from, with which targets.

    Attributes:
        dataset: folder or URL of a packed dataset.
        splits: the splits used; null for all.
        pseudo_labels: folder or URL of pseudo-labels; None takes the dataset's own masks.
        exclusion: which pseudo-labelled images to leave out; None keeps all.
        count: only so many samples, chosen by ``subset_seed``; smaller choices are part of larger.
        subset_seed: of that choice.
        streaming: read through a shuffle buffer instead of by index, for shards that do not
            fit on local disk; only statistically repeatable.
        shuffle_buffer: samples held for shuffling when streaming.
        cache: folder for local copies when a URL is read by index.
    """

    dataset: str
    splits: list[str] | None = field(default_factory=lambda: ["train"])
    pseudo_labels: str | None = None
    exclusion: ExclusionRule | None = None
    count: int | None = None
    subset_seed: int = 0
    streaming: bool = False
    shuffle_buffer: int = 1000
    cache: str = "~/.cache/nakt_dist"

    def __post_init__(self) -> None:
        _check_choice(self, "data")
        least = 1 if self.streaming else 0
        require(self.shuffle_buffer >= least, "data.shuffle_buffer", f"{least} or more")
        if self.streaming and self.count is not None:
            raise ConfigurationError(
                "data.count with data.streaming: a stream has no order to choose from. "
                "Choose at pack time (pack --count), or read by index (data.streaming false)"
            )


@dataclass(frozen=True)
class ValidationConfig:
    """Which samples the best epoch is chosen on; they are never augmented, and read by index.

    Attributes:
        dataset: folder or URL of a packed dataset.
        splits: the splits used; null for all.
        pseudo_labels: folder or URL of pseudo-labels; None takes the dataset's own masks.
        exclusion: which pseudo-labelled images to leave out; None keeps all.
        count: only so many samples, chosen by ``subset_seed``; smaller choices are part of larger.
        subset_seed: of that choice.
        cache: folder for local copies of a URL; None takes that of ``data``.
        same_images: allow images, and with them patients, that are learnt from as well; the
            best epoch is then the one that remembers them best.
    """

    dataset: str
    splits: list[str] | None = field(default_factory=lambda: ["validation"])
    pseudo_labels: str | None = None
    exclusion: ExclusionRule | None = None
    count: int | None = None
    subset_seed: int = 0
    cache: str | None = None
    same_images: bool = False

    def __post_init__(self) -> None:
        _check_choice(self, "validation")


def _check_choice(config: DataConfig | ValidationConfig, role: str) -> None:
    """Checks what both roles have in common."""
    require_paths(config, "dataset", "pseudo_labels", "cache", prefix=f"{role}.")
    require_splits(config.splits, f"{role}.splits")
    require(config.count is None or config.count > 0, f"{role}.count", "positive")
    require_seed(config.subset_seed, f"{role}.subset_seed")
    if config.exclusion is not None:
        require_rule(config.exclusion, f"{role}.exclusion")
        if config.pseudo_labels is None:
            raise ConfigurationError(
                f"{role}.exclusion is set but {role}.pseudo_labels is not: exclusion judges pseudo "
                f"masks. Set {role}.pseudo_labels, or {role}.exclusion to null"
            )
