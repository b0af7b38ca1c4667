"""Three tiny sources of one training: annotated, pseudo-labelled, and of another site."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from nakt_dist.config import SourceConfig, TrainConfig
from tests.datasets import make_packed_dataset, make_pseudo_labels
from tests.recipes import train_config

ALL = {"train": 1.0}


def make_sources(folder: Path) -> Path:
    """Packs ``squares`` (8 images), ``rings`` (20, pseudo-labelled) and ``site`` (12) there."""
    make_packed_dataset(folder, 8, splits=ALL)
    make_packed_dataset(folder, 20, splits=ALL, name="rings", seed=1, with_masks=False)
    make_packed_dataset(folder, 12, splits={"train": 0.5, "test": 0.5}, name="site", seed=2)
    make_pseudo_labels(folder, folder / "rings")
    return folder


def sources_of(folder: Path, *weights: float | None) -> list[SourceConfig]:
    """Returns 8, 20 and 5 images of the sources; by default 2, 4 and 2 of a batch of 8."""
    squares, rings, site = weights or (1.0, 2.0, 1.0)
    return [
        SourceConfig(str(folder / "squares"), weight=squares),
        SourceConfig(
            str(folder / "rings"), pseudo_labels=str(folder / "pseudo"), name="taught", weight=rings
        ),
        SourceConfig(str(folder / "site"), splits=["train"], count=5, weight=site),
    ]


def mixed_config(output: Path, folder: Path, steps: int = 6, **changes: Any) -> TrainConfig:
    """Returns settings of a training on them; four steps are an epoch."""
    config = train_config(output, folder, recipe={"steps": steps})
    return replace(config, **{"data": sources_of(folder), **changes})
