"""Settings of ``weigh``."""

from dataclasses import dataclass, field

from nakt_dist import limits
from nakt_dist.config.selecting import LabelConfig
from nakt_dist.config.teaching import TeacherConfig
from nakt_dist.limits import Limited
from nakt_dist.transfer.classes import ClassMap
from nakt_dist.transfer.ensemble_weights import MOST_TEACHERS


@dataclass(frozen=True)
class WeighConfig(Limited):
    """``nakt weigh``: finds the weights of an ensemble on a few annotated images.

    Attributes:
        dataset: folder or URL of a packed dataset with masks, or with findings.
        output: folder for ``teachers.yaml``, which ``nakt teach --config`` takes, and the record.
        teachers: two or more; their own weights are not looked at.
        splits: the splits used; null for all. Choose images that no teacher has learnt from.
        class_map: what the classes of the masks are called by the teachers.
        labels: which findings are judged by, and what unsure ones count as (classifiers).
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of torch; None leaves torch's choice.
        cache: folder for local copies when ``dataset`` is a URL.
    """

    dataset: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    teachers: list[TeacherConfig] = field(
        metadata=limits.limit(
            f"a list of 2 to {MOST_TEACHERS} teachers",
            lambda found: 2 <= len(found) <= MOST_TEACHERS,
        )
    )
    splits: list[str] | None = field(default_factory=lambda: ["validation"], metadata=limits.SPLITS)
    class_map: ClassMap = field(default_factory=ClassMap)
    labels: LabelConfig | None = None
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    device: str = "auto"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
    cache: str = field(default="~/.cache/nakt_dist", metadata=limits.PATH)
