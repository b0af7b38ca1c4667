"""A frozen network that ONNX Runtime computes, as a module like any other."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from nakt_dist.errors import CheckpointError, ConfigurationError, nearest_name
from nakt_dist.models.onnx_file import OnnxFile, import_optional
from nakt_dist.runtime.processes import say

Activation = Literal["none", "sigmoid", "softmax"]
ACTIVATIONS = ("none", "sigmoid", "softmax")

_LEAST_PROBABILITY = 1e-7
"""Nearer to 0 or 1 than this no probability is taken to be, but for a softmax over findings."""
_NAMES_SHOWN = 8


class OnnxValue(nn.Identity):
    """A value of the graph, where a tap can listen.

    Attributes:
        columns_first: whether its maps have columns before rows, see ``planes.upright``.
    """

    columns_first = False


class OnnxNetwork(nn.Module):
    """What an ONNX file computes, as logits.

    It has no parameters and no gradients. It computes on the images' device: of a GPU by ONNX
    Runtime's CUDA provider where that is installed, else on the CPU, with as many threads as torch.

    Args:
        file: that was read and judged.
        answer: name of the output with what the network says.
        activation: that the file has put on it; it is taken off again.
        exclusive: whether its K outputs exclude each other, as those of ``softmax`` for masks do.
        values: names of all values of the graph that a tap may name.
        columns_first: whether the network within sees images with columns first, and so has its
            inner values; what the file gives is upright.
    """

    def __init__(
        self,
        file: OnnxFile,
        answer: str,
        activation: Activation,
        exclusive: bool,
        values: Sequence[str],
        columns_first: bool = False,
    ) -> None:
        super().__init__()
        self.answer = answer
        self._file, self._activation, self._exclusive = file, activation, exclusive
        self._names, self._columns_first = tuple(values), columns_first
        self._tapped: dict[str, OnnxValue] = {}  # no modules of this one: its names may have dots
        self._sessions: dict[torch.device, Any] = {}
        fingerprint = torch.tensor(list(bytes.fromhex(file.sha256)), dtype=torch.uint8)
        self.register_buffer("file_sha256", fingerprint)  # tells frozen teachers apart

    def __deepcopy__(self, memo: Any) -> "OnnxNetwork":
        return self  # nothing of it changes

    def value(self, name: str) -> OnnxValue:
        """Returns the module through which a value of the graph goes from now on.

        Raises:
            ConfigurationError: the graph has no such value.
        """
        outputs = [each.name for each in self._file.model.graph.output]
        if name not in self._names:
            listed = ", ".join(outputs[:_NAMES_SHOWN])
            raise ConfigurationError(
                f"{self._file.path}: there is no value '{name}'{nearest_name(name, self._names)} "
                f"in its graph (its outputs: {listed}{', …' * (len(outputs) > _NAMES_SHOWN)})"
            )
        self._sessions.clear()
        value = self._tapped.setdefault(name, OnnxValue())
        value.columns_first = self._columns_first and name not in outputs
        return value

    def check_size(self, size: tuple[int, int], name: str) -> None:
        """Refuses images of another size than the file was made for.

        Args:
            size: height and width of the images as it would see them.
            name: of the network, for the message.

        Raises:
            ConfigurationError: it takes another size alone.
        """
        fixed = self._file.input_shape[2:]
        if any(own not in (None, side) for own, side in zip(fixed, size, strict=True)):
            own = " × ".join(str(each or "any") for each in fixed)
            raise ConfigurationError(
                f"{name}: its ONNX file takes images of {own} pixels, and would see "
                f"{size[0]} × {size[1]}; leave preprocessing.height and width (and scales) out, or "
                "export it for this size"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Runs the network.

        Args:
            images: float (N, C, H, W), as it wants to see them.

        Returns:
            Logits, float32 (N, K, h, w), or of a classifier (N, K).

        Raises:
            CheckpointError: it cannot see these images, or gives something else than it should.
        """
        found = self.run(list(dict.fromkeys([self.answer, *self._tapped])), images)
        for name, module in self._tapped.items():
            module(found[name])
        return self._logits(found[self.answer])

    def run(self, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        """Returns values of the graph for images, float32 on their device."""
        session = self._session(images.device)
        seen = session.get_inputs()[0]
        kind = np.float16 if seen.type == "tensor(float16)" else np.float32
        given = images.detach().float().cpu().contiguous().numpy().astype(kind, copy=False)
        own = self._file.input_shape[0] or len(given)
        parts = [
            self._run_batch(session, seen.name, names, given[start : start + own], own)
            for start in range(0, len(given), own)
        ]
        joined = (np.concatenate(each) for each in zip(*parts, strict=True))
        return {
            name: torch.from_numpy(each).to(images.device, torch.float32)
            for name, each in zip(names, joined, strict=True)
        }

    def _run_batch(
        self, session: Any, input_name: str, names: Sequence[str], images: np.ndarray, own: int
    ) -> list[np.ndarray]:
        """Runs as many images as the file takes at once; the last one stands for those lacking."""
        runtime = import_optional("onnxruntime", self._file.path)
        options, count = runtime.RunOptions(), len(images)
        options.only_execute_path_to_fetches = True
        options.log_severity_level = 4
        padded = np.concatenate([images, np.repeat(images[-1:], own - count, 0)])
        try:
            found = session.run(list(names), {input_name: padded}, options)
        except Exception as error:  # of many kinds, none of which is exported
            raise self._failed(f"images of shape {padded.shape}", error) from None
        for name, each in zip(names, found, strict=True):
            numbers = isinstance(each, np.ndarray) and each.dtype.kind == "f"
            if not numbers or each.ndim == 0 or len(each) != own:
                what = f"{each.dtype} of shape {each.shape}" if hasattr(each, "dtype") else each
                raise CheckpointError(
                    f"{self._file.path}: '{name}' is {str(what)[:80]} for images of shape "
                    f"{padded.shape}, expected floating-point numbers for each image"
                )
        return [each[:count] for each in found]

    def _logits(self, answer: Tensor) -> Tensor:
        if self._activation == "none":
            return answer
        if self._exclusive:
            return answer.clamp(min=_LEAST_PROBABILITY).log()
        if self._activation == "sigmoid":  # ONNX Runtime's ends at about that
            return torch.logit(answer, eps=_LEAST_PROBABILITY)
        numbers = torch.finfo(answer.dtype)  # of findings the ranking is measured
        answer = answer.clamp(numbers.tiny, 1 - numbers.eps / 2)
        return answer.log() - (-answer).log1p()

    def _session(self, device: torch.device) -> Any:
        if device not in self._sessions:
            self._sessions[device] = self._start(device)
        return self._sessions[device]

    def _start(self, device: torch.device) -> Any:
        """Starts ONNX Runtime with the tapped values as further outputs."""
        runtime = import_optional("onnxruntime", self._file.path)
        import onnx

        model = self._file.model
        outputs = list(model.graph.output)
        added = [each for each in self._tapped if each not in {output.name for output in outputs}]
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 4
        model.graph.output.extend(onnx.ValueInfoProto(name=each) for each in added)
        try:
            return runtime.InferenceSession(
                model.SerializeToString(), options, providers=self._providers(runtime, device)
            )
        except Exception as error:
            raise self._failed("it", error) from None
        finally:
            del model.graph.output[len(outputs) :]

    def _providers(self, runtime: Any, device: torch.device) -> list[Any]:
        """Names the parts of ONNX Runtime that compute; no other that is installed is asked."""
        cpu = ["CPUExecutionProvider"]
        if device.type != "cuda":
            return cpu
        if "CUDAExecutionProvider" not in runtime.get_available_providers():
            say(
                f"{self._file.path.name}: is computed on the CPU, since ONNX Runtime here knows no "
                "CUDA; for a GPU: pip install onnxruntime-gpu in the place of onnxruntime"
            )
            return cpu
        tf32 = int(torch.backends.cudnn.allow_tf32)
        return [("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": tf32}), *cpu]

    def _failed(self, what: str, error: Exception) -> CheckpointError:
        return CheckpointError(
            f"{self._file.path}: ONNX Runtime cannot run {what}: "
            f"{' '.join(str(error).split())[:300]}. If it takes images of one size, set "
            "preprocessing.height and width to that"
        )
