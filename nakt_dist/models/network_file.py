"""Opens a trained network: its weights, architecture, input and origin."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.assumed_design import describe_assumed_design
from nakt_dist.models.building import build_configured, build_described, check_finite
from nakt_dist.models.entry_names import own_entries
from nakt_dist.models.heads import head_prefixes
from nakt_dist.models.input_images import at_size, check_channels, prepare_image
from nakt_dist.models.matching import load_into
from nakt_dist.models.onnx_file import ONNX_SUFFIX
from nakt_dist.models.onnx_network import OnnxNetwork
from nakt_dist.models.onnx_opening import open_onnx
from nakt_dist.models.preprocessing import (
    ImageForm,
    NetworkInput,
    resolve_preprocessing,
    stored_object,
)
from nakt_dist.models.published import recognise
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig
from nakt_dist.models.timm_files import (
    bring_to_size,
    check_size,
    in_timm_names,
    is_of_timm,
    usual_input,
    without_head,
)
from nakt_dist.models.weights import LoadedWeights, describe_left, read_weights
from nakt_dist.models.weights_path import name_of_weights, weights_path
from nakt_dist.runtime.processes import say

_FROM_FILE = "takes its {} outputs from the head in the file"
_NO_HEAD = "has no classifier head in its file, and gives features"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network read from a file.

    Attributes:
        name: of the run it comes from, or of the file.
        network: on the CPU, in eval mode, without gradients.
        seen: its input, in full, and how it is known.
        lineage: what it was trained on, and from; empty for files that are not ours.
        notices: what else is worth knowing of the file, a sentence each.
        exported_from: SHA-256 of the weights that an ONNX file is another form of, if it says so.
    """

    name: str
    network: nn.Module
    spec: ModelSpec
    seen: NetworkInput
    lineage: Mapping[str, Any]
    weights_sha256: str
    notices: tuple[str, ...] = ()
    exported_from: str | None = None

    @property
    def preprocessing(self) -> PreprocessingConfig:
        """Its input, in full."""
        return self.seen.preprocessing

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its answers: weights, input, and what it is, unless its weights say that."""
        model = asdict(self.spec)
        told = self.lineage.get("model") == model
        return {
            "weights_sha256": self.weights_sha256,
            "preprocessing": vars(self.preprocessing),
            **({} if told else {"model": model}),
        }

    def details(self) -> dict[str, Any]:
        """Returns what the details of a record say of it."""
        return {
            "network": self.name,
            "lineage": dict(self.lineage),
            "model": {"name": self.spec.name, "options": self.spec.options},
        }

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Brings images, float32 (N, C, H, W) in [0, 1], to the network's input."""
        return prepare_image(images, self.spec.in_channels, self.preprocessing)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Runs the network.

        Args:
            images: float32 (N, C, H, W) in [0, 1], C 1 or 3.

        Returns:
            float32: (N, K, H, W) at the images' own size, or of a classifier (N, K).
        """
        output = self.network(self.prepare(images))
        if is_classifier(self.spec.name):
            return output.float()
        return at_size(output, images.shape[-2:])

    def require_outputs(self, weights: str, whose: str) -> None:
        """Refuses a network without a head.

        Args:
            weights: as the user named it.
            whose: what needs outputs, such as ``"nakt evaluate"``.

        Raises:
            ConfigurationError: it is one.
        """
        if self.spec.num_outputs == 0:
            raise ConfigurationError(
                f"{weights}: {self.spec.name} has no classifier head and gives features, and "
                f"{whose} needs outputs. It can be followed by its layers: nakt train, with "
                "teacher.attention.taps"
            )

    def require_weights(self, weights: str, whose: str) -> None:
        """Refuses a network of which there is a graph alone.

        Args:
            weights: as the user named it.
            whose: what needs layers or gradients, such as ``"nakt export"``.

        Raises:
            ConfigurationError: it is one.
        """
        if isinstance(self.network, OnnxNetwork):
            raise ConfigurationError(
                f"{weights}: is an ONNX file, which has neither layers nor gradients, and {whose} "
                "needs them; give the weights that it was exported from"
            )

    def probability(self, images: torch.Tensor) -> torch.Tensor:
        """Runs a network that segments.

        Args:
            images: float32 (N, C, H, W) in [0, 1], C 1 or 3.

        Returns:
            float32 (N, K, H, W) at the images' own size: of one output its sigmoid, of several
            their softmax, which sums to 1.
        """
        logits = self.logits(images)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

    def size_of(self, form: ImageForm) -> tuple[int, int]:
        """Returns the height and width at which the network sees images of a form."""
        return self.preprocessing.height or form.height, self.preprocessing.width or form.width

    def describe(self, form: ImageForm) -> list[str]:
        """Says what is worth knowing before the network sees images of a form.

        Raises:
            ConfigurationError: it cannot see them, since it takes another size, or channels that
                images do not have.
        """
        check_channels(self.spec.in_channels, self.name)
        check_size(self.network, self.size_of(form), self.name)
        return [*self.notices, *self.seen.describe(self.name, self.lineage, form)]


def open_network(
    weights: str | Path,
    model: ModelSpec | None = None,
    preprocessing: PreprocessingConfig | None = None,
    name: str | None = None,
) -> TrainedNetwork:
    """Reads a trained network; no code in the file is ever run.

    Args:
        weights: file, or output folder of a training run; or an ONNX file, see ``open_onnx``.
        model: architecture; None takes the file's own description, and so do options that are
            not given of the network that the file names. The number of outputs, where it is left
            at 1, is that of the head in the file; 0 for a network of timm whose file has none,
            which gives features.
        preprocessing: input; what is not given is taken from the file, see
            ``resolve_preprocessing``.
        name: what to call it; None derives it from the path.

    Raises:
        ConfigurationError: ``model`` cannot be built, is larger than any network, or cannot see
            images of the size that is asked for.
        CheckpointError: the file is unsafe or damaged, holds values that are not finite, does
            not fit the architecture, describes none and none is given, or describes itself in
            a way that no file of ours does.
    """
    path = weights_path(weights)
    if path.suffix == ONNX_SUFFIX:
        return _open_onnx(path, model, preprocessing, name)
    loaded = recognise(read_weights(path))
    check_finite(loaded)
    spec = model.over(loaded.spec) if model is not None else loaded.spec
    if spec is None:
        raise CheckpointError(
            f"{path}: does not say which network it belongs to. Name it in the configuration "
            "as model: {name: …, in_channels: …}"
        )
    network, spec, notice = _build(loaded, spec, model)
    if loaded.spec is None:
        loaded = _in_our_names(loaded, network, spec)
    if model is not None:
        outputs = _outputs_of(loaded, network, spec)
        if spec.num_outputs != outputs:
            spec = replace(spec, num_outputs=outputs)
            say(f"{path.name}: {_FROM_FILE if outputs else _NO_HEAD}".format(outputs))
            network = build_configured(spec.without_encoder_weights())
    load_into(network, loaded)
    network.requires_grad_(False).eval()
    name = name or name_of_weights(path)
    said = (*loaded.notices, notice, describe_left(loaded))
    notices = [f"{name}: {each}" for each in said if each]
    if loaded.spec is None or loaded.spec.name != spec.name:
        notices.append(describe_assumed_design(name, spec, network))
    seen = resolve_preprocessing(
        preprocessing, loaded, spec, usual_input(network, spec) if is_of_timm(spec) else None
    )
    if is_of_timm(spec):
        spec, resized = bring_to_size(network, spec, seen.preprocessing, name)
        notices += [resized] if resized else []
    return TrainedNetwork(
        name=name,
        network=network,
        spec=spec,
        seen=seen,
        lineage=stored_lineage(loaded),
        weights_sha256=loaded.sha256,
        notices=tuple(notices),
    )


def _open_onnx(
    path: Path, model: ModelSpec | None, given: PreprocessingConfig | None, name: str | None
) -> TrainedNetwork:
    opened = open_onnx(path, model, given)
    name = name or opened.name or name_of_weights(path)
    return TrainedNetwork(
        name=name,
        network=opened.network,
        spec=opened.spec,
        seen=resolve_preprocessing(given, opened.loaded, opened.spec),
        lineage=stored_lineage(opened.loaded),
        weights_sha256=opened.loaded.sha256,
        notices=tuple(f"{name}: {each}" for each in opened.loaded.notices),
        exported_from=opened.exported_from,
    )


def _build(
    loaded: LoadedWeights, spec: ModelSpec, model: ModelSpec | None
) -> tuple[nn.Module, ModelSpec, str | None]:
    """Builds the network; returns what it is, and what of the file's description is not kept."""
    stored = loaded.spec
    if stored is None:
        return build_configured(spec.without_encoder_weights()), spec, None
    if stored.name != spec.name:
        network = build_configured(spec.without_encoder_weights())
        return network, spec, f"its file says {stored.to_json()}, and model names {spec.name}"
    given = {} if model is None else model.options
    changed = {n: stored.options[n] for n in given if stored.options.get(n, given[n]) != given[n]}
    notice = None
    if changed:
        notice = f"model.options replaces what its file says: {json.dumps(changed)}"
    try:
        return build_described(loaded, spec.without_encoder_weights(), given), spec, notice
    except CheckpointError as error:
        if model is None:
            raise
        network = build_configured(model.without_encoder_weights())
        return network, model, f"model stands alone, since its file's own cannot be used ({error})"


