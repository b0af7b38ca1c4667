"""Networks by name, and their weights without pickle.

Importing this package is cheap: torch, timm and segmentation-models-pytorch are imported
only when something that needs them is used, so that reading a configuration stays instant.
"""

from nakt_dist.models.registry import MODEL_NAMES, build_model, is_classifier
from nakt_dist.models.spec import ModelSpec

__all__ = ["MODEL_NAMES", "ModelSpec", "build_model", "is_classifier"]
