"""What the checks share: where they work, their data, and how a number is judged."""

import gc
import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import (
    AttentionTransferConfig,
    DataConfig,
    DistillationConfig,
    ImageConfig,
    PackConfig,
    PhantomsConfig,
    RecipeConfig,
    SplitConfig,
    TapConfig,
    TeachConfig,
    TeacherConfig,
    TrainConfig,
    TrainingTeacherConfig,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.stages import pack, phantoms, teach, train

TASKS = {
    "masks": "segmentation on masks",
    "pseudo": "segmentation on pseudo masks",
    "segmentation-attention": "segmentation after a teacher's maps and logits",
    "findings": "classification",
    "findings-attention": "classification after a teacher's maps",
}
_COMPILED_CLASSIFIER = ModelSpec("timm:test_resnet", in_channels=3)
_CLASSIFIER = ModelSpec("densenet40", in_channels=3)


class Absent(Exception):
    """This machine cannot try a check, through no fault of the product; says what is missing."""


@dataclass(frozen=True)
class Place:
    """Where a check works.

    Attributes:
        device: ``cuda`` or ``cpu``.
        work: folder of this whole run, which ``prepare`` has filled.
    """

    device: str
    work: Path

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU; without one sizes are small, and some checks impossible."""
        return self.device == "cuda"

    @property
    def setting(self) -> str:
        """What the stages are told as their device."""
        return "auto" if self.on_gpu else "cpu"

    @property
    def side(self) -> int:
        """Rows and columns of the packed images."""
        return 96 if self.on_gpu else 32

    @property
    def batch(self) -> int:
        """Images per optimiser step."""
        return 16 if self.on_gpu else 8

    def unet(self, **options: Any) -> ModelSpec:
        """A U-Net, narrow on a CPU."""
        return ModelSpec("unet", options={"base_channels": 32 if self.on_gpu else 4, **options})


SMP_NETWORKS = ("deeplabv3plus", "panoptic_fpn")
"""The papers' networks that need segmentation-models-pytorch."""


def need(*modules: str) -> None:
    """Raises Absent where a module is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise Absent(f"not installed: {', '.join(missing)} (give its wheel with --wheels)")


@dataclass
class Findings:
    """What a check measured, and what of it lies outside its tolerance."""

    numbers: dict[str, Any] = field(default_factory=dict)
    tolerance: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    headline: str = ""

    def expect(
        self, name: str, value: float, at_most: float | None = None, at_least: float | None = None
    ) -> None:
        """Notes a number, and judges it; one that is not a number fails whatever is expected."""
        self.numbers[name] = value
        limits = [("at most", at_most), ("at least", at_least)]
        wanted = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)
        self.tolerance[name] = wanted
        fine = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        if math.isnan(value) or not fine:
            self.failures.append(f"{name} is {value:g}, expected {wanted or 'a number'}")

    def expect_that(self, name: str, found: Any, expected: Any) -> None:
        """Notes a fact, and fails where it is another than expected."""
        self.numbers[name], self.tolerance[name] = found, f"equal to {expected}"
        if found != expected:
            self.failures.append(f"{name} is {found}, expected {expected}")


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Says whether convolutions on GPUs may take TF32 for float32, which is torch's default."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def empty_gpu() -> None:
    """Gives back what earlier runs of this process hold of the GPU's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def prepare(place: Place) -> Findings:
    """Makes phantoms, shards, teachers and pseudo masks on the CPU, which all checks use."""
    count = 160 if place.on_gpu else 80
    findings = Findings()
    for name, kind, layout in (
        ("breast", "breast_ultrasound", "busi"),
        ("thyroid", "thyroid_ultrasound", "paired_folders"),
        ("chest", "chest_chestxray14", "chestxray14"),
    ):
        published, side = place.work / "published" / name, place.side
        phantoms.run(PhantomsConfig(kind, str(published), count, side + 8))
        record = pack.run(
            PackConfig(
                layout, str(published), str(place.work / "shards" / name), name=name,
                image=ImageConfig(side, side, encoding="png"), masks=name != "chest",
                splits=SplitConfig({"train": 0.7, "test": 0.3}), samples_per_shard=32, workers=1,
            )
        )  # fmt: skip
        findings.expect(f"{name} images", record.counts["packed"], at_least=count / 2)
    for task, compiled in (("masks", False), ("findings", False), ("findings", True)):
        output = teacher_of(place, task, compiled)
        recipe = {"steps": 4, "learning_rate": 1e-3}
        train.run(task_config(place, task, output, "cpu", recipe, compiled))
    teacher = TeacherConfig(weights=str(teacher_of(place, "masks")))
    taught = teach.run(
        TeachConfig(
            str(place.work / "shards" / "thyroid"), str(place.work / "pseudo"), [teacher],
            device="cpu",
        )
    )  # fmt: skip
    findings.expect("pseudo masks", taught.counts["pseudo_labels"], at_least=count / 2)
    findings.headline = f"{count} images of {place.side}×{place.side} of three kinds"
    return findings


def teacher_of(place: Place, task: str, compiled: bool = False) -> Path:
    """Folder of the run that teaches a task."""
    return place.work / "teachers" / f"{task}{'-compiled' * compiled}"


def task_config(
    place: Place,
    task: str,
    output: Path,
    device: str,
    recipe: Mapping[str, Any],
    compiled: bool = False,
    **changes: Any,
) -> TrainConfig:
    """Returns the settings of one of ``TASKS``.

    Args:
        place: says sizes and data.
        task: a key of ``TASKS``.
        output: of the run.
        device: ``auto`` or ``cpu``.
        recipe: of ``RecipeConfig``, such as ``precision``.
        compiled: takes a classifier that compiles quickly, on either side of a comparison.
        **changes: other settings.
    """
    shards = place.work / "shards"
    finds = task.startswith("findings")
    dataset = {"masks": "breast", "findings": "chest", "findings-attention": "chest"}
    pseudo = None if finds or task == "masks" else str(place.work / "pseudo")
    settings: dict[str, Any] = {
        "output": str(output),
        "task": "classification" if finds else "segmentation",
        "model": place.unet(),
        "data": DataConfig(str(shards / dataset.get(task, "thyroid")), pseudo_labels=pseudo),
        "recipe": RecipeConfig(
            **{
                "global_batch_size": place.batch,
                "precision": "no",
                "channels_last": False,
                **recipe,
            }
        ),
        "device": device,
        "log_keys": True,
    }
    if finds:
        settings["model"] = _COMPILED_CLASSIFIER if compiled else _CLASSIFIER
    if task == "segmentation-attention":
        settings["teacher"] = TrainingTeacherConfig(
            weights=str(teacher_of(place, "masks")),
            attention=AttentionTransferConfig(
                taps=[TapConfig("encoder.4", "encoder.4")],
                reduction="zagoruyko", weight_mode="multiply", beta=1000.0,
            ),
            distillation=DistillationConfig(weight=0.5),
        )  # fmt: skip
    if task == "findings-attention":
        taps = {"taps": [TapConfig("layer2", "layer2")]} if compiled else {"preset": "paper"}
        settings["teacher"] = TrainingTeacherConfig(
            weights=str(teacher_of(place, "findings", compiled)),
            attention=AttentionTransferConfig(**taps),
        )
    return TrainConfig(**{**settings, **changes})
