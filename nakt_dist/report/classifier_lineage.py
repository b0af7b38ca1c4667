"""What a classifier learnt from, where its first weights came from, and whom it followed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.report.fields import printable, read_field
from nakt_dist.report.following import NOBODY, Followed, Kind, read_following, sorted_json
from nakt_dist.report.paper_auroc import NETWORKS
from nakt_dist.report.training_sets import TrainingSet, read_training_set

RANDOM = "random"
_PRETRAINED = ("pretrained", "encoder_weights")


@dataclass(frozen=True)
class ClassifierName:
    """A classifier as tables show it.

    Attributes:
        label: the paper's name, or ours, with the options that are set.
        paper_name: the paper's name of the architecture, or None.
    """

    label: str
    paper_name: str | None

    @property
    def order(self) -> tuple[int, str]:
        """Sorts the paper's networks first, in its order."""
        names = list(NETWORKS.values())
        return (names.index(self.paper_name) if self.paper_name else len(names), self.label)


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
    teacher: Followed | None
    settings: str

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts transfer learning first, and all layers before some."""
        teacher = "" if self.teacher is None else self.teacher.name
        return (list(Kind).index(self.kind), self.parts != "all layers", self.parts, teacher,
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
class ClassifierLineage:
    """The last training of a classifier.

    Attributes:
        trained_on: the images.
        findings: what it learnt to tell, in order.
        policy: what unsure labels count as, sorted JSON.
        start: the first weights.
        method: how.
        parameters: how many learn.
        repetition: what tells repetitions apart: the seed, and that of the choice of images.
        validated_on: the images the best epoch was chosen on; None where it is the last.
    """

    trained_on: TrainingSet
    findings: tuple[str, ...]
    policy: str
    start: Start
    method: Method
    parameters: int
    repetition: tuple[int, int]
    validated_on: TrainingSet | None


def is_classification(lineage: Mapping[str, Any]) -> bool:
    """Says whether a lineage is a classifier's."""
    return lineage.get("task") == "classification"


def parse_classifier(
    value: Mapping[str, Any], known: Mapping[str, TrainingSet] = NOBODY
) -> ClassifierLineage:
    """Reads the lineage that ``nakt train`` writes for a classifier.

    Args:
        value: the lineage.
        known: what networks learnt from, by their weights, for what it does not say of a teacher.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    trained_on = read_field(value, "trained_on", Mapping)
    validated_on = value.get("validated_on")
    subset_seed = trained_on.get("subset_seed")
    return ClassifierLineage(
        trained_on=read_training_set(trained_on),
        findings=read_texts(value, "labels"),
        policy=sorted_json(read_field(value, "label_policy", Mapping)),
        start=_read_start(value),
        method=_read_method(value, known),
        parameters=read_field(value, "trainable.parameters", int),
        repetition=(
            read_field(value, "seed", int),
            subset_seed if isinstance(subset_seed, int) else 0,
        ),
        validated_on=None if validated_on is None else read_training_set(validated_on),
    )


def read_texts(value: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Returns a list of texts in its order.

    Raises:
        DatasetError: the field is absent or holds something else.
    """
    texts = read_field(value, path, list)
    if not all(isinstance(text, str) for text in texts):
        raise DatasetError(f"the field '{path}' is {texts!r:.60}, expected a list of texts")
    return tuple(printable(text) for text in texts)


def name_classifier(model: Mapping[str, Any]) -> ClassifierName:
    """Names a classifier as tables show it; where its weights come from is not part of it.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    name = printable(read_field(model, "name", str))
    options = read_field(model, "options", Mapping) if "options" in model else {}
    words = [
        f"{key}={value}"
        for key, value in sorted(options.items())
        if value is not None and key not in _PRETRAINED
    ]
    label = NETWORKS.get(name, name.removeprefix("timm:"))
    label += f" ({', '.join(words)})" if words else ""
    return ClassifierName(printable(label), NETWORKS.get(name))


def _read_start(value: Mapping[str, Any]) -> Start:
    parent = read_field(value, "parent", (Mapping, type(None)))
    if parent is None:
        options = value.get("model", {}).get("options", {})
        given = next((options[name] for name in _PRETRAINED if options.get(name)), None)
        if given is None:
            return Start(RANDOM, RANDOM)
        words = printable(f"{given}") if isinstance(given, str) else "the library's weights"
        return Start(words, words)
    weights = printable(read_field(parent, "weights_sha256", str))
    lineage = read_field(parent, "lineage", Mapping)
    if "trained_on" in lineage:
        trained_on = read_training_set(read_field(lineage, "trained_on", Mapping))
        return Start(trained_on.label, trained_on.dataset, weights, trained_on)
    name = printable(read_field(parent, "name", str)) if "name" in parent else weights[:12]
    return Start(name, name, weights)


def _read_method(value: Mapping[str, Any], known: Mapping[str, TrainingSet]) -> Method:
    parts = _describe_parts(read_field(value, "trainable.parts", (str, list)))
    transfer = value.get("transfer")
    if transfer is None:
        return Method(Kind.TRANSFER_LEARNING, parts, None, "{}")
    following = read_following(transfer, known)
    return Method(following.kind, parts, following.teacher, following.settings)


def _describe_parts(parts: str | list[Any]) -> str:
    if parts == "all":
        return "all layers"
    if parts == "last34":
        return "last 34 layers"
    names = [parts] if isinstance(parts, str) else parts
    return printable(f"only {', '.join(map(str, names))}")[:60]
