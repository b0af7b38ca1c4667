"""Reads lineages out of weights files and records that anybody may have written."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.limits import LARGEST_FACTOR
from nakt_dist.records.fields import (
    FieldError,
    printable,
    read_field,
    read_if_there,
    read_names,
    read_policy,
    read_texts,
)
from nakt_dist.records.lineage import (
    ANNOTATIONS,
    NO_LABELS,
    NOT_KNOWN,
    NOT_SAID,
    OF_OUTPUTS,
    PSEUDO_FINDINGS,
    PSEUDO_MASKS,
    Following,
    Lineage,
    Lineages,
    Network,
    TrainingSet,
)
from nakt_dist.records.run_record import RunRecord
from nakt_dist.records.told_once import lineages_told
from nakt_dist.signals import SIGNALS
from nakt_dist.transfer.confidence import ConfidenceRule
from nakt_dist.transfer.exclusion import FURTHER_LIMITS, Calibration, ExclusionRule

PRETRAINED = ("pretrained", "encoder_weights")
"""Options of a model that name weights which a library brings."""


def read_lineage(
    value: Mapping[str, Any], known: Lineages = NOT_KNOWN, *, lenient: bool = False
) -> Lineage:
    """Reads the lineage that a weights file carries.

    Args:
        value: as ``nakt train`` writes it; empty for weights that are not ours.
        known: those of networks by their weights, for teachers of which it does not say all.
        lenient: take what there is, as far as ``records.exposure.judge`` needs it.

    Raises:
        DatasetError: a field holds what no lineage does or, unless ``lenient``, is missing;
            names it.
    """
    return _read(value, _Known(value, known), lenient)


class _Known:
    """Lineages that a network's own does not hold: it holds each once, see ``told_once``.

    Args:
        value: the whole lineage that is read.
        others: those told elsewhere.
    """

    def __init__(self, value: Mapping[str, Any], others: Lineages) -> None:
        self._told, self._others = lineages_told(value), others
        self._read: dict[tuple[int, bool], Lineage] = {}

    def read(self, weights: str | None, stored: Mapping[str, Any], lenient: bool) -> Lineage:
        """Reads the lineage of a network, given what stands where it is named."""
        stored = stored or self._told.get(weights or "", {})
        if not stored:
            return self._others.get(weights or "", Lineage())
        key = (id(stored), lenient)
        if key not in self._read:
            self._read[key] = Lineage()  # of one that, by damage, is its own teacher
            self._read[key] = _read(stored, self, lenient)
        return self._read[key]


def _read(value: Mapping[str, Any], known: _Known, lenient: bool) -> Lineage:
    """Reads a lineage, or that of a network in it."""
    if not value.keys() - OF_OUTPUTS:  # all that files of other libraries say
        return Lineage()
    read = read_if_there if lenient else read_field
    classifies = is_classification(value)
    parent = read(value, "parent", (Mapping, type(None)))
    if parent is not None:
        read(parent, "lineage", Mapping)
        other_task = is_classification(read_if_there(parent, "lineage", Mapping) or {})
        parent = _read_network(parent, known, lenient, lenient or classifies or other_task)
    return Lineage(
        trained_on=_read_set(value, "trained_on", known, lenient, masks=not classifies),
        validated_on=None
        if read_if_there(value, "validated_on", Mapping) is None
        else _read_set(value, "validated_on", known, lenient, masks=False),
        following=None
        if read_if_there(value, "transfer", Mapping) is None
        else _read_following(value, known, lenient),
        parent=parent,
        is_whole=True,
        classifies=classifies,
        pretrained=_read_pretrained(value),
        **({} if lenient or not classifies else _read_classifier(value)),
    )


def lineages_in(records: Iterable[RunRecord]) -> Iterator[tuple[str | None, Lineage]]:
    """Yields the weights and lineage of each network that was trained or tested, where it is known.

    Args:
        records: of any stage; those that name no network, or are damaged, are passed over.
    """
    for record in records:
        weights = record.inputs.get("weights_sha256")
        if record.stage == "train":
            weights = record.details.get("best_weights_sha256")
        try:
            stored = read_if_there(record.details, "lineage", Mapping) or {}
            lineage = read_lineage(stored, lenient=True)
        except (DatasetError, RecursionError):
            continue  # named as the reason when the record itself is used
        if lineage.is_whole:
            yield weights if isinstance(weights, str) else None, lineage


def is_classification(lineage: Mapping[str, Any]) -> bool:
    """Says whether a lineage, as it is stored, is a classifier's."""
    return lineage.get("task") == "classification"


