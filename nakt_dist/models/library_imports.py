"""Imports timm, smp and torchvision without what they bring along and do not need.

timm imports W&B where it is installed, and it and torchvision torch's compiler, in order to mark a
few functions as not for it. Both together take longer than all the rest.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from nakt_dist.runtime.imports import large_imports

_COMPILER = "torch._dynamo.utils"


class _UntilUsed(ModuleType):
    """Stands in for a part of torch's compiler of which torchvision takes a function, unused."""

    @staticmethod
    def is_compile_supported(device_type: str) -> bool:
        return _compiler().is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked for by import itself
            raise AttributeError(name)
        return getattr(_compiler(), name)


def _compiler() -> ModuleType:
    if isinstance(sys.modules.get(_COMPILER), _UntilUsed):
        del sys.modules[_COMPILER]
    return importlib.import_module(_COMPILER)


@contextlib.contextmanager
def library_imports() -> Iterator[None]:
    """Surrounds imports of libraries of networks."""
    with large_imports(), contextlib.ExitStack() as stack:
        import torch  # the registry of networks does without

        if "torch._dynamo" not in sys.modules:
            stack.enter_context(_stand_in(_COMPILER, _UntilUsed(_COMPILER)))
            stack.callback(setattr, torch.compiler, "disable", torch.compiler.disable)
            torch.compiler.disable = _disable_later  # type: ignore[assignment]
        stack.enter_context(_stand_in("wandb", None))  # cannot be imported, and timm does without
        yield


@contextlib.contextmanager
def _stand_in(name: str, module: ModuleType | None) -> Iterator[None]:
    """Has ``import`` find a module that is not there yet, or None for one that it must not find."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.modules.get(name, ...) is module:
            del sys.modules[name]


def _disable_later(function: Any = None, recursive: bool = True, **_: Any) -> Callable[..., Any]:
    """Does what ``torch.compiler.disable`` does, when the function is called."""
    import torch

    return torch._disable_dynamo(function, recursive)
