"""Opens a trained network: its weights, architecture, input and origin."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nakt_dist.config import PreprocessingConfig
from nakt_dist.config.plain import LARGEST_SIDE
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.described import build_configured, build_described, check_finite
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import ModelSpec, is_nested_deeper
from nakt_dist.models.weights import LoadedWeights, load_into, read_weights
from nakt_dist.runtime.processes import say

BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"

_MOST_NESTED = 200  # a lineage holds those of its teachers


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
        model: architecture; None takes the file's own description. A classifier's number of
            outputs, where it is left at 1, is that of the head in the file.
        preprocessing: input; None takes the file's own description.
        device: where to put it; None for the CPU.
        name: what to call it; None derives it from the path.

    Raises:
        ConfigurationError: ``model`` cannot be built, or is larger than any network.
        CheckpointError: the file is unsafe or damaged, holds values that are not finite, does
            not fit the architecture, describes none and none is given, or describes itself in
            a way that no file of ours does.
    """
    path = weights_path(weights)
    loaded = read_weights(path)
    check_finite(loaded)
    spec = model or loaded.spec
    if spec is None:
        raise CheckpointError(
            f"{path}: does not say which network it belongs to. Name it in the configuration "
            "as model: {name: …, in_channels: …}"
        )
    bare = spec.without_encoder_weights()
    network = build_configured(bare) if model is not None else build_described(loaded, bare)
    if loaded.spec is None and is_classifier(spec.name):
        loaded = _in_our_names(loaded, network)
    if model is not None and is_classifier(spec.name):
        spec = replace(spec, num_outputs=_outputs_of(loaded, network, spec))
        if spec != model:
            say(f"{path.name}: takes its {spec.num_outputs} outputs from the head in the file")
            network = build_configured(spec.without_encoder_weights())
    load_into(network, loaded)
    network.requires_grad_(False).eval()
    return TrainedNetwork(
        name=name or name_of_weights(path),
        network=network.to(device) if device is not None else network,
        spec=spec,
        preprocessing=preprocessing or stored_preprocessing(loaded, spec.in_channels),
        lineage=stored_lineage(loaded),
        weights_sha256=loaded.sha256,
    )


def _in_our_names(loaded: LoadedWeights, network: nn.Module) -> LoadedWeights:
    """Takes a foreign classifier's file in any of the styles that ``initialise`` knows.

    Old files lack BatchNorm's counters of batches, which play no part in a trained network.
    """
    from nakt_dist.models.initialise import rename_entries  # it imports this module

    wanted = network.state_dict()
    found = rename_entries(loaded.state_dict, wanted)
    counters = {
        name: tensor
        for name, tensor in wanted.items()
        if name.endswith(".num_batches_tracked")
        and name.replace("num_batches_tracked", "running_mean") in found
    }
    return replace(loaded, state_dict=counters | found)


def _outputs_of(loaded: LoadedWeights, network: nn.Module, spec: ModelSpec) -> int:
    """Returns how many outputs the head in a file has, where the configuration leaves it open."""
    from nakt_dist.models.initialise import head_prefixes  # as above

    if spec.num_outputs != ModelSpec().num_outputs:
        return spec.num_outputs
    found, prefixes = loaded.state_dict, head_prefixes(network)
    counts = {
        len(found[name])
        for name, tensor in network.state_dict().items()
        if name.startswith(prefixes)
        and name in found
        and found[name].shape[1:] == tensor.shape[1:]
        and len(tensor) == spec.num_outputs
    }
    return counts.pop() if len(counts) == 1 and min(counts) > 0 else spec.num_outputs