def readable(lineage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a lineage to pass on to students; an empty one where it is damaged."""
    try:
        read_lineage(lineage, lenient=True)
    except (DatasetError, RecursionError):
        return {}
    return lineage


def _read_pretrained(value: Mapping[str, Any]) -> str | None:
    """Reads which of a library's weights a network began with; None for none."""
    options = read_if_there(value, "model.options", Mapping) or {}
    given = next((options[name] for name in PRETRAINED if options.get(name)), None)
    if given is None:
        return None
    return printable(given) if isinstance(given, str) else "the library's weights"


def _read_classifier(value: Mapping[str, Any]) -> dict[str, Any]:
    """Reads what a classifier's lineage says besides."""
    return {
        "findings": read_texts(value, "labels"),
        "policy": read_policy(value, "label_policy"),
        "parts": _describe_parts(read_field(value, "trainable.parts", (str, list))),
        "parameters": read_field(value, "trainable.parameters", int),
        "seed": read_field(value, "seed", int),
        "mean_teacher": printable(read_if_there(value, "mean_teacher", str) or ""),
    }


def _read_set(
    lineage: Mapping[str, Any], at: str, known: _Known, lenient: bool, masks: bool
) -> TrainingSet | None:
    """Reads the images of one training.

    Args:
        at: the field that holds them.
        masks: whether it must say whose masks were learnt.
    """
    read = read_if_there if lenient else read_field
    value = read(lineage, at, Mapping)
    if value is None:
        return None
    must_say, splits_known = masks and not lenient, "splits" in value
    sources = read_if_there(value, "sources", list) or []
    seed = value.get("subset_seed")
    learnt = TrainingSet(
        dataset=printable(read(lineage, f"{at}.dataset", str) or ""),
        fingerprint=read(lineage, f"{at}.fingerprint", str) or "",
        splits=read_names(lineage, f"{at}.splits") if must_say or splits_known else None,
        phantom=read(lineage, f"{at}.phantom", bool) or False,
        samples=read(lineage, f"{at}.samples", int) or 0,
        splits_known=splits_known,
        subset_seed=seed if isinstance(seed, int) else 0,
        policy=read_policy(value, "label_policy") if value.get("label_policy") else "",
        sources=tuple(_read_source(each, known, lenient, masks) for each in sources),
    )
    if lenient:
        authors = read_if_there(lineage, f"{at}.teachers", list) or []
        taught = read_if_there(lineage, f"{at}.labels", str)
        return replace(
            learnt,
            teachers=tuple(_read_network(each, known, True) for each in authors),
            before_exclusion=read_if_there(lineage, f"{at}.before_exclusion", int) or 0,
            confidence=parse_confidence(read_if_there(lineage, f"{at}.confidence", Mapping)),
            taught=taught if taught in (PSEUDO_FINDINGS, NO_LABELS) else PSEUDO_MASKS,
        )
    labels = (read_field if masks else read_if_there)(lineage, f"{at}.labels", str)
    if labels == NO_LABELS and not masks:
        return replace(learnt, taught=labels)
    if labels == ANNOTATIONS or not (masks or labels == PSEUDO_FINDINGS):
        return learnt
    if masks and labels != PSEUDO_MASKS:
        raise DatasetError(
            f"labels is {labels!r:.60}, expected '{ANNOTATIONS}' or '{PSEUDO_MASKS}'"
        )
    authors = read_field(lineage, f"{at}.teachers", list)
    if not authors:
        raise DatasetError(f"teachers is empty, expected at least one for {labels}")
    return replace(
        learnt,
        taught=labels,
        teachers=tuple(_read_network(each, known, False) for each in authors),
        before_exclusion=read_field(lineage, f"{at}.before_exclusion", int),
        pseudo_labels_fingerprint=read_field(lineage, f"{at}.pseudo_labels_fingerprint", str),
        exclusion=parse_rule(read_field(lineage, f"{at}.exclusion", (Mapping, type(None))))
        if masks
        else None,
        confidence=parse_confidence(read_if_there(lineage, f"{at}.confidence", Mapping)),
    )


def _read_source(value: Any, known: _Known, lenient: bool, masks: bool) -> TrainingSet:
    if not isinstance(value, Mapping) or "sources" in value:
        raise DatasetError("sources holds something else than the images of a source")
    return _read_set({"source": value}, "source", known, lenient, masks) or NOT_SAID


def _read_following(lineage: Mapping[str, Any], known: _Known, lenient: bool) -> Following | None:
    """Reads the ``transfer`` of a lineage."""
    read = read_if_there if lenient else read_field
    kinds = (Mapping, type(None))
    found = {name: read_if_there(lineage, f"transfer.{name}", kinds) for name in SIGNALS}
    taken = {name: settings for name, settings in found.items() if settings is not None}
    if not (taken or lenient):
        raise DatasetError(f"the field 'transfer' names neither {' nor '.join(SIGNALS)}")
    teacher = read(lineage, "transfer.teacher", Mapping)
    if not lenient:
        read_field(lineage, "transfer.teacher.name", str)
        read_field(lineage, "transfer.teacher.trained_on", (str, type(None)))
    return None if teacher is None else Following(_read_followed(teacher, known, lenient), taken)


def _read_network(
    value: Any, known: _Known, lenient: bool, lenient_of_lineage: bool = True
) -> Network:
    """Reads a parent or teacher; ``known`` tells the lineage that it does not hold."""
    read = read_if_there if lenient else read_field
    weights, name = read(value, "weights_sha256", str), read_if_there(value, "name", str)
    stored = read_if_there(value, "lineage", Mapping) or {}
    lineage = known.read(weights, stored, lenient_of_lineage)
    seen = read_if_there(value, "preprocessing", Mapping) or {}
    return Network(weights, printable(name or ""), lineage, stored, seen)


def _read_followed(value: Any, known: _Known, lenient: bool) -> Network:
    """Reads the teacher that was followed; some lineages name the images of its training alone."""
    teacher = _read_network(value, known, lenient)
    stored = {**value, "dataset": value.get("trained_on")}
    if stored.get("fingerprint") is None:
        stored.pop("splits", None)
    images = _read_set({"teacher": stored}, "teacher", known, lenient=True, masks=False)
    return teacher if teacher.lineage.is_whole else replace(teacher, lineage=Lineage(images))


def parse_rule(value: Mapping[str, Any] | None) -> ExclusionRule | None:
    """Reads an exclusion rule; one without any threshold counts as none.

    Raises:
        DatasetError: a field is missing, unknown or of another type.
    """
    if value is None:
        return None
    number_or_none = (int, float, type(None))
    combine, scale_alpha = read_field(value, "combine", str), read_field(value, "scale_alpha", bool)
    thresholds = {name: read_field(value, name, number_or_none) for name in ("alpha", "beta")}
    for name in FURTHER_LIMITS:
        thresholds[name] = read_if_there(value, name, number_or_none)
    for name, threshold in thresholds.items():
        if threshold is not None and not 0 <= threshold <= LARGEST_FACTOR:
            raise DatasetError(f"{name} is {threshold!r}, expected a number of at least 0 or null")
    if combine not in ("either", "both"):
        raise DatasetError(f"combine is {combine!r:.60}, expected 'either' or 'both'")
    if set(thresholds.values()) == {None}:
        return None
    judged: Any = read_if_there(value, "judged", str) or "image"
    if judged not in ("image", "any_class", "every_class"):
        raise DatasetError(f"judged is {judged!r:.60}, expected image, any_class or every_class")
    named = read_if_there(value, "classes", list)
    percentile = read_if_there(value, "calibration.percentile", (int, float))
    splits = read_if_there(value, "calibration.splits", list)
    measure: Any = read_if_there(value, "calibration.measure", str) or "entropy"
    if measure not in ("entropy", "expected_dice"):
        raise DatasetError(
            f"calibration.measure is {measure!r:.60}, expected entropy or expected_dice"
        )
    return ExclusionRule(
        **thresholds,
        combine=combine,
        scale_alpha=scale_alpha,
        judged=judged,
        classes=tuple(map(str, named)) if named and judged != "image" else None,
        calibration=None
        if percentile is None or judged != "image" or not 0 <= percentile <= 100
        else Calibration(None, tuple(map(str, splits)) if splits else None, percentile, measure),
    )


def parse_confidence(value: Mapping[str, Any] | None) -> ConfidenceRule | None:
    """Reads which pseudo-findings were learnt.

    Raises:
        DatasetError: a field is of another type, or outside of its limits.
    """
    if value is None:
        return None
    limits = ("positive", "negative", "largest_disagreement")
    found: dict[str, Any] = {name: read_if_there(value, name, (int, float)) for name in limits}
    targets: Any = read_if_there(value, "targets", str) or "soft"
    if targets not in ("soft", "hard"):
        raise FieldError("confidence.targets", targets, "'soft' or 'hard'")
    try:
        return ConfidenceRule(**found, targets=targets)
    except ConfigurationError as error:
        raise FieldError("confidence", dict(value), f"a rule ({error})") from None


def _describe_parts(parts: str | list[Any]) -> str:
    if parts == "all":
        return "all layers"
    if parts == "last34":
        return "last 34 layers"
    names = [parts] if isinstance(parts, str) else parts
    return printable(f"only {', '.join(map(str, names))}")[:60]
