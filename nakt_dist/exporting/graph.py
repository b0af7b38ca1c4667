"""A trained network as an ONNX model: its answer, and on request taps and class activations."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.evaluation.class_activation import PooledFeatures, find_pooled_features
from nakt_dist.models.onnx_metadata import INPUT_NAME
from nakt_dist.models.taps import TappedNetwork

if TYPE_CHECKING:
    import onnx

ANSWER_NAME, ACTIVATIONS_NAME = "logits", "class_activations"
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_OPSET = 18  # the exporter's own: nothing is converted, and any runtime of the last years has it
_MOST_BYTES = 2**31 - 2**20  # of a protobuf, less what is no weight


def require_packages() -> None:
    """Refuses to begin without the packages that ONNX needs.

    Raises:
        ConfigurationError: one is not installed; with the command that installs it.
    """
    missing = [each for each in _PACKAGES if importlib.util.find_spec(each) is None]
    if missing:
        raise ConfigurationError(
            f"formats has onnx, which needs {', '.join(missing)}, not installed here. Install it: "
            "pip install 'nakt_dist[onnx]', or leave ONNX out: --formats '[safetensors]'"
        )


class ExportedNetwork(nn.Module):
    """A network that gives all that its ONNX file does, in a tuple.

    Args:
        network: the bare network, in eval mode.
        taps: paths of layers whose activations are given.
        example: float32 (N, C, H, W), as the network sees images; given where its class
            activations are wanted.

    Attributes:
        names: of what it gives, in order.

    Raises:
        ConfigurationError: a tap is no layer, or there is no exact class activation.
    """

    def __init__(self, network: nn.Module, taps: Sequence[str], example: Tensor | None) -> None:
        super().__init__()
        repeated = [each for each in taps if each in (INPUT_NAME, ANSWER_NAME, ACTIVATIONS_NAME)]
        if repeated or len(set(taps)) < len(taps):
            raise ConfigurationError(
                f"taps names {', '.join(repeated or taps)}; expected different layers, none of "
                f"them called {INPUT_NAME}, {ANSWER_NAME} or {ACTIVATIONS_NAME}"
            )
        self.pooled = None if example is None else _pooled(network, example)
        path = [] if self.pooled is None else [_path_of(network, self.pooled.module)]
        self.tapped = TappedNetwork(network, [*taps, *path])
        self.names = (ANSWER_NAME, *taps, *([] if self.pooled is None else [ACTIVATIONS_NAME]))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Returns logits, the taps' activations and the class activations."""
        answer, found = self.tapped(images)
        if self.pooled is None:
            return (answer, *found)
        *taps, features = found
        features = features.relu() if self.pooled.rectified else features
        return (answer, *taps, torch.einsum("kf,nfhw->nkhw", self.pooled.head.weight, features))


def _pooled(network: nn.Module, example: Tensor) -> PooledFeatures:
    found = find_pooled_features(network, example)
    if found is None:
        raise ConfigurationError(
            f"class_activations: {type(network).__name__} does not pool a feature map into one "
            "linear layer, so that no place has an exact share of a logit. Leave it out, and name "
            "layers in taps instead"
        )
    return found


def _path_of(network: nn.Module, module: nn.Module) -> str:
    return next(path for path, each in network.named_modules() if each is module)


def to_onnx(network: ExportedNetwork, example: Tensor) -> "onnx.ModelProto":
    """Makes an ONNX model of a network, for any number of images of one size.

    It holds its weights, uses the default operators alone, and nothing in it names a place of
    this machine.

    Args:
        example: float32 (2, C, H, W); 2, since torch may take 1 for the only number there is.

    Raises:
        NaktError: torch cannot express the network, or it is too large for one file.
    """
    size = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    if size > _MOST_BYTES:
        raise NaktError(
            f"the network has {size:,} bytes of weights, and one ONNX file holds 2 GiB. Leave "
            "ONNX out: --formats '[safetensors]'"
        )
    try:
        with _silence():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=list(network.names),
                dynamic_shapes={INPUT_NAME: {0: torch.export.Dim("batch")}},
                opset_version=_OPSET,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise NaktError(
            f"torch {torch.__version__} cannot write this network as ONNX: {_reason(error)}. A "
            "newer torch may; without ONNX: --formats '[safetensors]'"
        ) from error
    assert program is not None
    model = program.model_proto
    _forget_trace(model)
    return model


def _reason(error: BaseException) -> str:
    """Returns what lies behind the exporter's advice to developers, in a line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps the exporter's progress and advice to developers from the user."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)


def _forget_trace(message: Any) -> None:
    """Clears what the exporter notes of where in which file each operator comes from."""
    for field, value in message.ListFields():
        if field.name in ("doc_string", "metadata_props"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for each in [value] if hasattr(value, "ListFields") else value:
                _forget_trace(each)
