"""The configuration of every stage: frozen dataclasses, no torch, no side effects.

``nakt STAGE --config FILE --dotted.key value`` fills them; so does Python code.
"""

from nakt_dist.config.evaluating import EvaluateConfig, PipelineConfig, ReportConfig
from nakt_dist.config.packing import (
    ImageConfig,
    PackConfig,
    PhantomsConfig,
    SplitConfig,
    VerifyConfig,
)
from nakt_dist.config.plain import CONFIG_NAME, as_plain, save_config
from nakt_dist.config.teaching import InspectConfig, PreprocessingConfig, TeachConfig, TeacherConfig
from nakt_dist.config.training import (
    AugmentationConfig,
    CheckpointConfig,
    DataConfig,
    RecipeConfig,
    TrackingConfig,
    TrainConfig,
)

__all__ = [
    "CONFIG_NAME",
    "AugmentationConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluateConfig",
    "ImageConfig",
    "InspectConfig",
    "PackConfig",
    "PhantomsConfig",
    "PipelineConfig",
    "PreprocessingConfig",
    "RecipeConfig",
    "ReportConfig",
    "SplitConfig",
    "TeachConfig",
    "TeacherConfig",
    "TrackingConfig",
    "TrainConfig",
    "VerifyConfig",
    "as_plain",
    "save_config",
]
