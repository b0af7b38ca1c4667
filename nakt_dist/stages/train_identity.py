"""Which training run an output holds, and what its processes must have in common."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nakt_dist.config import TrainConfig, as_plain
from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import RECORD_NAME, package_versions
from nakt_dist.runtime.files import differing_fields, read_json, write_json
from nakt_dist.runtime.processes import process_place
from nakt_dist.training.loop import CHECKPOINTS_NAME

_IDENTITY_NAME = "identity.json"
_MAY_CHANGE = (
    "output", "checkpoint", "tracking", "device", "workers", "memory_cache_megabytes", "threads",
    "log_keys", "init", "init_labels", "watchdog_seconds",
)  # fmt: skip
_MAY_CHANGE_IN_DATA = ("dataset", "pseudo_labels", "cache")
_MAY_CHANGE_IN_RECIPE = (
    "epochs", "steps", "micro_batch_size", "not_finite", "halve_when_out_of_memory",
)  # fmt: skip
_MAY_CHANGE_IN_TEACHER = ("weights",)
_TOLD_BY_WEIGHTS = ("name", "lineage")


def begin_or_go_on(config: TrainConfig, lineage: Mapping[str, Any]) -> None:
    """Notes which run begins here, or refuses an output that holds another one.

    Args:
        config: of the run, with the preprocessing that ``make_plan`` fills in.
        lineage: as ``lineage_of`` gives it.

    Raises:
        DatasetError: as ``check_own_output``.
    """
    if not check_own_output(config, lineage) and process_place().is_main:
        write_json(Path(config.output) / _IDENTITY_NAME, _identity(config, lineage))


def has_checkpoint(output: Path) -> bool:
    """Says whether a training run could go on in this folder."""
    return any((output / CHECKPOINTS_NAME).glob("step-*"))


def _deciding_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings a resumed run must share with the one that began.

    Places of files are not among them: the lineage says what is there.
    """
    plain = _without(as_plain(config), _MAY_CHANGE)
    plain["recipe"] = _without(plain["recipe"], _MAY_CHANGE_IN_RECIPE)
    plain["teacher"] = plain["teacher"] and _without(plain["teacher"], _MAY_CHANGE_IN_TEACHER)
    for part in ("data", "validation"):
        plain[part] = plain[part] and _without(plain[part], _MAY_CHANGE_IN_DATA)
    return plain


def alike(config: TrainConfig, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """What all processes of a launch must have been started with.

    Versions without the part that says what a package was built for: drivers differ in a cluster.
    """
    return {
        "settings": _deciding_settings(config),
        "recipe": vars(config.recipe),
        "checkpoint": vars(config.checkpoint),
        "tracking": vars(config.tracking),
        "lineage": _without_names(lineage),
        "versions": {
            name: version.partition("+")[0]
            for name, version in package_versions().items()
            if name != "python"
        },
    }


def _without(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _without_names(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """A lineage by its fingerprints: files that were moved or renamed are still the same.

    What a teacher learnt from is told by its weights.
    """
    parent, transfer, trained_on = (lineage[each] for each in ("parent", "transfer", "trained_on"))
    followed = transfer and _without(transfer["teacher"], _TOLD_BY_WEIGHTS)
    authors = [_without(each, ("lineage",)) for each in trained_on.get("teachers", ())]
    return {
        **lineage,
        "trained_on": {**trained_on, **({"teachers": authors} if authors else {})},
        "parent": parent and _without(parent, ("name",)),
        "transfer": transfer and {**transfer, "teacher": followed},
    }


def _identity(config: TrainConfig, lineage: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": _deciding_settings(config), "lineage": _without_names(lineage)}


def check_own_output(config: TrainConfig, lineage: Mapping[str, Any]) -> bool:
    """Refuses to go on with another run's checkpoints, or with data that have changed.

    Args:
        config: of the run, with the preprocessing that ``make_plan`` fills in.
        lineage: as ``lineage_of`` gives it.

    Returns:
        Whether the output holds this run, with something to lose; nothing is written.

    Raises:
        DatasetError: names what differs.
    """
    output = Path(config.output)
    path = output / _IDENTITY_NAME
    # Before its first checkpoint a run has nothing to lose: a mistaken setting may be mended.
    if not has_checkpoint(output) and not (output / RECORD_NAME).exists():
        return False
    if not path.exists():
        raise DatasetError(
            f"{output}: holds a training run, and no {_IDENTITY_NAME} that says which. Restore "
            "it, or choose another --output"
        )
    differences = differing_fields(read_json(path, "identity"), _identity(config, lineage))
    if differences:
        raise DatasetError(
            f"{output}: holds a training run with other settings or data "
            f"({'; '.join(differences[:5])}). Choose another --output, or delete the folder"
        )
    return True
