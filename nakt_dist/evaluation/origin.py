"""What the file of a trained network says of its origin, checked against the network itself."""

from collections.abc import Mapping
from typing import Any

from nakt_dist.errors import CheckpointError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.registry import is_classifier
from nakt_dist.records.fields import FieldError, read_if_there
from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import read_lineage

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


def lineage_of(trained: TrainedNetwork) -> Lineage:
    """Reads what a network learnt from, over all generations.

    Raises:
        CheckpointError: the lineage is damaged.
    """
    try:
        return read_lineage(trained.lineage, lenient=True)
    except FieldError as error:
        raise damaged(trained, error.path, error.value) from None


def other_policy(
    trained: TrainedNetwork, tested: Mapping[str, str]
) -> dict[str, Mapping[str, str]] | None:
    """Returns how unsure labels were read in training and in the test, where that differs.

    Args:
        trained: the network.
        tested: what ``uncertain`` and ``blank`` labels count as in the test.

    Returns:
        ``{"trained": …, "tested": …}``; None where both are the same, or the lineage says
        nothing.

    Raises:
        CheckpointError: the lineage is damaged.
    """
    try:
        learnt = read_if_there(trained.lineage, "label_policy", Mapping)
    except FieldError as error:
        raise damaged(trained, error.path, error.value) from None
    if learnt is None or all(learnt.get(kind) == use for kind, use in tested.items()):
        return None
    return {"trained": {kind: learnt.get(kind) for kind in tested}, "tested": dict(tested)}


def damaged(trained: TrainedNetwork, path: str, value: Any) -> CheckpointError:
    """Returns the error of a lineage that holds what no file of ours does."""
    return CheckpointError(
        f"the weights of '{trained.name}': their lineage has {str(value)[:80]} as "
        f"{path}, which no file of ours does; copy the file again from its origin"
    )
