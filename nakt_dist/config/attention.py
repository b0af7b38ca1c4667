"""Settings of ``attention``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.config.teaching import TrainedNetworkConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.signals import TapConfig


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