def _in_our_names(loaded: LoadedWeights, network: nn.Module, spec: ModelSpec) -> LoadedWeights:
    """Takes a foreign file in any of the styles that ``entry_names``, or timm, knows."""
    found, left = own_entries(loaded.state_dict, network.state_dict(), loaded.path)
    found, unused = in_timm_names(found, network, loaded.path)
    found, head = without_head(found, network) if spec.num_outputs == 0 else (found, ())
    return replace(loaded, state_dict=found, left=(*loaded.left, *left, *unused, *head))


def _outputs_of(loaded: LoadedWeights, network: nn.Module, spec: ModelSpec) -> int:
    """Returns how many outputs the head in a file has, where the configuration leaves it open."""
    if spec.num_outputs != ModelSpec().num_outputs:
        return spec.num_outputs
    found, prefixes = loaded.state_dict, head_prefixes(network)
    if loaded.spec is None and is_of_timm(spec) and not any(n.startswith(prefixes) for n in found):
        return 0
    counts = {
        len(found[name])
        for name, tensor in network.state_dict().items()
        if name.startswith(prefixes)
        and name in found
        and found[name].ndim
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
    return stored_object(loaded.metadata, "lineage", loaded.path)


def stored_output_names(
    trained: TrainedNetwork, weights: str, field: str = "labels"
) -> tuple[str, ...] | None:
    """Returns what a network of ours answers, in the order of its outputs; None if unsaid.

    Args:
        weights: as the user named it, for the message.
        field: of the lineage: ``labels`` of a classifier, ``classes`` of a network that segments.

    Raises:
        CheckpointError: the names are damaged.
    """
    names = trained.lineage.get(field)
    if names is None:
        return None
    count = trained.spec.num_outputs
    texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not texts or len(set(names)) != len(names) or len(names) != count:
        raise CheckpointError(
            f"{weights}: its lineage names the {field} {str(names)[:80]}, expected {count} "
            "different names, one per output; copy the file again from its origin"
        )
    return tuple(names)
