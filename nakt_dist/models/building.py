"""Builds the network that a weights file or settings describe, without trusting them."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import LoadedWeights

# With these, timm and smp open the path or fetch the address that the value names.
_OPTIONS_THAT_FETCH = {
    "cache_dir", "checkpoint_path", "file", "hf_hub_id", "pretrained", "pretrained_cfg",
    "pretrained_cfg_overlay", "url", "weights",
}  # fmt: skip
_LARGEST_RATIO = 4
_ALWAYS_ALLOWED_VALUES = 1_000_000
_MOST_VALUES = 2**33  # of a network in settings: 32 GiB of float32
# Initialising passes over every value several times, and each pass is counted.
_PASSES = 32
# An operation on nothing takes time too; tiny layers could otherwise be asked for without end.
_LEAST_VALUES_COUNTED = 1000
_MOST_LAYERS = 10_000
# Some libraries make lists of such a length, before there is any value to count.
_LARGEST_OPTION = 100_000
_FACTORIES = {
    torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand,
    torch.randn, torch.zeros,
}  # fmt: skip
# They change values alone. For a tensor that has none torch imports its compiler, for seconds,
# and walks through Python to find out that there is nothing to do.
_CHANGES = {
    nn.init.constant_, nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.normal_,
    nn.init.uniform_, torch.Tensor.clamp_, torch.Tensor.erfinv_, torch.Tensor.mul_,
    torch.Tensor.normal_, torch.Tensor.uniform_,
}  # fmt: skip


def check_finite(loaded: LoadedWeights) -> None:
    """Refuses weights of a diverged training or a damaged file.

    Raises:
        CheckpointError: a tensor holds NaN or infinity; names it.
    """
    for name, tensor in loaded.state_dict.items():
        if not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        values = tensor.float() if tensor.element_size() == 1 else tensor  # float8 has no isfinite
        wrong = int(values.numel() - torch.isfinite(values).sum())
        if wrong:
            raise CheckpointError(
                f"{loaded.path}: tensor '{name}' holds {wrong} of {values.numel()} values that "
                "are NaN or infinite, expected finite weights; take a checkpoint from before the "
                "training diverged"
            )


def build_configured(spec: ModelSpec) -> nn.Module:
    """Builds the network that settings name, unless it is larger than any.

    Raises:
        ConfigurationError: it would have billions of values, or cannot be built.
    """
    try:
        _check_numbers([spec.in_channels, spec.num_outputs, spec.options])
        # The order of random numbers is that of the network itself alone.
        limit = _ValueLimit(_PASSES * _MOST_VALUES)
        with torch.random.fork_rng(devices=[]), torch.device("meta"), limit:
            fits = _size(spec.without_encoder_weights().build()) <= _MOST_VALUES
    except Exception as error:  # some libraries read values, which meta has none of
        fits = not _too_large(error)
    if not fits:
        raise ConfigurationError(
            f"model {_shown(spec)} has more than {_MOST_VALUES:,} values, or a number above "
            f"{_LARGEST_OPTION:,} in its settings; lower in_channels, num_outputs or options"
        )
    return spec.build()


def build_described(
    loaded: LoadedWeights, spec: ModelSpec, given: Collection[str] = ()
) -> nn.Module:
    """Builds the network that the file itself names, if it can be the file's own.

    A description is a few bytes and may ask for any amount of memory. The network is first
    built without memory, on torch's meta device, and its size compared with the file's.

    Args:
        given: names of options that are not the file's, but the user's.

    Raises:
        CheckpointError: the description cannot be built, asks for a far larger network than
            the file holds, or has an option that opens a path or an address.
    """
    _check_options(
        loaded.path, {name: value for name, value in spec.options.items() if name not in given}
    )
    held = sum(tensor.numel() for tensor in loaded.state_dict.values())
    allowed = _LARGEST_RATIO * held + _ALWAYS_ALLOWED_VALUES
    try:
        _check_numbers(spec.options)
        try:
            with torch.device("meta"), _ValueLimit(_PASSES * allowed):
                described = _size(spec.build())
        except Exception as error:
            if "meta tensor" not in str(error):
                raise
            with _ValueLimit(_PASSES * allowed):  # it reads its own values, which meta has none of
                return spec.build()
        if described > allowed:
            raise _TooLarge
        return spec.build()
    except Exception as error:  # whatever the description makes a library raise
        raise _refusal(loaded, spec, held, error) from None


def _refusal(loaded: LoadedWeights, spec: ModelSpec, held: int, error: Exception) -> Exception:
    if _too_large(error):
        reason = f"is far larger than the {held} values that it holds"
    else:
        reason = f"cannot be built: {error}"
    return CheckpointError(
        f"{loaded.path}: the network that the file describes, {_shown(spec)}, {reason}. The "
        "description is damaged or forged; copy the file again from its origin, or name its "
        "network in the configuration as model: {name: …, in_channels: …}"
    )


def _shown(spec: ModelSpec) -> str:
    text = spec.to_json()
    return text if len(text) <= 300 else f"{text[:300]}…"


def _check_options(path: Path, options: dict[str, Any]) -> None:
    for name in (each for part in _parts(options) if isinstance(part, dict) for each in part):
        if name in _OPTIONS_THAT_FETCH:
            raise CheckpointError(
                f"{path}: the network that the file describes has the option '{name}', which "
                "opens a path or an address; a weights file may not ask for that. If you trust "
                "it, name the network in the configuration as model: {name: …, options: …}"
            )


def _check_numbers(value: Any) -> None:
    for part in _parts(value):
        if isinstance(part, dict | list) and len(part) > _MOST_LAYERS:
            raise _TooLarge
        if isinstance(part, int | float) and abs(part) > _LARGEST_OPTION:
            raise _TooLarge


def _parts(value: Any) -> Iterator[Any]:
    """Yields what was read from JSON, and all that is in it."""
    yield value
    inside = value.values() if isinstance(value, dict) else value
    for each in inside if isinstance(value, dict | list) else ():
        yield from _parts(each)


def _size(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.state_dict().values())


class _TooLarge(Exception):
    """More values than a network for this file can have."""


def _too_large(error: BaseException | None) -> bool:
    """Says whether the limit is the reason, which the libraries' own errors may hide."""
    while error is not None:
        if isinstance(error, _TooLarge):
            return True
        error = error.__cause__ or error.__context__
    return False


class _ValueLimit(TorchFunctionMode):
    """Stops a build as soon as its operations have given more values than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._left = limit

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function in _FACTORIES:  # counted before they take memory
            planned = function(*args, **{**kwargs, "device": "meta"})
            self._count(planned)
            if function is torch.linspace:  # networks read their drop rates from it: one a layer
                if planned.numel() > _MOST_LAYERS:
                    raise _TooLarge
                kwargs.setdefault("device", "cpu")
            return function(*args, **kwargs)
        changed = args[0] if args else kwargs.get("tensor")
        is_idle = function in _CHANGES and isinstance(changed, torch.Tensor) and changed.is_meta
        result = changed if is_idle else function(*args, **kwargs)
        self._count(result)
        return result

    def _count(self, result: Any) -> None:
        if isinstance(result, torch.Tensor):
            self._left -= max(result.numel(), _LEAST_VALUES_COUNTED)
            if self._left < 0:
                raise _TooLarge
