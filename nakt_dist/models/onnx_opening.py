"""Opens an ONNX file as a frozen network: what its answer is, and whether it keeps its word."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nakt_dist.errors import CheckpointError, ConfigurationError, nearest_name
from nakt_dist.models.onnx_file import OnnxFile, ends_linearly, producer, read_onnx, type_name
from nakt_dist.models.onnx_metadata import OnnxMetadata, read_metadata
from nakt_dist.models.onnx_network import ACTIVATIONS, Activation, OnnxNetwork
from nakt_dist.models.onnx_shapes import value_shapes
from nakt_dist.models.registry import ONNX_PREFIX, find_network, is_classifier
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig
from nakt_dist.models.weights import LoadedWeights
from nakt_dist.runtime.processes import printable

_OPTIONS = ("output", "activation")
_TRIED_SIDE = 64
"""Pixels, where nobody says a size."""
_TOLERANCE = 1e-3
_LONGEST_NAME = 80
_MASKS, _FINDINGS = 4, 2
"""Dimensions of answers: (N, K, h, w) and (N, K)."""


@dataclass(frozen=True)
class OpenedOnnx:
    """A network in an ONNX file.

    Attributes:
        network: frozen.
        spec: its architecture, where the file is of ours; else of the family ``onnx:``.
        loaded: what its file says, as of a weights file; without weights.
        name: what its file calls it; empty where it does not.
        exported_from: SHA-256 of the weights that it is another form of, as its file says; None
            where it does not, or settings take something else of it.
    """

    network: OnnxNetwork
    spec: ModelSpec
    loaded: LoadedWeights
    name: str
    exported_from: str | None


@dataclass(frozen=True)
class _Answer:
    """An output of the graph: its name, its shape for one batch, and what was put on it.

    Attributes:
        source: how that was guessed, in words; empty where it is said.
        linear: made by a layer without bounds.
    """

    name: str
    shape: tuple[int, ...]
    activation: Activation
    source: str
    linear: bool

    @property
    def classifies(self) -> bool:
        return len(self.shape) == _FINDINGS

    @property
    def task(self) -> str:
        return "classification" if self.classifies else "segmentation"

    @property
    def exclusive(self) -> bool:
        return not self.classifies and self.shape[1] > 1


def open_onnx(
    path: Path, model: ModelSpec | None, preprocessing: PreprocessingConfig | None
) -> OpenedOnnx:
    """Opens an ONNX file, ours or anybody's, and tries it out on noise.

    Args:
        model: ``onnx`` with the options ``output`` (name of the answer) and ``activation`` (what
            the file has put on it: ``none``, ``sigmoid``, ``softmax``), as far as the file does
            not say or is not right; None believes the file.
        preprocessing: as the settings have it, for the size to try.

    Raises:
        CheckpointError: see ``read_onnx``; or it gives something else than an answer for each
            image by itself, in finite numbers.
        ConfigurationError: settings contradict the file.
    """
    file = read_onnx(path)
    metadata = read_metadata(file.properties, path)
    options = _options(model, metadata, path)
    stored = _stored_input(file, metadata)
    channels = file.input_shape[1] or (model.in_channels if model else None)
    if channels is None:
        raise ConfigurationError(
            f"{path}: does not say how many channels its images have; set model: {{name: onnx, "
            "in_channels: 1 or 3}"
        )
    asked = stored | (asdict(preprocessing) if preprocessing else {})
    batch, _, *sides = file.input_shape
    wanted = (asked.get("height"), asked.get("width"))
    size = [own or each or _TRIED_SIDE for own, each in zip(sides, wanted, strict=True)]
    shape = (batch or 2, channels, *size)
    shapes = value_shapes(file, shape)
    answer = _find_answer(file, metadata, options, shapes)
    spec = _spec(answer, channels, metadata, options, path)
    network = OnnxNetwork(
        file, answer.name, answer.activation, answer.exclusive, tuple(shapes),
        columns_first=spec.options.get("transposed") is True,
    )  # fmt: skip
    _try_out(network, answer, shape, path)
    said = {"preprocessing": stored, "lineage": _lineage(metadata)}
    loaded = LoadedWeights(
        path=path,
        state_dict={},
        spec=metadata.model if metadata else None,
        metadata={name: json.dumps(each) for name, each in said.items() if each},
        sha256=file.sha256,
        source_format="onnx",
        notices=_notices(answer),
    )
    called = printable(metadata.name[:_LONGEST_NAME]) if metadata else ""
    exported_from = metadata.weights_sha256 if metadata and not options else None
    return OpenedOnnx(network.requires_grad_(False).eval(), spec, loaded, called, exported_from)


def _options(
    model: ModelSpec | None, metadata: OnnxMetadata | None, path: Path
) -> Mapping[str, Any]:
    if model is None or (metadata and model.over(metadata.model) == metadata.model):
        return {}
    if f"{model.name}:".partition(":")[0] + ":" != ONNX_PREFIX:
        raise ConfigurationError(
            f"{path}: is an ONNX file, which holds its network, and model is {model.name}; leave "
            "model out, or say with model: {name: onnx, options: {output: …, activation: …}} what "
            "of it is the answer"
        )
    for name in model.options:
        if name not in _OPTIONS:
            raise ConfigurationError(
                f"{path}: model.options has '{name}'{nearest_name(name, _OPTIONS)} (of an ONNX "
                f"file: {', '.join(_OPTIONS)})"
            )
    return model.options


def _stored_input(file: OnnxFile, metadata: OnnxMetadata | None) -> dict[str, Any]:
    """Returns what a file says of its images: all, or the size that its graph is for."""
    if metadata is not None:
        return asdict(metadata.preprocessing)
    fixed = dict(zip(("height", "width"), file.input_shape[2:], strict=True))
    return {side: pixels for side, pixels in fixed.items() if pixels}


def _find_answer(
    file: OnnxFile,
    metadata: OnnxMetadata | None,
    options: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, tuple[int, ...]]],
) -> _Answer:
    import onnx

    path, outputs = file.path, [each.name for each in file.model.graph.output]
    stated = metadata.answer.name if metadata else outputs[0] if len(outputs) == 1 else None
    name = options.get("output", stated)
    if name not in outputs or name not in shapes:
        found = f"its answer would be '{name}'" if name else "it does not say which is its answer"
        raise ConfigurationError(
            f"{path}: its outputs are {', '.join(outputs)[:300]}, and {found}; set model: {{name: "
            "onnx, options: {output: …}} to one of them"
        )
    kind, shape = shapes[name]
    numbers = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    if kind not in numbers or len(shape) not in (_MASKS, _FINDINGS) or 0 in shape:
        raise CheckpointError(
            f"{path}: its output '{name}' is {type_name(kind)} of shape {shape}; expected "
            "floating-point numbers: logits or probabilities (images, outputs) of a classifier, or "
            "(images, outputs, height, width) of masks. Choose another with model: {name: onnx, "
            "options: {output: …}}, or export it without what comes after them, such as argmax"
        )
    activation, source = _activation(file, metadata, options, name, shape)
    answer = _Answer(name, shape, activation, source, ends_linearly(file.model, name))
    if answer.exclusive and activation == "sigmoid":
        raise ConfigurationError(
            f"{path}: '{name}' has {shape[1]} planes with a sigmoid each, which do not exclude "
            "each other; expected one plane, or softmax over all of them. Export it before the "
            "sigmoid"
        )
    return answer


def _activation(
    file: OnnxFile,
    metadata: OnnxMetadata | None,
    options: Mapping[str, Any],
    name: str,
    shape: tuple[int, ...],
) -> tuple[Activation, str]:
    """Returns what the file has put on its answer, and who says so: nobody needs to be told it."""
    given = options.get("activation")
    if given is not None:
        if given not in ACTIVATIONS:
            raise ConfigurationError(
                f"{file.path}: model.options.activation is {given!r}; expected one of "
                f"{', '.join(ACTIVATIONS)}"
            )
        return given, ""
    if metadata is not None and name == metadata.answer.name:
        several = len(shape) == _MASKS and shape[1] > 1
        probable = metadata.answer.activation == "probabilities"
        return ("softmax" if several else "sigmoid") if probable else "none", ""
    operator = producer(file.model, name)
    found: dict[str, Activation] = {"Sigmoid": "sigmoid", "Softmax": "softmax"}
    if operator in found:
        return found[operator], f"probabilities, since it ends in {operator}"
    ending = f"{operator}, " if operator else ""
    return "none", f"logits, since it ends in {ending}neither Sigmoid nor Softmax"


def _spec(
    answer: _Answer,
    channels: int,
    metadata: OnnxMetadata | None,
    options: Mapping[str, Any],
    path: Path,
) -> ModelSpec:
    """Returns the architecture that was exported, as far as the file is like what it says."""
    outputs = answer.shape[1]
    if metadata is None or options:
        told = {"output": answer.name, "activation": answer.activation}
        return ModelSpec(f"{ONNX_PREFIX}{answer.task}", channels, outputs, told)
    spec = metadata.model
    found = (answer.task, channels, outputs)
    said = (metadata.task, spec.in_channels, spec.num_outputs)
    known = find_network(spec.name) is not None
    if found != said or not known or is_classifier(spec.name) != answer.classifies:
        raise CheckpointError(
            f"{path}: its metadata says {spec.name}, {', '.join(map(str, said))} (task, channels, "
            f"outputs), and its graph is {', '.join(map(str, found))}; it is damaged or forged, "
            "copy it again from its origin"
        )
    return spec.without_encoder_weights()


def _lineage(metadata: OnnxMetadata | None) -> dict[str, Any]:
    """Returns what a file says of its origin, and what its outputs mean, which stands there too."""
    if metadata is None:
        return {}
    field, names = metadata.naming_field, metadata.answer.names
    return {**metadata.lineage, **({field: list(names)} if field and names else {})}


def _notices(answer: _Answer) -> tuple[str, ...]:
    if not answer.source:
        return ()
    return (
        f"its ONNX file does not say what its answer is. Taken: '{answer.name}' for "
        f"{answer.shape[1]} outputs of {answer.task}, as {answer.source}; model: {{name: onnx, "
        "options: {output: …, activation: …}} says otherwise",
    )


@torch.no_grad()
def _try_out(network: OnnxNetwork, answer: _Answer, shape: tuple[int, ...], path: Path) -> None:
    """Lets it answer noise: alone and beside another image, which has to be the same.

    Raises:
        CheckpointError: it is not, or is not finite, or not what it is said to be.
    """
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    together = network.run([answer.name], noise)[answer.name]
    alone = network.run([answer.name], noise[:1])[answer.name]
    if together.shape != (len(noise), *answer.shape[1:]):
        raise CheckpointError(
            f"{path}: '{answer.name}' is of shape {tuple(together.shape)} for images of shape "
            f"{shape}, expected {answer.shape}"
        )
    if not together.isfinite().all():
        raise CheckpointError(
            f"{path}: '{answer.name}' holds values that are not finite for an image of noise; "
            "take it from before its training diverged"
        )
    if answer.activation != "none" and (together.min() < 0 or together.max() > 1):
        raise CheckpointError(
            f"{path}: '{answer.name}' goes from {together.min():g} to {together.max():g}, and "
            f"what {answer.activation} gives is from 0 to 1; set model.options.activation to none"
        )
    _check_probabilities(path, answer, together)
    largest = together.abs().max().clamp(min=1.0)
    if (together[:1] - alone).abs().max() > _TOLERANCE * largest:
        raise CheckpointError(
            f"{path}: answers an image otherwise when it comes with another one, or a second time, "
            "as networks do while they are trained; export it in eval mode"
        )


def _check_probabilities(path: Path, answer: _Answer, found: torch.Tensor) -> None:
    """Refuses masks of a softmax over something else than classes, and logits that are none.

    A few logits of findings may be from 0 to 1 by chance, unlike those of all pixels.
    """
    bounded = bool(found.min() >= 0 and found.max() <= 1)
    sums_to_one = bool(((found.sum(1) - 1).abs() < _TOLERANCE).all())
    if answer.exclusive and answer.activation == "softmax" and not sums_to_one:
        raise CheckpointError(
            f"{path}: '{answer.name}' has {answer.shape[1]} planes that do not sum to 1, as those "
            "of a softmax over all classes do; export it before its softmax"
        )
    by_chance = answer.classifies and answer.linear
    taken_for_logits = answer.source and answer.activation == "none" and not by_chance
    if taken_for_logits and bounded and (sums_to_one or not answer.exclusive):
        kind = "softmax" if answer.shape[1] > 1 and sums_to_one else "sigmoid"
        raise CheckpointError(
            f"{path}: '{answer.name}' would be {answer.source}, and all its values are from 0 to 1"
            f"{' and sum to 1' if kind == 'softmax' else ''}, as probabilities are; say what it is "
            f"with model: {{name: onnx, options: {{activation: {kind}}}}}, or none if these are "
            "logits"
        )
