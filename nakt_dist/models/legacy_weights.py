"""PyTorch's own weights files, read as plain tensors or refused."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nakt_dist.errors import CheckpointError
from nakt_dist.models.pickled_calls import NUMPY_KINDS, NUMPY_NUMBERS, check_pickled_calls

LEGACY_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")

# Where training scripts put the state dict, the likeliest first.
_CONTAINERS = (
    "state_dict", "model_state_dict", "model_state", "model", "network", "network_weights", "net",
    "module", "weights", "teacher", "student", "ema_state_dict", "state_dict_ema", "model_ema",
    "ema_model", "ema",
)  # fmt: skip
_DEEPEST_CONTAINER = 3
_LEAST_TENSORS = 2  # among other values: a single one is hardly a network
_WRAPPERS = ("module.", "model.", "_orig_mod.")
_MOST_WRAPPERS = 16
_MOST_VALUES_PER_BYTE = 8  # a file may name a tensor more than once, and a value may be one bit

# What NumPy calls to make a number from its type and its bytes.
_NUMPY_NUMBERS: list[Any] = [
    *((np.float64(0).__reduce__()[0], name) for name in NUMPY_NUMBERS),
    np.dtype,
    *{type(np.dtype(kind)) for kind in NUMPY_KINDS},
]

_REFUSED_NAME = re.compile(r"GLOBAL (\S+)")
_PICKLE_START = b"\x80"
_ARCHIVE_START = b"PK\x03\x04"  # by which torch tells archives
_ARCHIVES_OF_CODE = ("TorchScript archives", "legacy .tar format")

_TORCHSCRIPT, _EXPORTED = "TorchScript", "torch.export"
PROGRAM_SUFFIXES = {
    ".pt2": _EXPORTED, ".ts": _TORCHSCRIPT, ".torchscript": _TORCHSCRIPT, ".ptl": _TORCHSCRIPT,
}  # fmt: skip
"""Of whole programs, and what writes them."""
_PARTS_OF_PROGRAMS = {
    "constants.pkl": _TORCHSCRIPT,
    "archive_format": _EXPORTED,
    "serialized_exported_program.json": _EXPORTED,  # as torch 2.6 has it
}
"""In archives that may have any suffix, with or without a folder around them."""


def read_legacy(path: Path) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """Reads the state dict of a file that torch wrote, without running code from it.

    Returns:
        The tensors by name on the CPU; where they were found: "torch", or "torch:" and the names
        of the containers around them; and what lies beside them and is not read.

    Raises:
        CheckpointError: the file holds pickled code objects, is damaged or of another kind, or
            holds no state dict.
    """
    try:
        check_pickled_calls(path, _is_archive(path), _most_values(path))
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMPY_NUMBERS):
            warnings.simplefilter("ignore")  # they advise to file issues with PyTorch
            content = torch.load(path, map_location="cpu", weights_only=True)
        state_dict, containers, left = _find_state_dict(content)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises whatever its reader stumbles over, KeyError too
        raise _refusal(path, error) from None
    if state_dict is None:
        found = type(content).__name__
        if isinstance(content, Mapping):
            found = f"a mapping with {', '.join(map(str, list(content)[:8])) or 'nothing in it'}"
        raise CheckpointError(
            f"{path}: found {found}; expected tensors by name, either alone or under one of "
            f"{', '.join(_CONTAINERS)}"
        )
    _check_entries(path, state_dict)
    plain = {name: tensor.detach() for name, tensor in state_dict.items()}
    return without_wrapper_names(plain), ":".join(("torch", *containers)), left


def program_refused(path: Path, writer: str) -> CheckpointError:
    """Returns the error of a file that is a program, as ``PROGRAM_SUFFIXES`` names its writer."""
    reader = "torch.jit.load" if writer == _TORCHSCRIPT else "torch.export.load"
    return CheckpointError(
        f"{path}: is a program that {writer} wrote. It was not opened: {reader} can unpickle, "
        "which runs whatever the file's author put in. Where it was made, export the network as an "
        "ONNX file, which teaches and is evaluated without its code: torch.onnx.export(network."
        "eval(), (images,), 'model.onnx', dynamo=True, external_data=False); or save its weights "
        "alone, torch.save(network.state_dict(), 'weights.pt'), and name it in model"
    )


def without_wrapper_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes off the prefixes of DDP, Lightning and torch.compile that all names share."""
    for _ in range(_MOST_WRAPPERS):  # a name may be millions of them
        shared = [
            prefix for prefix in _WRAPPERS if all(name.startswith(prefix) for name in state_dict)
        ]
        if not state_dict or not shared:
            return state_dict
        state_dict = {name.removeprefix(shared[0]): each for name, each in state_dict.items()}
    return state_dict


