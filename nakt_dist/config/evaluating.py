"""Settings of ``evaluate``, ``report`` and ``pipeline``."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nakt_dist import limits
from nakt_dist.config.selecting import LabelConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig


@dataclass(frozen=True)
class EvaluateConfig(Limited):
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

    weights: str = field(metadata=limits.PATH)
    dataset: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    splits: list[str] | None = field(default_factory=lambda: ["test"], metadata=limits.SPLITS)
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: LabelConfig | None = None
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    threshold: float = field(
        default=0.5, metadata=limits.limit("in (0, 1)", lambda share: 0 < share < 1)
    )
    both_empty: Literal["one", "nan"] = "one"
    teacher_record: str | None = field(default=None, metadata=limits.PATH)
    compare_with: str | None = field(default=None, metadata=limits.PATH)
    bootstrap_samples: int = field(
        default=10_000, metadata=limits.within(1, 10**7, "positive, at most 10⁷")
    )
    overlays: int = field(default=0, metadata=limits.NOT_NEGATIVE)
    seed: int = field(default=0, metadata=limits.SEED)
    device: str = "auto"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)


@dataclass(frozen=True)
class ReportConfig(Limited):
    """``nakt report RUNS…``: tables, figures and one page from run records.

    Attributes:
        runs: folders that hold records, at any depth.
        output: folder for ``report.md``, ``report.html`` and the figures.
        title: of the page.
        images: show sheets of real images on the page, too; those of phantoms always are.
    """

    runs: list[str] = field(metadata=limits.limit("at least one folder", len))
    output: str = field(default="runs/report", metadata=limits.PATH)
    title: str = "Knowledge transfer report"
    images: bool = False


@dataclass(frozen=True)
class PipelineConfig(Limited):
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

    steps: list[dict[str, Any]] = field(metadata=limits.limit("a list with at least one step", len))
    root: str = field(default="runs/pipeline", metadata=limits.PATH)
    data: str = field(default="data", metadata=limits.PATH)
    definitions: dict[str, Any] = field(default_factory=dict)
    only_step: int | None = None
    only_run: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.only_run is not None and self.only_step is None:
            raise ConfigurationError(
                f"only_run is {self.only_run} but only_step is not set: a run belongs to a step. "
                "Set only_step to the number of the step in the file"
            )
