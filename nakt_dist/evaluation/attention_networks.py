"""What a student's weights file says about its teacher, its taps and its outputs."""

from collections.abc import Sequence
from typing import Any

from nakt_dist.config import AttentionConfig
from nakt_dist.evaluation.origin import damaged, lineage_of
from nakt_dist.loading.labels import name_outputs
from nakt_dist.models.network_file import TrainedNetwork, stored_output_names
from nakt_dist.models.taps import PRESETS, preset_taps


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
    if config.preset is not None:
        preset = config.preset
    else:
        lineage_of(student)  # finds what is damaged
        trained_with = (student.lineage.get("transfer") or {}).get("attention") or {}
        if trained_with.get("taps"):
            return _pairs(student, trained_with["taps"])
        preset = trained_with.get("preset") or "paper"
        if preset not in PRESETS:
            raise damaged(student, "transfer.attention.preset", preset)
    return [(preset_taps(preset, student.spec.name), preset_taps(preset, teacher.spec.name))]


def _pairs(student: TrainedNetwork, taps: Any) -> list[tuple[str, str]]:
    try:
        pairs = [(tap["student"], tap["teacher"]) for tap in taps]
    except (KeyError, TypeError):
        raise damaged(student, "transfer.attention.taps", taps) from None
    if not all(isinstance(path, str) for pair in pairs for path in pair):
        raise damaged(student, "transfer.attention.taps", taps)
    return pairs


def is_taught_by(student: TrainedNetwork, teacher: TrainedNetwork) -> bool | None:
    """Says whether the student was trained to follow this teacher; None if it followed none.

    Raises:
        CheckpointError: the student's lineage is damaged.
    """
    following = lineage_of(student).following
    return None if following is None else following.teacher.weights_sha256 == teacher.weights_sha256


def output_names(trained: TrainedNetwork, given: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of a classifier's outputs; empty when nobody says them.

    Args:
        trained: its lineage names them, when it is ours.
        given: by the configuration, instead: a label set, or a list in order; other datasets'
            words for a finding are understood.

    Raises:
        ConfigurationError: those given are not as many as the outputs, or one is there twice.
        CheckpointError: those of the lineage are not.
    """
    if given is not None:
        return name_outputs(given, trained.spec.num_outputs, "student.labels")
    return stored_output_names(trained, f"the weights of '{trained.name}'") or ()
