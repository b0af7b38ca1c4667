"""Settings of ``attention``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist.config.plain import (
    require,
    require_paths,
    require_processes,
    require_seed,
    require_splits,
)
from nakt_dist.config.teaching import PreprocessingConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.signals import TapConfig


@dataclass(frozen=True)
class ShownNetworkConfig:
    """A trained network whose attention is shown.

    Attributes:
        weights: weights file, or output folder of a training run (its best weights).
        name: what to call it; by default the file's folder.
        model: its architecture; None when the weights file names it, as ours do.
        preprocessing: its input, as far as it is not that of the weights file.
        labels: its outputs' names in order, or a label set such as ``chestxray14``, when the
            weights file does not say.
    """

    weights: str
    name: str | None = None
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: str | list[str] | None = None


@dataclass(frozen=True)
class AttentionConfig:
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
    dataset: str
    output: str
    splits: list[str] | None = field(default_factory=lambda: ["test"])
    preset: Literal["paper", "authors_code"] | None = None
    taps: list[TapConfig] | None = None
    labels: list[str] | None = None
    images: int = 8
    samples: list[str] | None = None
    similarity_images: int | None = None
    batch_size: int = 16
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    cache: str = "~/.cache/nakt_dist"

    def __post_init__(self) -> None:
        require_paths(self, "dataset", "output", "cache")
        require_splits(self.splits, "splits")
        if self.preset is not None and self.taps:
            raise ConfigurationError(
                f"preset is {self.preset} and taps are set as well; leave out one of them"
            )
        require(0 < self.images <= 64, "images", "from 1 to 64")
        require(
            self.samples is None or 0 < len(self.samples) <= 64, "samples", "a list of 1 to 64 keys"
        )
        require(self.labels is None or self.labels, "labels", "a list of findings, or left out")
        for name in ("labels", "samples"):
            values = getattr(self, name) or []
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ConfigurationError(f"{name} has '{twice}' twice; leave it there once")
        require(
            self.similarity_images is None or self.similarity_images > 0,
            "similarity_images",
            "positive",
        )
        require(self.batch_size > 0, "batch_size", "positive")
        require_seed(self.seed)
        require_processes(self.threads, "threads")
