"""How long does a step of ``nakt train`` take, beside a loop written by hand?

The loops by hand have one batch in memory and do nothing but the step: neither reading nor
augmentation, no logging, no look for losses that are not finite. One is as most people begin, in
float32 with torch's defaults; the other has the settings that ``nakt train`` chose by itself.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from benchmarks.comparing import Scale, Table, Way, at_most, in_turns
from benchmarks.loading import CHEST, chest_shards
from nakt_dist.config import (
    AugmentationConfig,
    CheckpointConfig,
    DataConfig,
    ImageConfig,
    PackConfig,
    PhantomsConfig,
    PreprocessingConfig,
    RecipeConfig,
    SplitConfig,
    TrainConfig,
    TrainingTeacherConfig,
)
from nakt_dist.models import ModelSpec
from nakt_dist.runtime.beside import Beside
from nakt_dist.runtime.processes import own_cores, process_place
from nakt_dist.runtime.watchdog import Watchdog
from nakt_dist.stages import pack, phantoms, train
from nakt_dist.training import milestones
from nakt_dist.training.loop import TrainingLoop
from nakt_dist.training.run import TrainingRun
from nakt_dist.transfer.losses import segmentation_loss

FINDINGS = 14
_NEVER = 100_000
_NOTE = "A loop by hand does not read, augment, log or look for losses that are not finite."
Step = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A network and its batches.

    Attributes:
        spec: the network; of three channels it learns chest findings, else thyroid masks.
        batch: images a step.
        side: of an image.
        steps: between two looks at the clock.
    """

    spec: ModelSpec
    batch: int
    side: int
    steps: int

    @property
    def is_chest(self) -> bool:
        """Whether it learns findings."""
        return self.spec.in_channels == 3

    @property
    def preprocessing(self) -> PreprocessingConfig:
        """What the network sees: ImageNet's colours, or grey as it is stored."""
        size = {"height": self.side, "width": self.side}
        if not self.is_chest:
            return PreprocessingConfig(**size)
        return PreprocessingConfig(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], **size)

    def config(self, scale: Scale, teacher: TrainingTeacherConfig | None = None) -> TrainConfig:
        """Returns the command: defaults, but that it never saves or scores."""
        following = f"-after-{Path(teacher.weights).stem}" if teacher else ""
        images = max(scale.pick(80, 16), self.batch)
        if self.is_chest:
            shards = chest_shards(scale.folder, images)
        else:
            shards = thyroid_shards(scale.folder, images, self.side)
        return TrainConfig(
            output=str(scale.folder / f"train-{self.spec.name}{following}"),
            data=DataConfig(str(shards)),
            recipe=RecipeConfig(steps=_NEVER, global_batch_size=self.batch),
            task="classification" if self.is_chest else "segmentation",
            model=self.spec,
            teacher=teacher,
            augmentation=CHEST if self.is_chest else AugmentationConfig(),
            preprocessing=self.preprocessing,
            checkpoint=CheckpointConfig(every_epochs=_NEVER),
            device="auto" if scale.gpu else "cpu",
        )


