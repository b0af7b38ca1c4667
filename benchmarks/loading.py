"""How many training images a second does the reader give, beside other libraries?

All read the same 256 × 256 grey JPEGs, each library as its documentation shows it and from its own
format, and give shuffled float32 batches in [0, 1] where they can. Augmentation is ours on whole
batches, and torchvision's transforms for a sample at a time in the peers.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks import loading_peers
from benchmarks.comparing import Scale, Table, Way, at_least, in_turns
from benchmarks.loading_peers import BATCH
from nakt_dist.config import (
    AugmentationConfig,
    DataConfig,
    ImageConfig,
    LabelConfig,
    PackConfig,
    PhantomsConfig,
    RecipeConfig,
    SplitConfig,
    TrainConfig,
)
from nakt_dist.loading.sampler import Share
from nakt_dist.loading.samples import select_samples
from nakt_dist.loading.targets import LabelledImages, labelled_targets
from nakt_dist.stages import pack, phantoms
from nakt_dist.training.inputs import TrainingInputs

CHEST = AugmentationConfig(
    smallest_crop=1.0, largest_rotation=15.0, gamma=(1.0, 1.0), contrast=(1.0, 1.0)
)


def chest_shards(folder: Path, images: int) -> Path:
    """Packs chest phantoms in CheXpert's layout, once for all questions of a run.

    Returns:
        The folder of 256 × 256 grey JPEGs in the split ``train``.
    """
    published, shards = folder / f"chest-{images}-published", folder / f"chest-{images}"
    if not shards.exists():
        phantoms.run(PhantomsConfig("chest_chexpert", str(published), images, 256))
        pack.run(
            PackConfig(
                "chexpert", str(published), str(shards), image=ImageConfig(256, 256),
                splits=SplitConfig({"train": 1.0}), samples_per_shard=max(images // 8, 1),
                workers=None if images >= 1000 else 1,
            )
        )  # fmt: skip
    return shards


def training_inputs(
    shards: Path,
    augmentation: AugmentationConfig | None,
    workers: int,
    cache_megabytes: int,
    batch: int = BATCH,
) -> TrainingInputs:
    """Returns what ``nakt train`` reads with, of one process."""
    config = TrainConfig(
        output="unused", data=DataConfig(str(shards), splits=["train"]),
        recipe=RecipeConfig(epochs=1, global_batch_size=batch), task="classification",
        augmentation=augmentation or AugmentationConfig(enabled=False), workers=workers,
        memory_cache_megabytes=cache_megabytes,
    )  # fmt: skip
    samples = select_samples(str(shards), ["train"])
    targets = labelled_targets(samples.images, LabelConfig())
    dataset = LabelledImages(samples, targets, cache_megabytes)
    share = Share.of(batch, 1, None)
    return TrainingInputs(config, dataset, share, 0, torch.device("cpu"))


def _ours(inputs: TrainingInputs) -> Way:
    steps = inputs.order.steps_per_epoch

    def epoch() -> int:
        inputs.open(0, steps)
        return sum(len(seen.image) for step in range(steps) for seen in inputs.micro_batches(step))

    return epoch


def _counted(read: Callable[[], Iterable[Any]]) -> Way:
    return lambda: sum(len(batch) for batch in read())


def measure(scale: Scale) -> list[Table]:
    """Reads an epoch in one process and with two workers' worth of cores."""
    shards = chest_shards(scale.folder, scale.pick(2000, 64))
    peers = loading_peers.Peers(shards, scale.folder / "peers", scale.smoke)
    tables = []
    for workers in (0, 2):
        torch.set_num_threads(max(workers, 1))
        for augmentation, direct, cached in (
            (None, 1.7, 8.0), (CHEST, None, 4.0), (AugmentationConfig(), None, 2.5)
        ):  # fmt: skip
            if scale.smoke and (augmentation == CHEST or bool(workers) != bool(augmentation)):
                continue  # the five kinds hold what it does, and two tables all ways
            ways: dict[str, Way] = {
                "nakt train": _ours(training_inputs(shards, augmentation, workers, 0)),
                "nakt train, cached": _ours(training_inputs(shards, augmentation, workers, 2048)),
            }
            for name, read in peers.ways(workers, augmentation).items():
                ways[name] = _counted(read)
            kind = loading_peers.kind_of(augmentation)
            title = f"{kind}, {f'{workers} workers' if workers else 'one process'}"
            bounds = {"nakt train": direct, "nakt train, cached": cached}
            targets = {way: at_least(bound) for way, bound in bounds.items() if bound}
            baseline = "ImageFolder" if augmentation else loading_peers.LEANEST
            tables.append(in_turns(title, ways, baseline, scale, targets))
    return tables
