"""What a student's weights file says about its teacher, its taps and its outputs."""

from collections.abc import Mapping
from typing import Any

from nakt_dist.config import AttentionConfig
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.taps import preset_taps


def choose_taps(
    config: AttentionConfig, student: TrainedNetwork, teacher: TrainedNetwork
) -> list[tuple[str, str]]:
    """Returns the pairs of layers to compare: those asked for, trained with, or the paper's.

    Args:
        config: may name them.
        student: its lineage may, where it was trained by attention transfer.
        teacher: the other network.

    Raises:
        ConfigurationError: a preset has no tap for one of the networks.
        CheckpointError: the student's lineage is damaged.
    """
    if config.taps:
        return [(tap.student, tap.teacher) for tap in config.taps]
    preset = config.preset
    if preset is None:
        trained_with = _transfer(student).get("attention") or {}
        if not isinstance(trained_with, Mapping):
            raise _damaged(student, "transfer.attention", trained_with)
        if trained_with.get("taps"):
            return _pairs(student, trained_with["taps"])
        preset = trained_with.get("preset") or "paper"
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
    followed = _transfer(student).get("teacher")
    if not isinstance(followed, Mapping):
        return None
    return followed.get("weights_sha256") == teacher.weights_sha256


def output_names(trained: TrainedNetwork, given: list[str] | None) -> tuple[str, ...]:
    """Returns the names of a classifier's outputs; empty when nobody says them.

    Args:
        trained: its lineage names them, when it is ours.
        given: by the configuration, instead.

    Raises:
        ConfigurationError: those given are not as many as the outputs, or one is there twice.
        CheckpointError: those of the lineage are not.
    """
    names = trained.lineage.get("labels") if given is None else given
    if names is None:
        return ()
    count = trained.spec.num_outputs
    texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if texts and len(names) == len(set(names)) == count:
        return tuple(names)
    if given is None:
        raise _damaged(trained, "labels", names)
    raise ConfigurationError(
        f"student.labels names {len(names)} outputs ({', '.join(map(str, names))}), and "
        f"'{trained.name}' has {count}; name each once, in order"
    )


def _transfer(student: TrainedNetwork) -> Mapping[str, Any]:
    value = student.lineage.get("transfer") or {}
    if not isinstance(value, Mapping):
        raise _damaged(student, "transfer", value)
    return value


def _damaged(trained: TrainedNetwork, field: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"the weights of '{trained.name}': their lineage has {str(value)[:80]} as {field}, which "
        "no file of ours does; copy the file again from its origin, or set taps and student.labels"
    )
