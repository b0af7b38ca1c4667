"""What a network learnt from: its images, those of its parents, and those of its teachers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nakt_dist.records.fields import label_dataset, sorted_json
from nakt_dist.runtime.files import value_sha256
from nakt_dist.signals import SIGNALS
from nakt_dist.signals.kind import TRANSFER_LEARNING, Kind
from nakt_dist.transfer.confidence import ConfidenceRule
from nakt_dist.transfer.exclusion import ExclusionRule

RANDOM = "random"
ANNOTATIONS, PSEUDO_MASKS, PSEUDO_FINDINGS = "annotations", "pseudo masks", "pseudo-findings"
"""The ``labels`` of a lineage: whose masks, or findings, were learnt."""
NO_LABELS = "no labels"
"""The same where none were."""


OF_OUTPUTS = frozenset(("task", "labels", "classes"))
"""What a stored lineage says of a network's outputs, and not of what it learnt from."""


@dataclass(frozen=True)
class Network:
    """A network behind another: a parent or a teacher; the weights alone tell them apart.

    Attributes:
        weights_sha256: of its file; None where that is not said.
        name: what the user called it; empty where that is not said.
        lineage: what it learnt from, as far as anybody says.
        stored: its lineage as its file holds it, for those that are written down.
        seen: the preprocessing with which it wrote pseudo-labels; empty where that is not said.
    """

    weights_sha256: str | None
    name: str = field(default="", compare=False)
    lineage: "Lineage" = field(default_factory=lambda: Lineage(), compare=False)
    stored: Mapping[str, Any] = field(default_factory=dict, compare=False)
    seen: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Returns what the lineages of its students and successors hold of it."""
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            **({"preprocessing": dict(self.seen)} if self.seen else {}),
            "lineage": dict(self.stored),
        }

    @property
    def learnt(self) -> "TrainingSet":
        """The images of its last training; nameless where nobody says."""
        return self.lineage.learnt

    @property
    def phantom(self) -> bool:
        """Whether it is known to have learnt from procedural images."""
        return self.learnt.phantom

    @property
    def label(self) -> str:
        """Its name, with its dataset where the name does not hold that, marked if a phantom."""
        dataset = self.learnt.dataset
        named = not dataset or _letters(dataset) in _letters(self.name)
        whose = f"“{self.name}”" if named else f"“{self.name}” of {dataset}"
        return label_dataset(whose, self.phantom)


@dataclass(frozen=True)
class Following:
    """What one training took from a teacher.

    Attributes:
        teacher: whom it followed.
        taken: the settings of each signal that was set, by name.
        architecture: of the teacher; for those that are written down.
    """

    teacher: Network
    taken: Mapping[str, Mapping[str, Any]] = field(hash=False)
    architecture: str = field(default="", compare=False)

    @property
    def kind(self) -> Kind:
        """What was taken; never transfer learning."""
        return Kind(tuple(self.taken))

    @property
    def settings(self) -> str:
        """How, sorted JSON of a flat mapping; equal settings give equal texts."""
        return sorted_json(
            {
                f"{signal}.{name}": float(value) if type(value) is int else value
                for signal, settings in self.taken.items()
                for name, value in settings.items()
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the ``transfer`` of a lineage."""
        learnt = self.teacher.stored.get("trained_on")
        known = learnt if isinstance(learnt, Mapping) else {}
        teacher = self.teacher.to_json() | {
            "model": self.architecture,
            "trained_on": known.get("dataset"),
            **{name: known.get(name) for name in ("phantom", "fingerprint", "splits")},
        }
        return {"teacher": teacher, **{name: self.taken.get(name) for name in SIGNALS}}


