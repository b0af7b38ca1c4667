"""Opens a trained network: its weights, architecture, input and origin."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nakt_dist.config import PreprocessingConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import load_into, read_weights

BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network read from a file.

    Attributes:
        name: of the run it comes from, or of the file.
        network: on the device asked for, in eval mode, without gradients.
        spec: its architecture.
        preprocessing: its input.
        lineage: what it was trained on, and from; empty for files that are not ours.
        weights_sha256: of the file.
    """

    name: str
    network: nn.Module
    spec: ModelSpec
    preprocessing: PreprocessingConfig
    lineage: Mapping[str, Any]
    weights_sha256: str


def weights_path(path: str | Path) -> Path:
    """Returns the weights file meant by a file, or by the output folder of a training run.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / BEST_WEIGHTS).is_file():
            raise CheckpointError(
                f"{path}: holds no {BEST_WEIGHTS}; expected a weights file or the output folder "
                "of a training run that has finished an epoch"
            )
        return path / BEST_WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    return path


def open_network(
    weights: str | Path,
    model: ModelSpec | None = None,
    preprocessing: PreprocessingConfig | None = None,
    device: torch.device | None = None,
    name: str | None = None,
) -> TrainedNetwork:
    """Reads a trained network; no code in the file is ever run.

    Args:
        weights: file, or output folder of a training run.
        model: architecture; None takes the file's own description.
        preprocessing: input; None takes the file's own description.
        device: where to put it; None for the CPU.
        name: what to call it; None derives it from the path.

    Raises:
        CheckpointError: the file is unsafe or damaged, or does not fit the architecture, or
            describes none and none is given.
    """
    path = weights_path(weights)
    loaded = read_weights(path)
    spec = model or loaded.spec
    if spec is None:
        raise CheckpointError(
            f"{path}: does not say which network it belongs to. Name it in the configuration "
            "as model: {name: …, in_channels: …}"
        )
    network = spec.without_encoder_weights().build()
    load_into(network, loaded)
    network.requires_grad_(False).eval()
    return TrainedNetwork(
        name=name or _name_of(path),
        network=network.to(device) if device is not None else network,
        spec=spec,
        preprocessing=preprocessing or _stored(loaded.metadata, "preprocessing", path),
        lineage=json.loads(loaded.metadata.get("lineage", "{}")),
        weights_sha256=loaded.sha256,
    )


def describe_for_file(
    preprocessing: PreprocessingConfig, lineage: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the metadata that ``open_network`` reads back from a weights file."""
    return {
        "preprocessing": json.dumps(asdict(preprocessing), sort_keys=True),
        "lineage": json.dumps(lineage, sort_keys=True),
    }


def _stored(metadata: Mapping[str, str], field: str, path: Path) -> PreprocessingConfig:
    if field not in metadata:
        return PreprocessingConfig()
    try:
        return PreprocessingConfig(**json.loads(metadata[field]))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its {field} cannot be read: {error}") from None


def _name_of(path: Path) -> str:
    return path.parent.name if path.name in (BEST_WEIGHTS, LAST_WEIGHTS) else path.stem
