"""Tiny runs of each stage, and what tests look at in their outputs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from nakt_dist.config import (
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    GivenImageConfig,
    ImageConfig,
    PackConfig,
    PredictConfig,
    RecipeConfig,
    TeachConfig,
    TeacherConfig,
    TrainConfig,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.files import file_sha256

TINY_UNET = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"})


def train_config(
    output: Path,
    dataset: Path,
    recipe: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    **changes: Any,
) -> TrainConfig:
    """Six steps of 8 images in float32 on one CPU thread, a checkpoint every second step."""
    settings = {
        "output": str(output),
        "data": DataConfig(dataset=str(dataset), **(data or {})),
        "recipe": RecipeConfig(
            **(
                {"steps": 6, "global_batch_size": 8, "learning_rate": 1e-2, "precision": "no"}
                | (recipe or {})
            )
        ),
        "model": TINY_UNET,
        "checkpoint": CheckpointConfig(every_steps=2),
        "device": "cpu",
        "threads": 1,
        "log_keys": True,
    }
    return TrainConfig(**{**settings, **changes})


def teach_config(
    output: Path, dataset: Path, *teachers: Path | TeacherConfig, **changes: Any
) -> TeachConfig:
    """Teachers, or the weights of teachers with default settings, on one CPU thread."""
    config = TeachConfig(
        dataset=str(dataset),
        output=str(output),
        teachers=[
            each if isinstance(each, TeacherConfig) else TeacherConfig(weights=str(each))
            for each in teachers
        ],
        device="cpu",
        threads=1,
    )
    return replace(config, **changes)


def evaluate_config(output: Path, dataset: Path, weights: Path, **changes: Any) -> EvaluateConfig:
    """All splits, a few resamplings, on one CPU thread."""
    config = EvaluateConfig(
        weights=str(weights),
        dataset=str(dataset),
        output=str(output),
        splits=None,
        bootstrap_samples=100,
        device="cpu",
        threads=1,
    )
    return replace(config, **changes)


def predict_config(output: Path, weights: Path, images: Path, **changes: Any) -> PredictConfig:
    """One image a batch at 32 × 32 pixels, unless ``as_packed`` is given, on one CPU thread."""
    small = GivenImageConfig() if "as_packed" in changes else GivenImageConfig(32, 32)
    config = PredictConfig(
        str(weights), str(images), str(output), image=small, batch_size=1, device="cpu", threads=1
    )
    return replace(config, **changes)


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file at any depth: left-overs have no place to hide."""
    return {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged_losses(output: Path) -> list[tuple[int, float]]:
    """Step and training loss of every logged step, in the order of the file."""
    lines = read_lines(output / "metrics.jsonl")
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]


def pack_config(source: Path, output: Path, workers: int = 1) -> PackConfig:
    """Images with masks at 64 × 64 pixels, four a shard."""
    return PackConfig(
        layout="image_folder",
        source=str(source),
        output=str(output),
        image=ImageConfig(height=64, width=64),
        samples_per_shard=4,
        workers=workers,
    )