@dataclass(frozen=True)
class TrainingSet:
    """The images of one training, and whose masks or findings were learnt.

    Attributes:
        dataset: its name; empty where nobody says.
        fingerprint: of its manifest; likewise.
        splits: which; None for all.
        phantom: whether the images are known to be procedural.
        samples: how many; 0 where nobody says.
        teachers: who wrote what was learnt; empty where annotations were.
        taught: what they wrote; or that no labels were learnt.
        before_exclusion: images before exclusion, of pseudo-labels only.
        pseudo_labels_fingerprint: of their manifest.
        exclusion: the rule, or None where nothing was excluded.
        confidence: which pseudo-findings were learnt; None where all were, as they are.
        policy: what unsure labels count as, sorted JSON, where that is not the run's; else empty.
        splits_known: whether ``splits`` says anything.
        subset_seed: of the choice of these images.
        sources: the images of each source, where there are several; this is then all of them.
    """

    dataset: str = ""
    fingerprint: str = ""
    splits: tuple[str, ...] | None = None
    phantom: bool = False
    samples: int = 0
    teachers: tuple[Network, ...] = ()
    taught: str = PSEUDO_MASKS
    before_exclusion: int = 0
    pseudo_labels_fingerprint: str = ""
    exclusion: ExclusionRule | None = None
    splits_known: bool = field(default=True, compare=False)
    subset_seed: int = field(default=0, compare=False)
    confidence: ConfidenceRule | None = field(default=None, compare=False)
    policy: str = field(default="", compare=False)
    sources: tuple["TrainingSet", ...] = ()

    @property
    def parts(self) -> tuple["TrainingSet", ...]:
        """The images by source, most often one."""
        return self.sources or (self,)

    @property
    def with_annotations(self) -> bool:
        """Whether annotations were learnt, alone or besides pseudo masks."""
        return not all(each.teachers or each.taught == NO_LABELS for each in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Returns what a lineage holds of these images, whatever they are used for."""
        value = {
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "phantom": self.phantom,
            "samples": self.samples,
        }
        if not self.pseudo_labels_fingerprint:
            return value | {"labels": NO_LABELS if self.taught == NO_LABELS else ANNOTATIONS}
        return value | {
            "labels": self.taught,
            "before_exclusion": self.before_exclusion,
            "pseudo_labels_fingerprint": self.pseudo_labels_fingerprint,
            "teachers": [teacher.to_json() for teacher in self.teachers],
        }

    @property
    def label(self) -> str:
        """The dataset's name, marked where it is a phantom."""
        return label_dataset(self.dataset, self.phantom)


NOT_SAID = TrainingSet(splits_known=False)


def together(sources: Sequence[TrainingSet]) -> TrainingSet:
    """Returns the images of several sources as those of one training."""
    pseudo = [each for each in sources if each.pseudo_labels_fingerprint]
    return TrainingSet(
        dataset=" + ".join(dict.fromkeys(each.dataset for each in sources)),
        fingerprint=value_sha256([each.fingerprint for each in sources]),
        phantom=any(each.phantom for each in sources),
        samples=sum(each.samples for each in sources),
        teachers=tuple(dict.fromkeys(teacher for each in pseudo for teacher in each.teachers)),
        taught=pseudo[0].taught if pseudo else PSEUDO_MASKS,
        before_exclusion=sum(each.before_exclusion or each.samples for each in sources),
        pseudo_labels_fingerprint=value_sha256([e.pseudo_labels_fingerprint for e in pseudo])
        if pseudo
        else "",
        sources=tuple(sources),
    )


@dataclass(frozen=True)
class Method:
    """How a student was trained, whatever its network and data.

    Attributes:
        kind: what it takes from a teacher.
        parts: which parts learn, such as ``"all layers"``.
        teacher: whom it follows; None in transfer learning.
        settings: of the transfer, sorted JSON of a flat mapping.
    """

    kind: Kind
    parts: str
    teacher: Network | None
    settings: str

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts transfer learning first, and all layers before some."""
        teacher = "" if self.teacher is None else self.teacher.name
        return (self.kind.order, self.parts != "all layers", self.parts, teacher,
                self.settings)  # fmt: skip


@dataclass(frozen=True)
class Start:
    """Where a network's first weights came from.

    Attributes:
        label: the dataset they were trained on, the file's name, or ``"random"``.
        dataset: name to look for in the paper; the label where the dataset is not known.
        weights_sha256: of the weights; None for random ones.
        trained_on: the images behind them, where the lineage names them.
    """

    label: str
    dataset: str
    weights_sha256: str | None = field(default=None, compare=False)
    trained_on: TrainingSet | None = field(default=None, compare=False)

    @property
    def phrase(self) -> str:
        """Says where they come from, such as ``"from random weights"``."""
        return f"from {self.label}{' weights' if self.label == RANDOM else ''}"


@dataclass(frozen=True)
class Lineage:
    """A network's last training and the networks before it, over any number of generations.

    Attributes:
        trained_on: the images it learnt from; None where nobody says.
        validated_on: those its best epoch was chosen on; None where it is the last epoch.
        following: whom it followed meanwhile, by attention transfer or distillation; or None.
        parent: the network it was started from; None where it began with weights of no network.
        is_whole: whether its file says all this; else ``trained_on`` may be known.
        findings: what a classifier learnt to tell, in order.
        policy: what unsure labels count as for it, sorted JSON.
        parts: which parts of it learn, such as ``"all layers"``.
        parameters: how many of it learn.
        pretrained: the library's weights that it began with; None for random ones.
        classifies: whether it is known to be a classifier's.
        mean_teacher: how its average taught it meanwhile, in words; empty where it did not.
    """

    trained_on: TrainingSet | None = None
    validated_on: TrainingSet | None = None
    following: Following | None = None
    parent: Network | None = None
    is_whole: bool = False
    findings: tuple[str, ...] = ()
    policy: str = "{}"
    parts: str = ""
    parameters: int = 0
    seed: int = 0
    pretrained: str | None = None
    classifies: bool = False
    mean_teacher: str = ""

    @property
    def learnt(self) -> TrainingSet:
        """The images of the last training; nameless where nobody says."""
        return self.trained_on or NOT_SAID

    @property
    def labelled(self) -> TrainingSet:
        """Those of them whose labels, or pseudo-labels, were learnt."""
        found = [each for each in self.learnt.parts if each.taught != NO_LABELS]
        if len(found) == len(self.learnt.parts):
            return self.learnt
        return found[0] if len(found) == 1 else together(found)

    @property
    def generations(self) -> "tuple[Lineage, ...]":
        """This lineage, that of the weights it was started from, and so on."""
        found, generation = [self], self
        while generation.parent is not None:
            generation = generation.parent.lineage
            found.append(generation)
        return tuple(found)

    @property
    def trainings(self) -> tuple[TrainingSet, ...]:
        """All trainings that led to the network, the last one first; empty for foreign weights."""
        return tuple(each.trained_on for each in self.generations if each.trained_on is not None)

    @property
    def ancestors(self) -> tuple[str | None, ...]:
        """SHA-256 of the weights each training but a fresh one started from.

        A classifier that a segmentation network has its encoder from is none of them.
        """
        return tuple(
            each.parent.weights_sha256
            for each in self.generations
            if each.parent and each.parent.lineage.classifies == each.classifies
        )

    @property
    def transfer(self) -> TrainingSet | None:
        """The last training on pseudo masks, if there was one."""
        return next((training for training in self.trainings if training.teachers), None)

    @property
    def teachers(self) -> tuple[Network, ...]:
        """Every network that wrote its or its parents' pseudo masks, or that they followed."""
        followed = [each.following.teacher for each in self.generations if each.following]
        return (*(teacher for each in self.trainings for teacher in each.teachers), *followed)

    @property
    def start(self) -> Start:
        """Where the first weights came from."""
        if self.parent is None:
            label = self.pretrained or RANDOM
            return Start(label, label)
        weights, learnt = self.parent.weights_sha256, self.parent.learnt
        if learnt.dataset:
            return Start(learnt.label, learnt.dataset, weights, learnt)
        name = self.parent.name or f"{weights}"[:12]
        return Start(name, name, weights)

    @property
    def method(self) -> Method:
        """How it was trained last."""
        parts = self.parts
        if self.learnt.taught == PSEUDO_FINDINGS:
            besides = "labels and " if self.learnt.with_annotations else ""
            names = " + ".join(each.name for each in self.learnt.teachers)
            parts = f"{parts}, {besides}findings of {names}"
        if self.mean_teacher:
            parts = f"{parts}, {self.mean_teacher}"
        for each in self.learnt.parts:
            if each.taught == NO_LABELS:
                parts = f"{parts}, besides {each.samples:,} images of {each.label} without labels"
        if self.following is None:
            return Method(TRANSFER_LEARNING, parts, None, "{}")
        taken = self.following
        return Method(taken.kind, parts, taken.teacher, taken.settings)

    @property
    def repetition(self) -> tuple[int, int]:
        """What tells repetitions apart: the seed, and that of the choice of images."""
        return self.seed, self.learnt.subset_seed


Lineages = Mapping[str, Lineage]
"""By SHA-256 of the weights."""

NOT_KNOWN: Lineages = {}


def _letters(name: str) -> str:
    """Returns a name without what users join its words with."""
    return "".join(each for each in name.lower() if each.isalnum())
