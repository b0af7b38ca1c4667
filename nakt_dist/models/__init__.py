"""Networks by name, and their weights without pickle.

Importing this package is cheap: torch, timm and segmentation-models-pytorch are imported
only when something that needs them is used, so that reading a configuration stays instant.
"""

from typing import TYPE_CHECKING, Any

from nakt_dist.models.registry import MODEL_NAMES, build_model, is_classifier
from nakt_dist.models.spec import ModelSpec

if TYPE_CHECKING:
    from nakt_dist.models.weights import (
        LoadedWeights,
        LoadReport,
        ShapeMismatch,
        file_sha256,
        load_into,
        read_weights,
        save_weights,
    )

__all__ = [
    "MODEL_NAMES",
    "LoadReport",
    "LoadedWeights",
    "ModelSpec",
    "ShapeMismatch",
    "build_model",
    "file_sha256",
    "is_classifier",
    "load_into",
    "read_weights",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # what is not here yet lies in the one module that needs torch
        from nakt_dist.models import weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
