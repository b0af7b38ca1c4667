"""What a network's lineage means for its test: images it has met, labels it read otherwise."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from nakt_dist.errors import CheckpointError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.registry import is_classifier
from nakt_dist.shards.pictures import PICTURES_NAME, PicturesMet

_TASKS = ("segmentation", "classification")


class Meeting(Enum):
    """Whether images that something was learnt from are images of the test set."""

    MET = "met"
    SAME_NAME = "the same name"
    UNKNOWN = "unknown"
    APART = "apart"

    @property
    def as_stored(self) -> bool | None:
        """Returns True or False, or None where the lineage cannot tell."""
        return {Meeting.MET: True, Meeting.APART: False}.get(self)


_WORDS = {
    "training": "learnt from",
    "validation": "has its best epoch chosen on",
    "parents": "started from weights that learnt from",
    "teacher": "followed a teacher that learnt from",
}


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


def meetings(
    trained: TrainedNetwork,
    dataset: str,
    fingerprint: str,
    splits: Sequence[str] | None,
    pictures: np.ndarray,
    met: PicturesMet,
) -> dict[str, Meeting]:
    """Finds out how a network may have met its test images, as far as can be told.

    By its lineage: images of the same packing are compared by their splits; those of a dataset
    of the same name that is packed otherwise may be of the same patients. By the pictures that
    the folder of its run remembers: the same ones are met whatever the datasets are called, and
    to whatever size they were brought. What another packing holds, nobody knows of weights beside
    which no pictures are kept.

    Args:
        trained: the network.
        dataset: name of the test set.
        fingerprint: of the test set's manifest.
        splits: tested; None for all.
        pictures: numbers of the test set's pictures, from ``pictures.numbers_of``.
        met: those that the network has met, from ``pictures.read_pictures``.

    Returns:
        By ``training``, ``validation`` (the choice of the best epoch), ``parents`` (the weights
        it was started from, and those before) and ``teacher`` (its own, and its parents').

    Raises:
        CheckpointError: the lineage is damaged.
    """

    def compare(role: str, learnt: Mapping[str, Any] | None) -> Meeting:
        if learnt is None:
            return Meeting.APART
        name, its_splits = learnt.get("dataset"), learnt.get("splits")
        if learnt.get("fingerprint") != fingerprint:
            if name == dataset:
                return Meeting.SAME_NAME
            known = name is not None and role not in met.unknown
            return Meeting.APART if known else Meeting.UNKNOWN
        if "splits" not in learnt and splits is not None:
            return Meeting.SAME_NAME
        both = its_splits is not None and splits is not None
        return Meeting.APART if both and not set(its_splits) & set(splits) else Meeting.MET

    found = {
        role: _worst([compare(role, each) for each in learnt])
        for role, learnt in _learnt_by_role(trained).items()
    }
    same = {role for role, numbers in met.numbers.items() if np.intersect1d(numbers, pictures).size}
    return {role: Meeting.MET if role in same else each for role, each in found.items()}


def describe_unknown(
    trained: TrainedNetwork,
    fingerprint: str,
    found: Mapping[str, Meeting],
    met: PicturesMet,
    images: str = "test",
) -> list[str]:
    """Says, in a sentence or none, that pictures of other packings are not known of a network.

    Args:
        trained: the network.
        fingerprint: of the manifest of the images in question.
        found: from ``meetings``.
        met: the pictures that it is known to have met.
        images: what to call the images in question.
    """
    roles = [
        role
        for role, learnt in _learnt_by_role(trained).items()
        if role in met.unknown
        and found[role] is not Meeting.MET
        and any(
            each and each.get("dataset") and each.get("fingerprint") != fingerprint
            for each in learnt
        )
    ]
    if not roles:
        return []
    lost = f"does not hold all that its {' and '.join(roles)} met"
    return [
        f"{PICTURES_NAME} {lost if met.are_kept else 'is not beside the weights'}: whether "
        f"{images} images were met in another packing cannot be known"
    ]


def describe_meetings(
    found: Mapping[str, Meeting],
    name: str,
    test_set: str,
    counts: Mapping[str, int | None],
    images: int,
) -> list[str]:
    """Says in a sentence each how a network may have met its test images.

    Args:
        found: from ``meetings``.
        name: of the network.
        test_set: what to call the test set.
        counts: how many of its images were met by role, from ``PicturesMet.count``.
        images: how many it has.
    """
    sentences = []
    for kind, meeting in found.items():
        if meeting is Meeting.MET:
            sentences.append(
                f"'{name}' {_WORDS[kind]} images that it is tested on ({test_set}): the result is "
                f"too high{f'; they are {n} of its {images} images' if (n := counts[kind]) else ''}"
            )
        elif meeting is Meeting.SAME_NAME:
            sentences.append(
                f"'{name}' {_WORDS[kind]} images of a dataset called as that of its test set "
                f"({test_set}), which its lineage does not tell apart: patients may be shared"
            )
    return sentences


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
    learnt = _mapping(trained, trained.lineage, "label_policy")
    if learnt is None or all(learnt.get(kind) == use for kind, use in tested.items()):
        return None
    return {"trained": {kind: learnt.get(kind) for kind in tested}, "tested": dict(tested)}


def _generations(trained: TrainedNetwork) -> Iterator[Mapping[str, Any]]:
    """Yields the lineage of a network, of the weights it was started from, and so on."""
    lineage: Mapping[str, Any] = trained.lineage
    yield lineage
    while (parent := _mapping(trained, lineage, "parent")) is not None:
        lineage = _mapping(trained, parent, "lineage") or {}
        yield lineage


def _learnt_by_role(trained: TrainedNetwork) -> dict[str, list[Mapping[str, Any] | None]]:
    """Returns the images of each role; None where there were none, empty where nobody knows."""
    lineages = list(_generations(trained))
    own = lineages[0]
    parents = [_learnt(trained, each, "trained_on") or {} for each in lineages[1:]]
    return {
        "training": [_learnt(trained, own, "trained_on") or {}],
        "validation": [_learnt(trained, own, "validated_on") if own else {}],
        "parents": parents if own else [{}],
        "teacher": [_taught(trained, each) if each else {} for each in lineages],
    }


def _learnt(
    trained: TrainedNetwork, lineage: Mapping[str, Any], field: str
) -> Mapping[str, Any] | None:
    images = _mapping(trained, lineage, field)
    if images is None:
        return None
    for name in ("dataset", "fingerprint"):
        if not isinstance(images.get(name), str | None):
            raise _damaged(trained, f"{field}.{name}", images[name])
    splits = images.get("splits")
    if splits is not None and not (
        isinstance(splits, list) and all(isinstance(split, str) for split in splits)
    ):
        raise _damaged(trained, f"{field}.splits", splits)
    return images


def _taught(trained: TrainedNetwork, lineage: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns what the teacher learnt from; None where there was none."""
    transfer = _mapping(trained, lineage, "transfer")
    teacher = None if transfer is None else _mapping(trained, transfer, "teacher")
    if teacher is None:
        return None
    learnt = {name: teacher.get(name) for name in ("fingerprint", "splits")}
    return _learnt(
        trained, {"teacher": {"dataset": teacher.get("trained_on"), **learnt}}, "teacher"
    )


def _worst(found: Sequence[Meeting]) -> Meeting:
    return min(found, key=list(Meeting).index, default=Meeting.APART)


def _mapping(
    trained: TrainedNetwork, lineage: Mapping[str, Any], field: str
) -> Mapping[str, Any] | None:
    value = lineage.get(field)
    if value is not None and not isinstance(value, Mapping):
        raise _damaged(trained, field, value)
    return value


def _damaged(trained: TrainedNetwork, field: str, value: Any) -> CheckpointError:
    return CheckpointError(
        f"the weights of '{trained.name}': their lineage has {str(value)[:80]} as {field}, which "
        "no file of ours does; copy the file again from its origin"
    )
