"""What travels inside an ONNX file: what its network wants to see, answers, and learnt from.

One JSON text under one key of the file's metadata, so that an ONNX file alone is enough to use
the network. The graph takes images as the network sees them, already brought to its channels, its
size and its mean and deviation; what brings them there is the same ``PreprocessingConfig`` that
weights files hold, and the lineage the same as theirs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.preprocessing import stored_object, value_range
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig
from nakt_dist.runtime.files import json_bytes

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "nakt_dist"
"""Under which it stands in the file's ``metadata_props``."""

INPUT_NAME = "images"
"""Of the graph's one input, float32 (N, channels, height, width)."""

_FORMAT = "nakt-onnx/1"


@dataclass(frozen=True)
class OnnxOutput:
    """One output of the graph.

    Attributes:
        name: in the graph; of a tap the path of its layer, as ``attention.taps`` names it.
        kind: ``answer``: what the network says, (N, K) of a classifier, else (N, K, H, W);
            ``tap``: the activation of a layer, planes (N, C, h, w), for attention transfer;
            ``class_activation``: each place's share of each logit, (N, K, h, w).
        activation: of an answer, ``logits`` or ``probabilities``.
        names: of its channels in order: findings, classes (``background`` among them), or of one
            channel the target; None where nobody says.
    """

    name: str
    kind: Literal["answer", "tap", "class_activation"]
    activation: Literal["logits", "probabilities"] | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class OnnxMetadata:
    """What an ONNX file says of its network.

    Attributes:
        task: ``segmentation`` or ``classification``.
        preprocessing: its input, in full: all four are given.
        fit: how its images were brought to their size, such as ``pad``; None if unsaid.
        outputs: in the graph's order, the answer first.
        lineage: what it learnt from, as its weights file says it; empty for networks of others.
        weights_sha256: of the weights file that was exported.
        licence: under which it is handed on, such as ``apache-2.0``; None if unsaid.
    """

    __pydantic_config__ = ConfigDict(extra="ignore")  # value_range, which is for other readers

    name: str
    task: Literal["segmentation", "classification"]
    model: ModelSpec
    preprocessing: PreprocessingConfig
    outputs: tuple[OnnxOutput, ...]
    weights_sha256: str
    fit: str | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    licence: str | None = None

    @property
    def naming_field(self) -> str | None:
        """The field of the lineage that names the outputs too; None for the one plane of masks."""
        if self.task == "classification":
            return "labels"
        return "classes" if self.model.num_outputs > 1 else None

    @property
    def answer(self) -> OnnxOutput:
        """The output with what the network says."""
        return self.outputs[0]


def write_metadata(model: "onnx.ModelProto", metadata: OnnxMetadata) -> None:
    """Puts what an ONNX model is into it, in place; equal metadata give equal bytes."""
    told = asdict(metadata) | {"value_range": value_range(metadata.preprocessing)}
    text = json_bytes({"format": _FORMAT, **told}).decode()
    others = [each for each in model.metadata_props if each.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    model.metadata_props.add(key=METADATA_KEY, value=text)


def read_metadata(properties: Mapping[str, str], path: Path) -> OnnxMetadata | None:
    """Reads what an ONNX file says of its network; None where it is not of ours.

    Args:
        properties: the file's metadata by key: ONNX Runtime's ``custom_metadata_map``, or
            ``{each.key: each.value for each in model.metadata_props}``.

    Raises:
        CheckpointError: it is there and cannot be read; names the field.
    """
    if METADATA_KEY not in properties:
        return None
    value = stored_object(properties, METADATA_KEY, path)
    found = value.pop("format", None)
    if found != _FORMAT:
        raise CheckpointError(
            f"{path}: its metadata is of format {str(found)[:40]!r}, expected {_FORMAT}. Export "
            "the network again with this version"
        )
    try:
        metadata = _adapter().validate_python(value)
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: its metadata cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its metadata"
        raise CheckpointError(
            f"{path}: {place} in its metadata is {str(first['input'])[:60]!r}: {first['msg']}. "
            "Export the network again, or copy the file again from its origin"
        ) from None
    _check(metadata, path)
    return replace(metadata, lineage=dict(metadata.lineage))


@cache
def _adapter() -> TypeAdapter[OnnxMetadata]:
    return TypeAdapter(OnnxMetadata)


def _check(metadata: OnnxMetadata, path: Path) -> None:
    """Refuses what its fields say only together."""
    spec, seen = metadata.model, metadata.preprocessing
    kinds, names = ([getattr(each, what) for each in metadata.outputs] for what in ("kind", "name"))
    by_channel = [each for each in (seen.mean, seen.std) if isinstance(each, list)]
    named = [each.names for each in metadata.outputs if each.names]
    inherited = metadata.lineage.get(metadata.naming_field or "")
    sound = {
        "preprocessing must have height, width, mean and std": None not in vars(seen).values(),
        f"mean and std must be numbers, or lists with {spec.in_channels}, one per channel": (
            all(len(each) == spec.in_channels for each in by_channel)
        ),
        "outputs must begin with the one answer": (
            kinds[:1] == ["answer"] and kinds.count("answer") == 1
        ),
        "outputs must have different names": len(set(names)) == len(names),
        "the answer must say whether it is logits or probabilities": (
            all(each.activation for each in metadata.outputs if each.kind == "answer")
        ),
        f"the answer must have {spec.num_outputs} names, one per output, or null": (
            all(
                len(each.names or range(spec.num_outputs)) == spec.num_outputs
                for each in metadata.outputs
                if each.kind == "answer"
            )
        ),
        "the names of an output must differ": all(len(set(each)) == len(each) for each in named),
        f"outputs must be named as the lineage's {metadata.naming_field} are": (
            inherited is None or all(list(each) == inherited for each in named)
        ),
    }
    for expected, is_sound in sound.items():
        if not is_sound:
            raise CheckpointError(
                f"{path}: in its metadata {expected}. Export the network again with this version"
            )
