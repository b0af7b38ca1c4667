"""The configuration of every stage: frozen dataclasses, no torch, no side effects.

``nakt STAGE --config FILE --dotted.key value`` fills them; so does Python code.
"""

from nakt_dist.config.doctor import DoctorConfig
from nakt_dist.config.evaluating import (
    AttentionConfig,
    EvaluateConfig,
    ReportConfig,
    ShownNetworkConfig,
)
from nakt_dist.config.exporting import ExportConfig
from nakt_dist.config.mirroring import MirrorConfig
from nakt_dist.config.packing import (
    ImageConfig,
    PackConfig,
    PhantomsConfig,
    SplitConfig,
    VerifyConfig,
)
from nakt_dist.config.predicting import GivenImageConfig, PredictConfig
from nakt_dist.config.recipe import (
    EarlyStoppingConfig,
    MeanTeacherConfig,
    OptimiserConfig,
    RecipeConfig,
    ScheduleConfig,
)
from nakt_dist.config.saving import CONFIG_NAME, as_plain, save_config
from nakt_dist.config.selecting import DataConfig, LabelConfig, SourceConfig, ValidationConfig
from nakt_dist.config.studying import StudyConfig
from nakt_dist.config.submitting import SubmitConfig
from nakt_dist.config.teaching import (
    FindingsTableConfig,
    InspectConfig,
    LearntImagesConfig,
    NetworkCardConfig,
    PrivacyConfig,
    TeachConfig,
    TeacherConfig,
    TrainingTeacherConfig,
)
from nakt_dist.config.training import (
    AugmentationConfig,
    CheckpointConfig,
    ProfileConfig,
    TrackingConfig,
    TrainConfig,
)
from nakt_dist.config.watching import WatchConfig
from nakt_dist.config.weighing import WeighConfig
from nakt_dist.models.spec import PreprocessingConfig
from nakt_dist.signals import (
    AttentionTransferConfig,
    DistConfig,
    DistillationConfig,
    HintsConfig,
    MultiLabelConfig,
    SimilarityConfig,
    TapConfig,
)
from nakt_dist.transfer.binary_loss import BinaryLoss

__all__ = [
    "CONFIG_NAME",
    "AttentionConfig",
    "AttentionTransferConfig",
    "AugmentationConfig",
    "BinaryLoss",
    "CheckpointConfig",
    "DataConfig",
    "DistConfig",
    "DistillationConfig",
    "DoctorConfig",
    "EarlyStoppingConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FindingsTableConfig",
    "GivenImageConfig",
    "HintsConfig",
    "ImageConfig",
    "InspectConfig",
    "LabelConfig",
    "LearntImagesConfig",
    "MeanTeacherConfig",
    "MirrorConfig",
    "MultiLabelConfig",
    "NetworkCardConfig",
    "OptimiserConfig",
    "PackConfig",
    "PhantomsConfig",
    "PredictConfig",
    "PreprocessingConfig",
    "PrivacyConfig",
    "ProfileConfig",
    "RecipeConfig",
    "ReportConfig",
    "ScheduleConfig",
    "ShownNetworkConfig",
    "SimilarityConfig",
    "SourceConfig",
    "SplitConfig",
    "StudyConfig",
    "SubmitConfig",
    "TapConfig",
    "TeachConfig",
    "TeacherConfig",
    "TrackingConfig",
    "TrainConfig",
    "TrainingTeacherConfig",
    "ValidationConfig",
    "VerifyConfig",
    "WatchConfig",
    "WeighConfig",
    "as_plain",
    "save_config",
]