def _is_archive(path: Path) -> bool:
    """Says whether a file is an archive; refuses one that unpacks to more than its file.

    Raises:
        CheckpointError: it is compressed, as torch writes none, or its parts lie over each other;
            or it holds a program, compressed or not.
        Exception: what ``zipfile`` finds wrong with it.
    """
    with path.open("rb") as stream:
        if stream.read(len(_ARCHIVE_START)) != _ARCHIVE_START:
            return False
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    folder = parts[0].filename.split("/")[0]  # the one that torch looks in
    names = {part.filename.removeprefix(f"{folder}/") for part in parts}
    for name, writer in _PARTS_OF_PROGRAMS.items():
        if name in names:
            raise program_refused(path, writer)
    size, held = path.stat().st_size, sum(part.file_size for part in parts)
    if held > size:
        raise CheckpointError(
            f"{path}: an archive of {size} bytes that unpacks to {held}, expected one that is not "
            "compressed, as torch writes them; unpack and store it, or copy it from its origin"
        )
    return True


def _most_values(path: Path) -> int:
    return _MOST_VALUES_PER_BYTE * path.stat().st_size


def _check_entries(path: Path, state_dict: Mapping[Any, Tensor]) -> None:
    """Refuses tensors that are only announced, or that no network could take."""
    values, most = 0, _most_values(path)
    for name, tensor in state_dict.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path}: names a tensor {name!r}; expected text by name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise CheckpointError(
                f"{path}: entry {name[:100]!r} is not a dense tensor with values (layout "
                f"{tensor.layout}, {tensor.dtype}, {tensor.device}); save it as a dense one"
            )
        values += tensor.numel()
        if values > most:
            raise CheckpointError(
                f"{path}: up to entry {name[:100]!r} its {path.stat().st_size} bytes announce "
                f"{values} values; save its tensors with .clone(), which stores each value"
            )


def _find_state_dict(
    content: Any, containers: tuple[str, ...] = ()
) -> tuple[Mapping[str, Tensor] | None, tuple[str, ...], tuple[str, ...]]:
    """Returns the state dict, the names of its containers, and what lies beside it."""
    if not isinstance(content, Mapping) or not content:
        return None, (), ()
    if all(isinstance(each, Tensor) for each in content.values()):
        return dict(content), containers, ()  # a file may replace an OrderedDict's methods
    if len(containers) < _DEEPEST_CONTAINER:
        for name in _CONTAINERS:
            state_dict, trail, left = _find_state_dict(content.get(name), (*containers, name))
            if state_dict is not None:
                beside = [_told(key, each) for key, each in content.items() if key != name]
                return state_dict, trail, (*beside, *left)
    tensors = {key: each for key, each in content.items() if isinstance(each, Tensor)}
    if len(tensors) < _LEAST_TENSORS:
        return None, (), ()
    return tensors, containers, tuple(_told(k, v) for k, v in content.items() if k not in tensors)


def _told(name: Any, value: Any) -> str:
    """Names what is not read; another set of weights is worth a word."""
    inside = value.values() if isinstance(value, Mapping) else ()
    weights = sum(isinstance(each, Tensor) for each in inside) >= _LEAST_TENSORS
    return f"{str(name)[:60]} (weights, too)" if weights else str(name)[:60]


def _refusal(path: Path, error: Exception) -> CheckpointError:
    refused = _REFUSED_NAME.search(str(error))
    with path.open("rb") as stream:
        is_pickle = stream.read(1) == _PICKLE_START and isinstance(error, pickle.UnpicklingError)
    if not (refused or is_pickle or any(kind in str(error) for kind in _ARCHIVES_OF_CODE)):
        # torch's text is long and advises to read the file unsafely, which would not help here.
        reason = f"torch's reader stopped with {type(error).__name__}"
        return CheckpointError(
            f"{path}: damaged, or not a PyTorch weights file ({reason}); copy it again from its "
            "origin"
        )
    named = f" ({refused[1]})" if refused else ""
    return CheckpointError(
        f"{path}: holds pickled code objects{named} beside tensors. They were not executed: "
        "unpickling runs whatever the file's author put in. If you trust that author, convert the "
        "file where it was made, with\n"
        "    import torch\n"
        f"    old = torch.load({str(path)!r}, map_location='cpu', weights_only=False)\n"
        "    torch.save(old.state_dict() if hasattr(old, 'state_dict') else old['state_dict'], "
        f"{str(path.with_name(path.stem + '.plain.pt'))!r})\n"
        "where 'state_dict' is the name under which it keeps its tensors"
    )