def thyroid_shards(folder: Path, images: int, side: int) -> Path:
    """Packs thyroid phantoms with masks, once for all questions of a run.

    Returns:
        The folder of ``side`` × ``side`` grey images in the split ``train``.
    """
    name = f"thyroid-{images}-{side}"
    published, shards = folder / f"{name}-published", folder / name
    if not shards.exists():
        phantoms.run(PhantomsConfig("thyroid_ultrasound", str(published), images, side))
        pack.run(
            PackConfig(
                "paired_folders", str(published), str(shards), image=ImageConfig(side, side),
                splits=SplitConfig({"train": 1.0}), samples_per_shard=max(images // 8, 1),
            )
        )  # fmt: skip
    return shards


class OurSteps:
    """Steps of ``nakt train``, from reading to logging, a few at a time.

    Attributes:
        recipe: with the settings that it chose by itself.
        network: a copy of what it starts from.
    """

    def __init__(self, config: TrainConfig) -> None:
        run = run_of(config)
        self.recipe = run.config.recipe
        self.network = copy.deepcopy(run.network)
        self._run, self._loop = run, TrainingLoop(run)

    def way(self, steps: int) -> Way:
        """Returns a way that goes on by so many steps."""

        def go_on() -> int:
            loop = self._loop
            loop.total_steps = loop.progress.step + steps
            # A watchdog's thread serves one launch.
            loop._watchdog = Watchdog(self._run.output, process_place(), 3600.0)
            loop.milestones.beat = loop._watchdog.beat
            loop.train()
            return steps * self.recipe.global_batch_size

        return waiting(go_on)


class _Ready(Exception):
    """Carries what a run consists of out of the command, when all is opened."""

    def __init__(self, run: TrainingRun) -> None:
        self.run = run


def run_of(config: TrainConfig) -> TrainingRun:
    """Returns a training that is opened and has not begun."""

    def leave(run: TrainingRun) -> None:
        raise _Ready(run)

    with mock.patch.object(train, "TrainingLoop", leave):
        try:
            train.run(config)
        except _Ready as ready:
            return ready.run
    raise AssertionError("the command ended before its loop began")


class LoopByHand:
    """A network, Adam and one batch.

    Args:
        module: what is called with images; its parameters are trained.
        recipe: of precision and memory format; None for float32 with torch's defaults.
    """

    def __init__(
        self, case: Case, module: nn.Module, device: torch.device, recipe: RecipeConfig | None
    ) -> None:
        last = recipe is not None and bool(recipe.channels_last)
        form = torch.channels_last if last else torch.contiguous_format
        size = case.batch, case.spec.in_channels, case.side, case.side
        self.image = torch.rand(size, device=device).contiguous(memory_format=form)
        shape = (case.batch, FINDINGS) if case.is_chest else (case.batch, 1, case.side, case.side)
        self.target = (torch.rand(shape, device=device) > 0.5).float()
        self.module = module.to(device).to(memory_format=form).train()
        fused = recipe is not None or None
        self.optimiser = torch.optim.Adam(module.parameters(), lr=1e-4, fused=fused)
        self._case, self._device, self._recipe = case, device, recipe

    def autocast(self) -> AbstractContextManager[Any]:
        """Surrounds forward passes."""
        types = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = types.get(self._recipe.precision) if self._recipe is not None else None
        return nullcontext() if dtype is None else torch.autocast(self._device.type, dtype)

    def losses(self) -> torch.Tensor:
        """Runs the network and returns the loss of the batch."""
        with self.autocast():
            output = self.module(self.image)
        return self.judge(output)

    def judge(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the loss of logits."""
        if self._case.is_chest:
            return functional.binary_cross_entropy_with_logits(logits.float(), self.target)
        return segmentation_loss(logits.float(), self.target)["loss"]

    def way(self, steps: int) -> Way:
        """Returns a way that does so many steps."""

        def repeat() -> int:
            for _ in range(steps):
                self.optimiser.zero_grad()
                self.losses().backward()
                self.optimiser.step()
            return steps * len(self.image)

        return waiting(repeat)


def waiting(way: Way) -> Way:
    """Returns a way that ends when the GPU, if there is one, has."""

    def wait() -> int:
        done = way()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return done

    return wait


def prepare(scale: Scale) -> torch.device:
    """Gives the CPU all its cores, and returns the device."""
    torch.set_num_threads(1 if scale.smoke else own_cores(None))
    return torch.device("cuda" if scale.gpu else "cpu")


def chest_case(scale: Scale, name: str, steps: int) -> Case:
    """Returns a DenseNet on chest X-rays of 256 × 256."""
    spec = ModelSpec(name, in_channels=3, num_outputs=FINDINGS)
    batch = scale.pick(64 if scale.gpu else 8, 2)
    return Case(spec, batch, scale.pick(256, 64), scale.pick(steps if scale.gpu else 2, 1))


def measure(scale: Scale) -> list[Table]:
    """Trains DenseNet-121 and a U-Net, a light one on a CPU."""
    side = 384 if scale.gpu else scale.pick(256, 64)
    light = ModelSpec("unet", options={"base_channels": scale.pick(16, 4)})
    unet = Case(
        ModelSpec("unet") if scale.gpu else light, scale.pick(16 if scale.gpu else 4, 2), side,
        scale.pick(20 if scale.gpu else 3, 1),
    )  # fmt: skip
    tables = []
    for case in (chest_case(scale, "densenet121", 20), unet):
        tables += _compared(case, scale)
    return [*tables, _saving(chest_case(scale, "densenet121", 20), scale)]


class _AtOnce(Beside):
    """The plain way to save: all wait until it is written."""

    def add(self, work: Callable[[], object]) -> None:
        super().add(work)
        self.wait()


def _saving(case: Case, scale: Scale) -> Table:
    """Trains with a checkpoint after each few steps, written between or beside the steps."""
    prepare(scale)

    def way(writer: type[Beside]) -> Way:
        config = replace(
            case.config(scale),
            output=str(scale.folder / f"train-saving-{writer.__name__}"),
            checkpoint=CheckpointConfig(every_epochs=_NEVER, every_steps=case.steps),
        )
        with mock.patch.object(milestones, "Beside", writer):
            return OurSteps(config).way(3 * case.steps)

    ways = {"written between steps": way(_AtOnce), "written beside steps": way(Beside)}
    title = (
        f"{case.spec.name}, {case.side}², batch {case.batch}, checkpoint each {case.steps} steps"
    )
    return in_turns(title, ways, "written between steps", scale, takes_time=True)


def _compared(case: Case, scale: Scale) -> list[Table]:
    device = prepare(scale)
    ours = OurSteps(case.config(scale))
    bare = LoopByHand(case, copy.deepcopy(ours.network), device, None)
    same = LoopByHand(case, ours.network, device, ours.recipe)
    title = f"{case.spec.name}, {case.side}², batch {case.batch}, beside a"
    chosen = f"precision {ours.recipe.precision}, channels_last {ours.recipe.channels_last}"
    note = f"{_NOTE} Ours chose {chosen}."
    tables = []
    for other, loop, bound in (
        ("float32 loop by hand", bare, at_most(0.75)),
        ("loop by hand, same settings", same, at_most(1.03)),
    ):
        ways = {other: loop.way(case.steps), "nakt train": ours.way(case.steps)}
        targets = {"nakt train": bound}
        tables.append(
            in_turns(f"{title} {other}", ways, other, scale, targets, takes_time=True, note=note)
        )
    return tables
