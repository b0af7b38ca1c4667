"""Settings of ``teach`` and ``inspect``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist.config.plain import (
    LARGEST_FACTOR,
    LARGEST_SIDE,
    require,
    require_paths,
    require_positive,
    require_processes,
    require_seed,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.transfer.exclusion import ExclusionRule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images by channel, in [0, 1]; what torchvision and timm subtract."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation likewise; what they divide by."""


@dataclass(frozen=True)
class PreprocessingConfig:
    """What a network wants to see: pixels in [0, 1], then (x - mean) / std.

    Each setting that is left out is that of the weights file, or, where that says nothing or there
    is none, what is usual: the dataset's size, mean 0 and deviation 1, and ImageNet's for a
    classifier of three channels that nakt_dist did not write.

    Attributes:
        height: rows.
        width: columns.
        mean: subtracted; a number for every channel, or a list with one per input channel of
            the network, such as ``IMAGENET_MEAN``.
        std: divides; likewise.
    """

    height: int | None = None
    width: int | None = None
    mean: float | list[float] | None = None
    std: float | list[float] | None = None

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            side = getattr(self, name)
            require(
                side is None or 0 < side <= LARGEST_SIDE,
                f"preprocessing.{name}",
                f"positive, at most {LARGEST_SIDE}",
            )
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple):  # so that it equals its copy in a file
                value = list(value)
                object.__setattr__(self, name, value)
            require(
                value != [],
                f"preprocessing.{name}",
                "a number, or a list with one number per channel",
            )
            numbers = value if isinstance(value, list) else [value]
            require(
                value is None or all(abs(number) <= LARGEST_FACTOR for number in numbers),
                f"preprocessing.{name}",
                f"from {-LARGEST_FACTOR:g} to {LARGEST_FACTOR:g}",
            )
        deviations = self.std if isinstance(self.std, list) else [self.std]
        positive = self.std is None or all(each > 0 for each in deviations)
        require(positive, "preprocessing.std", "positive")


@dataclass(frozen=True)
class TeacherConfig:
    """One teacher of an ensemble.

    Attributes:
        weights: a ``.safetensors`` file (ours or another hospital's), or a legacy ``.pt``.
        name: what to call it; by default the file's folder.
        model: its architecture; None when the weights file names it, as ours do. Of the network
            that the file names, it replaces the options that it gives.
        preprocessing: its input, as far as it is not that of the weights file.
        weight: w of the weighted mean Σ w T(x) / Σ w (paper A, algorithm 1).
        output: ``soft`` probabilities, or ``binary`` (probability above 0.5).
    """

    weights: str
    name: str | None = None
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    weight: float = 1.0
    output: Literal["soft", "binary"] = "soft"

    def __post_init__(self) -> None:
        require_paths(self, "weights", prefix="teachers.")
        require_positive(self.weight, "teachers.weight")


@dataclass(frozen=True)
class TeachConfig:
    """``nakt teach``: teachers write pseudo masks for a packed dataset.

    Attributes:
        dataset: folder or URL of the packed dataset.
        output: folder for the pseudo-labels.
        teachers: at least one.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: autocast type of the forward pass; the mean is float32 always.
        threads: CPU threads of torch; None leaves torch's choice. One makes CPU results
            independent of the machine's number of cores.
        cache: folder for local copies when ``dataset`` is a URL.
    """

    dataset: str
    output: str
    teachers: list[TeacherConfig]
    batch_size: int = 16
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = None
    cache: str = "~/.cache/nakt_dist"

    def __post_init__(self) -> None:
        require_paths(self, "dataset", "output", "cache")
        require(len(self.teachers) > 0, "teachers", "a list with at least one teacher")
        require(self.batch_size > 0, "batch_size", "positive")
        require_processes(self.threads, "threads")


@dataclass(frozen=True)
class InspectConfig:
    """``nakt inspect PSEUDO_LABELS``: counts, histograms and a sheet of overlays.

    Attributes:
        pseudo_labels: folder of pseudo-labels; or a packed dataset, whose findings and masks
            are counted, with sheets of its images and masks where ``output`` is given.
        dataset: the packed dataset they belong to, for the overlays; None leaves them out.
        output: folder for the figures; by default ``PSEUDO_LABELS-inspection`` beside it.
        exclusion: the rule whose effect is shown.
        images: how many kept and how many excluded images the sheet shows.
        seed: of their choice.
        against: of a packed dataset: other packed datasets in which its images are looked for.
        near_duplicates: of a packed dataset: look also for pictures that are alike without having
            the same pixels; every image is decoded.
    """

    pseudo_labels: str
    dataset: str | None = None
    output: str | None = None
    exclusion: ExclusionRule = field(default_factory=ExclusionRule)
    images: int = 8
    seed: int = 0
    against: list[str] = field(default_factory=list)
    near_duplicates: bool = False

    def __post_init__(self) -> None:
        require_paths(self, "pseudo_labels", "dataset", "output")
        require_rule(self.exclusion, "exclusion")
        require(self.images >= 0, "images", "0 or more")
        require_seed(self.seed)


def require_rule(rule: ExclusionRule, name: str) -> None:
    """Refuses a rule of exclusion whose limits are no numbers that an image can reach."""
    for limit in ("alpha", "beta"):
        value = getattr(rule, limit)
        require(
            value is None or 0 <= value <= LARGEST_FACTOR,
            f"{name}.{limit}",
            f"from 0 to {LARGEST_FACTOR:g}, or null for no limit",
        )
