"""Which run a training is: what its weights come from, and what its processes have in common."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.config import TrainConfig, as_plain
from nakt_dist.errors import CheckpointError, DatasetError
from nakt_dist.models.weights_path import BEST_WEIGHTS, LAST_WEIGHTS, weights_path
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, package_versions, read_record
from nakt_dist.records.told_once import told_once
from nakt_dist.runtime.files import differing_fields, read_json, with_new_nulls, write_json
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.shared_job import Job
from nakt_dist.runtime.wandb_run import RUN_ID_NAME
from nakt_dist.shards.pictures import PicturesMet, numbers_of, read_pictures
from nakt_dist.stages.train_plan import TrainPlan
from nakt_dist.stages.train_sources import describe_training
from nakt_dist.training.fastest import resolve
from nakt_dist.training.following import describe_following
from nakt_dist.training.loop import CHECKPOINTS_NAME
from nakt_dist.training.mean_teacher import describe_mean_teacher

_IDENTITY_NAME = "identity.json"
_MAY_CHANGE = (
    "output", "checkpoint", "tracking", "profile", "device", "workers", "memory_cache_megabytes",
    "threads", "log_keys", "init", "init_labels", "watchdog_seconds",
)  # fmt: skip
_MAY_CHANGE_IN_DATA = ("dataset", "pseudo_labels", "cache")
_LENGTH = ("epochs", "steps")
_MAY_CHANGE_IN_RECIPE = ("micro_batch_size", "not_finite", "halve_when_out_of_memory")
_MAY_CHANGE_IN_TEACHER = ("weights", "card")
_TOLD_BY_DATA = ("image",)
_TOLD_BY_WEIGHTS = ("name", "lineage")


def lineage_of(plan: TrainPlan, trainable_parameters: int) -> dict[str, Any]:
    """What the weights come from; travels inside them, holds no path."""
    config, training, teacher = plan.config, plan.training, plan.teacher
    lineage = {
        "task": config.task,
        "model": asdict(plan.start.spec),
        "seed": config.seed,
        "labels": training.findings,
        **({"classes": plan.classes} if plan.classes else {}),
        "label_policy": training.policy and asdict(training.policy),
        "trainable": {"parts": config.trainable, "parameters": trainable_parameters},
        "trained_on": describe_training(config, training),
        "validated_on": None
        if plan.validation is None or config.validation is None
        else {
            **plan.validation.samples.describe(),
            "splits": config.validation.splits,
            "same_images": config.validation.same_images,
        },
        "parent": plan.start.origin and plan.start.origin.to_json(),
        **describe_mean_teacher(config.recipe),
        "transfer": teacher
        and describe_following(teacher.config, teacher.network, teacher.pairing),
    }
    return told_once(json.loads(json.dumps(lineage)))


def pictures_met(plan: TrainPlan) -> PicturesMet:
    """Returns the numbers of the pictures that the network meets, by role.

    Returns:
        Those of ``training``, ``validation`` (where the best epoch is chosen), ``parents`` (what
        the weights it starts from learnt from, and those before) and ``teacher`` (what its own,
        and its parents', learnt from).
    """
    config, validation = plan.config, plan.validation
    first = read_pictures(weights_path(config.init)) if config.init else PicturesMet({})
    taught = plan.teacher.met if plan.teacher else PicturesMet({})
    parent, teacher = first.numbers, taught.numbers
    # Pseudo-labels may be passed on, and do not hold which pictures those that wrote them met.
    authors = {"teacher"} if any(source.pseudo_labels for source in config.sources) else set()

    def union(*found: np.ndarray | None) -> np.ndarray:
        known = [each for each in found if each is not None]
        return np.unique(np.concatenate(known)) if known else np.empty(0, np.int64)

    numbers = {
        "training": union(
            *(numbers_of(each.samples.images.column("pixels")) for each in plan.training.sources)
        ),
        "validation": numbers_of(validation.samples.images.column("pixels"))
        if validation
        else union(),
        "parents": union(parent.get("training"), parent.get("parents")),
        "teacher": union(*teacher.values(), parent.get("teacher")),
    }
    unknown = {
        "parents": first.unknown & {"training", "parents"},
        "teacher": taught.unknown | (first.unknown & {"teacher"}) | authors,
    }
    return PicturesMet(numbers, frozenset(role for role, those in unknown.items() if those))


def resolve_auto(config: TrainConfig) -> TrainConfig:
    """Returns the configuration with a recipe that leaves nothing to be chosen.

    A run that goes on keeps what it began with, on whatever machine.
    """
    output, begun = Path(config.output), {}
    path = output / _IDENTITY_NAME
    if path.exists() and (_has_checkpoint(output) or (output / RECORD_NAME).exists()):
        settings = read_json(path, "identity").get("settings")
        found = settings.get("recipe") if isinstance(settings, dict) else None
        begun = found if isinstance(found, dict) else {}
    return replace(config, recipe=resolve(config.recipe, config.device, begun))


class Training(Job):
    """The training run of an output, by its settings and the lineage of its weights."""

    stage = "train"
    written_last = RECORD_NAME

    def __init__(self, config: TrainConfig, lineage: Mapping[str, Any]) -> None:
        self.config = config
        settings, told = _deciding_settings(config), _without_names(lineage)
        super().__init__(config.output, {"settings": settings, "lineage": told})

    @property
    def alike(self) -> dict[str, Any]:
        """What all processes of a launch must have been started with.

        Versions without the part that says what a package was built for: drivers differ in a
        cluster.
        """
        return {
            **self.identity,
            "recipe": as_plain(self.config.recipe),
            "checkpoint": vars(self.config.checkpoint),
            "tracking": vars(self.config.tracking),
            "versions": {
                name: version.partition("+")[0]
                for name, version in package_versions().items()
                if name != "python"
            },
        }

    def check(self) -> list[str]:
        """Looks whether the run could begin or go on: see ``Job``."""
        check_output(self.output, self.stage)
        self.is_begun()
        return []

    def begin(self) -> bool:
        """Notes which run begins here, unless it did before; says whether it did.

        Raises:
            DatasetError: as ``is_begun``.
        """
        begun = self.is_begun()
        if begun or not process_place().is_main:
            return begun
        if self._was_another():  # W&B would keep its first steps, and leave out this one's
            (self.output / RUN_ID_NAME).unlink(missing_ok=True)
        write_json(self.output / _IDENTITY_NAME, self.identity)
        return False

    def _was_another(self) -> bool:
        """Says whether a run of other settings began here, which came to no checkpoint."""
        path = self.output / _IDENTITY_NAME
        try:
            return path.exists() and read_json(path, "identity") != self.identity
        except DatasetError:
            return True

    def finished(self) -> RunRecord | None:
        """Returns the record of this run when it is done and no more was asked for.

        Weights that were deleted come back from a checkpoint.

        Raises:
            CheckpointError: it is done, and what it would go on from is gone.
        """
        output = self.output
        if not (output / self.written_last).exists():
            return None
        record = read_record(output / self.written_last)
        stored, asked = record.config["recipe"], as_plain(self.config)["recipe"]
        same_length = all(stored[name] == asked[name] for name in _LENGTH)
        missing = [name for name in (BEST_WEIGHTS, LAST_WEIGHTS) if not (output / name).exists()]
        if _has_checkpoint(self.output):
            return record if same_length and not missing else None
        if same_length:
            if missing:
                say(f"train: {output} is finished, and {' and '.join(missing)} deleted since")
            return record
        raise CheckpointError(
            f"{output}: a run that is finished, without the {CHECKPOINTS_NAME} that it would go on "
            "from. Restore them, or choose another --output"
        )

    def is_begun(self) -> bool:
        """Says whether the output holds this run, with something to lose.

        Raises:
            DatasetError: it holds another run, or this one of other data; names what differs.
        """
        path = self.output / _IDENTITY_NAME
        # Before its first checkpoint a run has nothing to lose: a mistaken setting may be mended.
        if not _has_checkpoint(self.output) and not (self.output / self.written_last).exists():
            return False
        if not path.exists():
            raise DatasetError(
                f"{self.output}: holds a training run, and no {_IDENTITY_NAME} that says which. "
                "Restore it, or choose another --output"
            )
        began = with_new_nulls(read_json(path, "identity"), self.identity)
        differences = differing_fields(began, self.identity)
        if differences:
            raise DatasetError(
                f"{self.output}: holds a training run with other settings or data "
                f"({'; '.join(differences[:5])}). Choose another --output, or delete the folder"
            )
        return True


def _has_checkpoint(output: Path) -> bool:
    return any((output / CHECKPOINTS_NAME).glob("step-*"))


def _deciding_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings a resumed run must share with the one that began.

    Places of files are not among them: the lineage says what is there.
    """
    plain = _without(as_plain(config), _MAY_CHANGE)
    length = () if config.recipe.schedule.ends_with_training else _LENGTH
    plain["recipe"] = _without(plain["recipe"], (*_MAY_CHANGE_IN_RECIPE, *length))
    plain["teacher"] = plain["teacher"] and _without(plain["teacher"], _MAY_CHANGE_IN_TEACHER)
    for part in ("data", "validation"):
        plain[part] = plain[part] and _each(plain[part], _MAY_CHANGE_IN_DATA)
    return plain


def _each(settings: Any, names: tuple[str, ...]) -> Any:
    several = isinstance(settings, list)
    return [_without(each, names) for each in settings] if several else _without(settings, names)


def _without(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _without_names(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """A lineage by its fingerprints: files that were moved or renamed are still the same.

    What a teacher learnt from is told by its weights, and how images were packed by their
    dataset's fingerprint.
    """
    parent, transfer, trained_on = (lineage[each] for each in ("parent", "transfer", "trained_on"))
    followed = transfer and _without(transfer["teacher"], _TOLD_BY_WEIGHTS)
    return {
        **lineage,
        "trained_on": _without_authors_lineage(trained_on),
        "validated_on": lineage["validated_on"]
        and _without(lineage["validated_on"], _TOLD_BY_DATA),
        "parent": parent and _without(parent, ("name",)),
        "transfer": transfer and {**transfer, "teacher": followed},
    }


def _without_authors_lineage(images: Mapping[str, Any]) -> dict[str, Any]:
    told = ("lineage", "preprocessing")  # by the fingerprint of what they wrote
    authors = [_without(each, told) for each in images.get("teachers", ())]
    sources = [_without_authors_lineage(each) for each in images.get("sources", ())]
    return {
        **_without(images, _TOLD_BY_DATA),
        **({"teachers": authors} if authors else {}),
        **({"sources": sources} if sources else {}),
    }
