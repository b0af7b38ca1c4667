"""The settings of trainings that decide what a network is, and in which some differ."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from nakt_dist.records.fields import printable
from nakt_dist.report.evaluations import Evaluation, FoundRecord
from nakt_dist.runtime.files import differing_fields

# What may differ between runs that are counted as repetitions, or is said in a column's name.
_OF_THE_RUN = (
    "output", "seed", "init", "device", "workers", "threads", "memory_cache_megabytes",
    "checkpoint", "tracking", "profile", "log_keys", "teacher", "trainable",
)  # fmt: skip
_OF_THE_DATA = ("dataset", "cache")

Settings = Mapping[str, Mapping[str, Any]]
"""What decides a network, by the SHA-256 of its weights."""


def settings_of(trainings: Iterable[FoundRecord]) -> Settings:
    """Returns the settings of trainings by the weights that they left, best and last."""
    return {
        str(found.record.details.get(name)): deciding(found.record.config)
        for found in trainings
        for name in ("last_weights_sha256", "best_weights_sha256")
    }


def deciding(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the settings that a training has in common with its repetitions."""
    plain = {name: value for name, value in config.items() if name not in _OF_THE_RUN}
    images = ((part, plain[part]) for part in ("data", "validation") if part in plain)
    return plain | {part: without(told, _OF_THE_DATA) for part, told in images}


def without(images: Any, left_out: Container[str]) -> Any:
    """Returns settings of one dataset, of a list of them, or None of none, without some names."""
    if isinstance(images, Mapping):
        return {name: value for name, value in images.items() if name not in left_out}
    return [without(each, left_out) for each in images] if isinstance(images, list) else images


def differing(runs: Iterable[Evaluation], settings: Settings) -> list[str]:
    """Names the settings in which runs differ from the first whose settings are known."""
    return differing_names(settings[run.original] for run in runs if run.original in settings)


def differing_names(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names the fields in which some settings differ from the first."""
    known = list(settings)
    names = {name for each in known for name in differing_fields(known[0], each)}
    return sorted({printable(name.split(":", 1)[0]) for name in names})