def describe_for_file(
    preprocessing: PreprocessingConfig, lineage: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the metadata that ``open_network`` reads back from a weights file."""
    return {
        "preprocessing": json.dumps(asdict(preprocessing), sort_keys=True),
        "lineage": json.dumps(lineage, sort_keys=True),
    }


def stored_lineage(loaded: LoadedWeights) -> dict[str, Any]:
    """Returns what a file's network was trained on, and from; empty for files not ours.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    return _stored(loaded.metadata, "lineage", loaded.path)


def _stored(metadata: Mapping[str, str], field: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(field, "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its {field} cannot be read: {error}") from None
    if not isinstance(value, dict) or is_nested_deeper(value, _MOST_NESTED):
        found = "nested too deeply" if isinstance(value, dict) else f"a JSON {type(value).__name__}"
        raise CheckpointError(
            f"{path}: its {field} is {found}, expected an object; copy the "
            "file again from its origin"
        )
    return value


def describe_other_size(trained: TrainedNetwork, height: int, width: int) -> str | None:
    """Says that a network is about to see images of another size than it learnt from, if so.

    Args:
        trained: the network; one whose preprocessing fixes the size sees that of its own.
        height: rows of the images.
        width: columns of the images.

    Returns:
        A sentence for the user; None where the sizes agree or are not known.
    """
    learnt = trained.lineage.get("trained_on")
    known = learnt if isinstance(learnt, Mapping) else {}
    seen = trained.preprocessing
    before = (known.get("height"), known.get("width"))
    now = (seen.height or height, seen.width or width)
    if None in before or before == now:
        return None
    return (
        f"{trained.name} learnt from images of {before[0]} × {before[1]} pixels and sees "
        f"{now[0]} × {now[1]} here; its preprocessing.height and width bring images to a size"
    )


def stored_output_names(trained: TrainedNetwork, weights: str) -> tuple[str, ...] | None:
    """Returns what a classifier of ours answers, in the order of its outputs; None if unsaid.

    Args:
        trained: the network.
        weights: as the user named it, for the message.

    Raises:
        CheckpointError: the names are damaged.
    """
    names = trained.lineage.get("labels")
    if names is None:
        return None
    count = trained.spec.num_outputs
    texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not texts or len(set(names)) != len(names) or len(names) != count:
        raise CheckpointError(
            f"{weights}: its lineage names the labels {str(names)[:80]}, expected {count} "
            "different names, one per output; copy the file again from its origin"
        )
    return tuple(names)


def stored_preprocessing(loaded: LoadedWeights, channels: int) -> PreprocessingConfig:
    """Returns the input that a file's network is used to; the default for files not ours.

    Args:
        loaded: the file.
        channels: image channels of the network.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    path = loaded.path
    values = _stored(loaded.metadata, "preprocessing", path)
    for name, value in values.items():
        side = name in ("height", "width")
        if not (_is_side(value) if side else _is_per_channel(value, channels)):
            expected = (
                f"null or a whole number from 1 to {LARGEST_SIDE}"
                if side
                else f"a finite number, or a list with {channels}, one per input channel"
            )
            raise CheckpointError(
                f"{path}: its preprocessing.{name} is {str(value)[:40]}, expected {expected}. "
                "Give the input in the configuration as preprocessing: {height: …, width: …, "
                "mean: …, std: …}"
            )
    try:
        return PreprocessingConfig(**values)
    except (TypeError, ConfigurationError) as error:
        raise CheckpointError(f"{path}: its preprocessing cannot be read: {error}") from None


def _is_side(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and 1 <= value <= LARGEST_SIDE)


def _is_per_channel(value: Any, channels: int) -> bool:
    if not isinstance(value, list):
        return _is_finite(value)
    return len(value) == channels and all(map(_is_finite, value))


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def name_of_weights(path: Path) -> str:
    """Returns what to call a network by its file: its run's folder, or the file's stem.

    ``model.pth.tar``, as older training scripts write it, is ``model``.
    """
    if path.name in (BEST_WEIGHTS, LAST_WEIGHTS):
        return path.parent.name
    stem, inner = Path(path.stem), (".pth", ".pt", ".ckpt")
    return stem.stem if path.suffix == ".tar" and stem.suffix in inner else path.stem
