"""What a weights file says of its network: task, lineage, taps and outputs, checked against it."""

from collections.abc import Mapping, Sequence
from typing import Any

from nakt_dist.config import AttentionConfig
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.network_file import TrainedNetwork, stored_output_names
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.taps import PRESETS, preset_taps
from nakt_dist.records.fields import FieldError, read_if_there
from nakt_dist.records.lineage import NO_LABELS, PSEUDO_FINDINGS, Lineage
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.sources.findings import use_of
from nakt_dist.transfer.classes import ONE_TARGET, check_classes

_TASKS = ("segmentation", "classification")


def task_of(trained: TrainedNetwork) -> str:
    """Returns what a network does, by its architecture, which its lineage may not contradict.

    Raises:
        CheckpointError: it does.
    """
    task = _TASKS[is_classifier(trained.spec.name)]
    said = trained.lineage.get("task")
    if said not in (None, task):
        raise CheckpointError(
            f"the weights of '{trained.name}': their lineage says that the task is "
            f"{str(said)[:40]!r}, but the network {trained.spec.name} is one of {task}; the file "
            "is damaged or forged, copy it again from its origin"
        )
    return task


def refuse_other_task(config: Any, settings: Sequence[str], trained: TrainedNetwork) -> None:
    """Refuses settings that are for networks of the other task.

    Raises:
        ConfigurationError: one of them is set.
    """
    classifies = is_classifier(trained.spec.name)
    others = "segmentation" if classifies else "classifiers"
    does = "classifies" if classifies else "segments"
    for name in settings:
        if getattr(config, name):
            raise ConfigurationError(
                f"{name} is for {others}, and {config.weights} {does}; leave it out"
            )


def lineage_of(trained: TrainedNetwork) -> Lineage:
    """Reads what a network learnt from, over all generations.

    Raises:
        CheckpointError: the lineage is damaged.
    """
    try:
        return read_lineage(trained.lineage, lenient=True)
    except FieldError as error:
        raise _damaged(trained, error.path, error.value) from None


def other_policy(
    trained: TrainedNetwork, tested: Mapping[str, Any], findings: Sequence[str] = ()
) -> dict[str, Mapping[str, Any]] | None:
    """Returns how unsure labels were read in training and in the test, where that differs.

    Args:
        tested: what ``uncertain`` and ``blank`` labels count as in the test.
        findings: that are tested; others may have been read otherwise.

    Returns:
        ``{"trained": …, "tested": …}``, of several sources the first that differs; None where both
        are the same, or the lineage says nothing.

    Raises:
        CheckpointError: the lineage is damaged.
    """
    try:
        of_run = read_if_there(trained.lineage, "label_policy", Mapping)
        whole = read_if_there(trained.lineage, "trained_on", Mapping) or {}
        sources = read_if_there(whole, "sources", list) or [whole]
        read = [read_if_there({"source": each}, "source.label_policy", Mapping) for each in sources]
    except FieldError as error:
        raise _damaged(trained, error.path, error.value) from None
    annotated = [
        policy
        for source, policy in zip(sources, read, strict=True)
        if source.get("labels") not in (NO_LABELS, PSEUDO_FINDINGS)
    ]
    for learnt in annotated or [None]:
        used = learnt or of_run or tested
        if not all(
            used.get(kind) == use or _used_alike(used.get(kind), use, findings)
            for kind, use in tested.items()
        ):
            return {"trained": {kind: used.get(kind) for kind in tested}, "tested": dict(tested)}
    return None


def _used_alike(learnt: Any, tested: Any, findings: Sequence[str]) -> bool:
    alike = [use_of(learnt, name) == use_of(tested, name) for name in findings]
    return bool(alike) and all(alike)


def choose_taps(
    config: AttentionConfig, student: TrainedNetwork, teacher: TrainedNetwork
) -> list[tuple[str, str]]:
    """Returns the pairs of layers to compare: those asked for, trained with, or the paper's.

    Args:
        student: whose lineage names them where it was trained by attention transfer.

    Raises:
        ConfigurationError: a preset has no tap for one of the networks.
        CheckpointError: the student's lineage is damaged.
    """
    if config.taps:
        return [(tap.student, tap.teacher) for tap in config.taps]
    if config.preset is not None:
        preset = config.preset
    else:
        lineage_of(student)  # finds what is damaged
        trained_with = (student.lineage.get("transfer") or {}).get("attention") or {}
        if trained_with.get("taps"):
            return _pairs(student, trained_with["taps"])
        preset = trained_with.get("preset") or "paper"
        if preset not in PRESETS:
            raise _damaged(student, "transfer.attention.preset", preset)
    return [(preset_taps(preset, student.spec.name), preset_taps(preset, teacher.spec.name))]


def _pairs(student: TrainedNetwork, taps: Any) -> list[tuple[str, str]]:
    try:
        pairs = [(tap["student"], tap["teacher"]) for tap in taps]
    except (KeyError, TypeError):
        raise _damaged(student, "transfer.attention.taps", taps) from None
    if not all(isinstance(path, str) for pair in pairs for path in pair):
        raise _damaged(student, "transfer.attention.taps", taps)
    return pairs


def is_taught_by(student: TrainedNetwork, teacher: TrainedNetwork) -> bool | None:
    """Says whether the student was trained to follow this teacher; None if it followed none.

    Raises:
        CheckpointError: the student's lineage is damaged.
    """
    following = lineage_of(student).following
    return None if following is None else following.teacher.weights_sha256 == teacher.weights_sha256


def classes_of(
    trained: TrainedNetwork, given: Sequence[str] | None, setting: str, weights: str
) -> tuple[str, ...]:
    """Returns the classes that a network which segments tells apart, in the order of its outputs.

    Args:
        given: by the configuration, instead of those that the file names.
        weights: as the user named the file, for messages.

    Raises:
        ConfigurationError: they are not as many as the outputs, or nobody says them.
        CheckpointError: those of the file are damaged.
    """
    count = max(trained.spec.num_outputs, 2)  # the one output is the target's
    names = given or stored_output_names(trained, weights, "classes")
    if names is None and count == len(ONE_TARGET):
        return ONE_TARGET
    if names is None or len(names) != count:
        raise ConfigurationError(
            f"{weights}: the network has {trained.spec.num_outputs} outputs, and "
            f"{setting} {'names ' + ', '.join(names) if names else 'does not name them'}; give "
            f"{count} names in the order of the outputs, one of them background"
        )
    return check_classes(names, setting)


def _damaged(trained: TrainedNetwork, path: str, value: Any) -> CheckpointError:
    """Returns the error of a lineage that holds what no file of ours does."""
    return CheckpointError(
        f"the weights of '{trained.name}': their lineage has {str(value)[:80]} as "
        f"{path}, which no file of ours does; copy the file again from its origin"
    )
