"""What there is no network to build of: one that only its ONNX file knows."""

from collections.abc import Mapping
from typing import Any, NoReturn

from nakt_dist.errors import ConfigurationError


def refuse(name: str, in_channels: int, num_outputs: int, options: Mapping[str, Any]) -> NoReturn:
    """Refuses to build a network from settings.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(
        f"network '{name}' is what an ONNX file holds, which teaches and is evaluated as it is and "
        "cannot be trained; choose a network with weights of its own"
    )
