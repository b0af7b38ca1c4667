"""Settings of ``evaluate``, ``report`` and ``pipeline``."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nakt_dist.config.labels import LabelConfig
from nakt_dist.config.plain import (
    require,
    require_paths,
    require_processes,
    require_seed,
    require_splits,
)
from nakt_dist.config.teaching import PreprocessingConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.spec import ModelSpec


@dataclass(frozen=True)
class EvaluateConfig:
    """``nakt evaluate``: every image scored, once: Dice, or AUROC of a classifier.

    Which of the two, the weights say, or the architecture of foreign ones.

    Attributes:
        weights: weights file, or the output folder of a training run (its best weights).
        dataset: folder or URL of a packed dataset with masks, or with findings for a classifier.
        output: folder for predictions and the record.
        splits: the splits tested; None for all.
        model: architecture, when the weights file does not name it.
        preprocessing: input, as far as it is not that of the weights file.
        labels: of classifiers: the labels to test and what unsure ones count as; for foreign
            weights, the names of the outputs in order. None tests all that network and
            dataset share.
        batch_size: images per forward pass.
        threshold: of segmentation: probability above which a pixel is target.
        both_empty: Dice of an image whose mask and prediction are empty: 1 or not a number.
        teacher_record: the teacher's evaluation, for the knowledge-transfer capability.
        compare_with: output folder of another classifier's evaluation on the same test set, for
            the paired difference of mean AUROC.
        bootstrap_samples: resamplings behind the 95 % intervals, of patients for classifiers.
        overlays: of segmentation: how many images to draw with prediction and mask; 0 for none.
        seed: of the bootstrap.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of torch; None leaves torch's choice.
        cache: folder for local copies when ``dataset`` is a URL.
    """

    weights: str
    dataset: str
    output: str
    splits: list[str] | None = field(default_factory=lambda: ["test"])
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: LabelConfig | None = None
    batch_size: int = 16
    threshold: float = 0.5
    both_empty: Literal["one", "nan"] = "one"
    teacher_record: str | None = None
    compare_with: str | None = None
    bootstrap_samples: int = 10_000
    overlays: int = 0
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    cache: str = "~/.cache/nakt_dist"

    def __post_init__(self) -> None:
        require_paths(
            self, "weights", "dataset", "output", "teacher_record", "compare_with", "cache"
        )
        require_splits(self.splits, "splits")
        require(self.batch_size > 0, "batch_size", "positive")
        require(0 < self.threshold < 1, "threshold", "in (0, 1)")
        require_seed(self.seed)
        require(0 < self.bootstrap_samples <= 10**7, "bootstrap_samples", "positive, at most 10⁷")
        require(self.overlays >= 0, "overlays", "0 or more")
        require_processes(self.threads, "threads")


@dataclass(frozen=True)
class ReportConfig:
    """``nakt report RUNS…``: tables, figures and one page from run records.

    Attributes:
        runs: folders that hold records, at any depth.
        output: folder for ``report.md``, ``report.html`` and the figures.
        title: of the page.
        images: show sheets of real images on the page, too; those of phantoms always are.
    """

    runs: list[str]
    output: str = "runs/report"
    title: str = "Knowledge transfer report"
    images: bool = False

    def __post_init__(self) -> None:
        require(len(self.runs) > 0, "runs", "at least one folder")
        require_paths(self, "output")


@dataclass(frozen=True)
class PipelineConfig:
    """``nakt pipeline``: stages one after the other in one process, each resumable.

    Attributes:
        steps: each ``{stage: NAME, config: {…}}``, in order. With ``matrix: {name: [values…]}``
            a step is repeated for every combination, ``${name}`` in its config standing for the
            value; ``exclude: [{name: value}]`` leaves combinations out.
        root: folder that replaces ``${root}`` in every setting.
        data: folder of published datasets; replaces ``${data}``.
        definitions: values that replace ``${name}`` in every step.
        only_step: run this step alone, counted from 1; all are read and checked as ever.
        only_run: of that step's matrix, run this combination alone, counted from 1; what a
            task of a scheduler's array is given.
    """

    steps: list[dict[str, Any]]
    root: str = "runs/pipeline"
    data: str = "data"
    definitions: dict[str, Any] = field(default_factory=dict)
    only_step: int | None = None
    only_run: int | None = None

    def __post_init__(self) -> None:
        require_paths(self, "root", "data")
        require(len(self.steps) > 0, "steps", "a list with at least one step")
        if self.only_run is not None and self.only_step is None:
            raise ConfigurationError(
                f"only_run is {self.only_run} but only_step is not set: a run belongs to a step. "
                "Set only_step to the number of the step in the file"
            )
