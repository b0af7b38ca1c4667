"""What an export says of its network: input in full, outputs with their names, lineage."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nakt_dist.config import ExportConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.network_lineage import classes_of, task_of
from nakt_dist.exporting.graph import ACTIVATIONS_NAME, ANSWER_NAME
from nakt_dist.exporting.places import without_places
from nakt_dist.loading.targets import output_names
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.onnx_metadata import OnnxMetadata, OnnxOutput
from nakt_dist.models.spec import PreprocessingConfig
from nakt_dist.models.taps import PRESETS, preset_taps
from nakt_dist.models.timm_files import check_size
from nakt_dist.transfer.classes import BACKGROUND


def describe_network(config: ExportConfig, trained: TrainedNetwork) -> OnnxMetadata:
    """Says all that there is to know of a network that is handed on; no place of this machine.

    Raises:
        ConfigurationError: nobody says at which size it sees images, or what its outputs mean; or
            they are not as many as its names.
        CheckpointError: its lineage contradicts it.
    """
    task = task_of(trained)
    if config.class_activations and task != "classification":
        raise ConfigurationError(
            f"class_activations: {trained.spec.name} segments, and gives each place's logit "
            "itself; leave it out"
        )
    names = _names(config, trained, task)
    outputs = [OnnxOutput(ANSWER_NAME, "answer", "logits", names)]
    outputs += [OnnxOutput(path, "tap") for path in tap_paths(config, trained)]
    if config.class_activations:
        outputs.append(OnnxOutput(ACTIVATIONS_NAME, "class_activation", names=names))
    fit = _trained_on(trained).get("fit")
    told = OnnxMetadata(
        name=trained.name,
        task=task,  # type: ignore[arg-type]
        model=replace(trained.spec, options=without_places(trained.spec.options)),
        preprocessing=_input(trained),
        outputs=tuple(outputs),
        weights_sha256=trained.weights_sha256,
        fit=fit if isinstance(fit, str) else None,
        lineage=without_places(trained.lineage),
        licence=config.licence,
    )
    field = told.naming_field
    if names and field and told.lineage.get(field) is not None:  # the settings' may be others
        return replace(told, lineage={**told.lineage, field: list(names)})
    return told


def tap_paths(config: ExportConfig, trained: TrainedNetwork) -> list[str]:
    """Returns the layers whose activations are exported, presets by the layers they stand for."""
    name = trained.spec.name
    return [preset_taps(each, name) if each in PRESETS else each for each in config.taps]


def _names(config: ExportConfig, trained: TrainedNetwork, task: str) -> tuple[str, ...] | None:
    """Returns what the channels of the answer stand for; None of a classifier that nobody names."""
    if task == "classification":
        return output_names(trained, config.weights, config.labels, "labels")
    classes: Sequence[str] = classes_of(trained, config.classes, "classes", config.weights)
    if trained.spec.num_outputs == 1:
        return tuple(name for name in classes if name != BACKGROUND)
    return tuple(classes)


def _input(trained: TrainedNetwork) -> PreprocessingConfig:
    """Returns the input with its size: what the file says, else that of the images learnt from."""
    seen, learnt = trained.preprocessing, _trained_on(trained)
    size = seen.height or learnt.get("height"), seen.width or learnt.get("width")
    if not all(isinstance(side, int) for side in size):
        raise ConfigurationError(
            f"'{trained.name}' does not say at which size it sees images, which an export states; "
            "set preprocessing.height and preprocessing.width"
        )
    check_size(trained.network, size, trained.name)  # type: ignore[arg-type]
    return replace(seen, height=size[0], width=size[1])


def _trained_on(trained: TrainedNetwork) -> Mapping[str, Any]:
    found = trained.lineage.get("trained_on")
    return found if isinstance(found, Mapping) else {}
