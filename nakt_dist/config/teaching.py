"""Settings of ``teach`` and ``inspect``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.limits import Limited
from nakt_dist.models.spec import ModelSpec
from nakt_dist.transfer.exclusion import ExclusionRule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images by channel, in [0, 1]; what torchvision and timm subtract."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation likewise; what they divide by."""

_SIDE = limits.within(
    1, limits.LARGEST_INPUT_SIDE, f"positive, at most {limits.LARGEST_INPUT_SIDE}"
)
_CHANNELS = limits.within(
    -limits.LARGEST_FACTOR,
    limits.LARGEST_FACTOR,
    f"from {-limits.LARGEST_FACTOR:g} to {limits.LARGEST_FACTOR:g}",
)


@dataclass(frozen=True)
class PreprocessingConfig(Limited, group="preprocessing"):
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

    height: int | None = field(default=None, metadata=_SIDE)
    width: int | None = field(default=None, metadata=_SIDE)
    mean: float | list[float] | None = field(default=None, metadata=_CHANNELS)
    std: float | list[float] | None = field(default=None, metadata=_CHANNELS)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple):  # so that it equals its copy in a file
                value = list(value)
                object.__setattr__(self, name, value)
            expected = "a number, or a list with one number per channel"
            limits.require(value != [], f"preprocessing.{name}", expected)
        super().__post_init__()
        deviations = self.std if isinstance(self.std, list) else [self.std]
        positive = all(each is None or each > 0 for each in deviations)
        limits.require(positive, "preprocessing.std", "positive")


@dataclass(frozen=True)
class TrainedNetworkConfig(Limited):
    """A network that has been trained, here or elsewhere.

    Attributes:
        weights: a ``.safetensors`` file (ours or another hospital's), a legacy ``.pt``, or the
            output folder of a training run (its best weights).
        name: what to call it; by default the file's folder.
        model: its architecture; None when the weights file names it, as ours do. Of the network
            that the file names, it replaces the options that it gives.
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
        output: ``soft`` probabilities, or ``binary`` (probability above 0.5).
    """

    weight: float = field(default=1.0, metadata=limits.FACTOR)
    output: Literal["soft", "binary"] = "soft"


@dataclass(frozen=True)
class TeachConfig(Limited):
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

    dataset: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    teachers: list[TeacherConfig] = field(
        metadata=limits.limit("a list with at least one teacher", len)
    )
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)


@dataclass(frozen=True)
class InspectConfig(Limited):
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

    pseudo_labels: str = field(metadata=limits.PATH)
    dataset: str | None = field(default=None, metadata=limits.PATH)
    output: str | None = field(default=None, metadata=limits.PATH)
    exclusion: ExclusionRule = field(default_factory=ExclusionRule)
    images: int = field(default=8, metadata=limits.NOT_NEGATIVE)
    seed: int = field(default=0, metadata=limits.SEED)
    against: list[str] = field(default_factory=list)
    near_duplicates: bool = False
