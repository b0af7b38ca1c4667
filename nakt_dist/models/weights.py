"""Weights files: written as safetensors, read without ever running code from a file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.imagenet import describe_imagenet
from nakt_dist.models.legacy_weights import (
    LEGACY_SUFFIXES,
    PROGRAM_SUFFIXES,
    program_refused,
    read_legacy,
    without_wrapper_names,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.files import file_sha256, write_bytes

_FORMAT_VERSION = "1"
_VERSION_FIELD = "nakt_weights"
# Other tools look for "format": "pt" to know that the tensors are PyTorch's.
_OWN_FIELDS = ("format", _VERSION_FIELD, "model")
_HEADER_SIZE_BYTES = 8
_MOST_LEFT_SHOWN = 8


@dataclass(frozen=True)
class LoadedWeights:
    """What a weights file holds.

    Attributes:
        state_dict: tensors by name on the CPU, with the dtypes of the file.
        spec: the network they belong to; None for a file that nakt_dist did not write, but for
            that of ``models.imagenet`` and those that ``published`` knows.
        metadata: the text that was given to ``save_weights``.
        sha256: of the file's bytes, 64 hexadecimal digits.
        source_format: "safetensors"; or "torch", followed by ":" and the name of the container
            that held the state dict, such as "torch:state_dict".
        left: what the file has beside the network and is not read, such as "optimizer".
        notices: what a file of another library was taken for, a sentence each.
    """

    path: Path
    state_dict: dict[str, Tensor]
    spec: ModelSpec | None
    metadata: dict[str, str]
    sha256: str
    source_format: str
    left: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def save_weights(
    path: Path, state_dict: Mapping[str, Tensor], spec: ModelSpec, metadata: Mapping[str, str]
) -> str:
    """Writes weights as safetensors; the file is whole or absent.

    Equal arguments give equal bytes. Dtypes and buffers are kept, memory layouts are not.
    Tensors that share memory, such as tied weights, are each written in full.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        state_dict: of the bare network: without the names that DDP or torch.compile add.

    Returns:
        The SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        CheckpointError: an entry is not a dense tensor.
        ConfigurationError: ``metadata`` uses a reserved name or holds something but text.
    """
    for name, text in metadata.items():
        if name in _OWN_FIELDS or not isinstance(name, str) or not isinstance(text, str):
            raise ConfigurationError(
                f"{path}: metadata field {name!r} is {text!r}; expected text by name, and none "
                f"of the names {', '.join(_OWN_FIELDS)}"
            )
    fields = {"format": "pt", _VERSION_FIELD: _FORMAT_VERSION, "model": spec.to_json(), **metadata}
    data = _encode(path, state_dict, fields)
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_weights(path: Path) -> LoadedWeights:
    """Reads a weights file, ours or foreign, without running any code that it may hold.

    ``.safetensors`` files are read by safetensors; ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` and
    ``.tar`` files by torch's reader for plain tensors. In a foreign file the state dict may lie
    in a container such as ``state_dict`` or ``model``, and a prefix that wrappers put before
    every name (``module.``, ``model.``, ``_orig_mod.``) is taken off.

    Raises:
        CheckpointError: there is no such file, it is damaged, of another kind, holds pickled
            code (the message has the way to convert it), or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder; name the weights file in it" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {found}")
    if path.suffix in LEGACY_SUFFIXES:
        state_dict, source_format, left = read_legacy(path)
        sha256 = file_sha256(path)
        state_dict, spec, metadata = describe_imagenet(path, sha256, state_dict)
        return LoadedWeights(path, state_dict, spec, metadata, sha256, source_format, left)
    if path.suffix in PROGRAM_SUFFIXES:
        raise program_refused(path, PROGRAM_SUFFIXES[path.suffix])
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path}: an ONNX file is a finished network: it teaches and is evaluated, and cannot "
            "be trained further. Give the weights that it was exported from"
        )
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: unknown kind of weights file '{path.suffix}'; expected .safetensors, or of "
            f"PyTorch {', '.join(LEGACY_SUFFIXES)}"
        )
    return _read_safetensors(path)


def describe_left(loaded: LoadedWeights) -> str | None:
    """Says what of a file was not read; None where that is nothing."""
    if not loaded.left:
        return None
    shown = ", ".join(loaded.left[:_MOST_LEFT_SHOWN])
    more = len(loaded.left) - _MOST_LEFT_SHOWN
    where = loaded.source_format.partition(":")[2].replace(":", ".")
    read = f"'{where}' of its file is read" if where else "the network in its file is read"
    return f"{read}; left there: {shown}{f' and {more} more' if more > 0 else ''}"


def _encode(path: Path, state_dict: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Serialises in an order that is the same every time, which safetensors leaves to chance.

    The header lists the metadata sorted and the entries in the order of the state dict.
    """
    try:
        data = safetensors.torch.save(_dense(state_dict), metadata)
    except (SafetensorError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{path}: these weights cannot be written: {error}; expected dense tensors by name"
        ) from error
    body = _HEADER_SIZE_BYTES + int.from_bytes(data[:_HEADER_SIZE_BYTES], "little")
    header = json.loads(data[_HEADER_SIZE_BYTES:body])
    ordered = {"__metadata__": dict(sorted(metadata.items()))}
    ordered |= {name: header[name] for name in state_dict}
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_SIZE_BYTES)  # so that the tensors stay aligned
    size = len(text).to_bytes(_HEADER_SIZE_BYTES, "little")
    return b"".join((size, text, memoryview(data)[body:]))


def _dense(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns contiguous CPU tensors, no two of which share memory: safetensors wants that."""
    storages: set[int] = set()
    dense = {}
    for name, tensor in state_dict.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        dense[name] = tensor
    return dense


def _read_safetensors(path: Path) -> LoadedWeights:
    data = _whole_file(path)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # of a hostile header torch raises many kinds
        raise _not_safetensors(path, error) from error
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; expected a network's weights")
    header_size = int.from_bytes(data[:_HEADER_SIZE_BYTES], "little")
    header = json.loads(data[_HEADER_SIZE_BYTES : _HEADER_SIZE_BYTES + header_size])
    fields = header.pop("__metadata__", None) or {}
    state_dict = {name: tensors[name] for name in header}  # load() forgets the order
    spec = _read_spec(path, fields)
    return LoadedWeights(
        path=path,
        state_dict=without_wrapper_names(state_dict) if spec is None else state_dict,
        spec=spec,
        metadata={name: text for name, text in fields.items() if name not in _OWN_FIELDS},
        sha256=hashlib.sha256(data).hexdigest(),
        source_format="safetensors",
    )


def _not_safetensors(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: damaged, or not a safetensors file ({str(error)[:300]}); copy it again from its "
        "origin"
    )


def _whole_file(path: Path) -> bytes:
    """Reads a file after a look at its header: it may be a huge file of another kind."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        claimed = int.from_bytes(stream.read(_HEADER_SIZE_BYTES), "little")
        if size < _HEADER_SIZE_BYTES or claimed > size - _HEADER_SIZE_BYTES:
            raise CheckpointError(
                f"{path}: truncated, or not a safetensors file: it has {size} bytes and announces "
                f"a header of {claimed}; copy it again from its origin, or, if it is a PyTorch "
                "file, name it .pt"
            )
        try:
            with safetensors.safe_open(path, "pt"):
                pass  # the header is compared with the file's size
        except Exception as error:  # as above
            raise _not_safetensors(path, error) from error
        stream.seek(0)
        return stream.read()


def _read_spec(path: Path, fields: dict[str, str]) -> ModelSpec | None:
    version = fields.get(_VERSION_FIELD)
    if version is None:
        return None
    if version != _FORMAT_VERSION or "model" not in fields:
        raise CheckpointError(
            f"{path}: weights format '{version}', expected '{_FORMAT_VERSION}' with a model; "
            "read it with the version of nakt_dist that wrote it"
        )
    try:
        return ModelSpec.from_json(fields["model"])
    except ConfigurationError as error:
        raise CheckpointError(f"{path}: {error}") from error
