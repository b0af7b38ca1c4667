"""What the files of one run say of it: its settings, its record, its manifest."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from nakt_dist.config.saving import CONFIG_NAME
from nakt_dist.config.yaml_files import load_document
from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.records.fields import ODD_VALUES, printable
from nakt_dist.records.lineage_reading import is_classification, read_lineage
from nakt_dist.records.run_record import RECORD_NAME
from nakt_dist.records.run_tags import method_of
from nakt_dist.runtime.files import read_json, read_regular_file
from nakt_dist.runtime.tracking import METRICS_NAME
from nakt_dist.shards.manifest import MANIFEST_NAME

IDENTITY_NAME = "identity.json"
MARKS = frozenset({RECORD_NAME, METRICS_NAME, IDENTITY_NAME, MANIFEST_NAME})
"""Names of files that make a folder a run's."""

_MOST_BYTES = 2**26
_NO_INPUTS = ("output", "cache", "project", "entity")


@dataclass(frozen=True)
class Facts:
    """What is known of a run but for what it logs.

    Attributes:
        stage: the verb; empty where no file says.
        axes: dataset, network, method, size and seed, as far as settings tell.
        paths: settings that name folders it may read.
        is_done: whether it has written what it writes last.
        batch_size: of training, over all processes.
        seconds: that it took; of a training that went on, by the pace of its last launch.
        problem: what is wrong with a file, or None.
    """

    stage: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    is_done: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    batch_size: int | None = None
    total_steps: int | None = None
    processes: int = 1
    seconds: float | None = None
    problem: str | None = None


def read_settings(folder: Path) -> dict[str, Any]:
    """Returns what a run was started with, nested; empty where no file tells."""
    for name, read in ((RECORD_NAME, _config_of_json), (CONFIG_NAME, _yaml),
                       (MANIFEST_NAME, _config_of_json)):  # fmt: skip
        try:
            value = read(folder / name)
        except (NaktError, OSError, yaml.YAMLError, *ODD_VALUES):
            continue
        if isinstance(value, dict):
            return value
    return {}


def read_facts(folder: Path) -> Facts:
    """Reads what lies in a run's folder; damage is told as ``problem``, never raised."""
    try:
        return _read(folder)
    except NaktError as error:
        problem = str(error).replace(f"{folder}/", "")
    except (OSError, yaml.YAMLError, *ODD_VALUES) as error:
        problem = f"damaged: {type(error).__name__}: {error}".replace(f"{folder}/", "")[:200]
    return Facts(problem=printable(problem))


def _read(folder: Path) -> Facts:
    if (folder / RECORD_NAME).is_file():
        return _of_record(read_json(folder / RECORD_NAME, "run record", _MOST_BYTES))
    if (folder / MANIFEST_NAME).is_file():
        return _of_manifest(read_json(folder / MANIFEST_NAME, "manifest", _MOST_BYTES))
    settings = _yaml(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else {}
    is_training = (folder / METRICS_NAME).exists() or (folder / IDENTITY_NAME).exists()
    facts = _of_settings("train" if is_training else "", settings)
    if not (folder / IDENTITY_NAME).is_file():
        return facts
    identity = read_json(folder / IDENTITY_NAME, "identity", _MOST_BYTES)
    axes = {**facts.axes, **_of_lineage(identity.get("lineage"))}
    return replace(facts, axes=axes, total_steps=_total_steps(settings, identity))


def _of_record(record: Mapping[str, Any]) -> Facts:
    details, metrics = record["details"], record["metrics"]
    facts = _of_settings(str(record["stage"]), record["config"])
    steps, seconds = details.get("total_steps"), float(record["seconds"])
    done, now = details.get("steps"), metrics.get("steps_now")
    if type(done) is int and type(now) is int and 0 < now < done:  # it tells the last launch's
        seconds *= done / now
    return replace(
        facts,
        axes={**facts.axes, **_of_lineage(details.get("lineage"))},
        is_done=True,
        metrics={
            str(name): float(value)
            for name, value in metrics.items()
            if type(value) in (int, float) and name != "steps_now"
        },
        total_steps=steps if type(steps) is int else None,
        processes=max(int(details.get("processes") or 1), 1),
        seconds=seconds,
    )


def _of_lineage(stored: Any) -> dict[str, str]:
    """Returns what tells a network apart, as tags of trackers do; empty where nobody says."""
    if not isinstance(stored, Mapping):
        return {}
    try:
        lineage = read_lineage(stored, lenient=True)
        method = method_of(lineage, is_classification(stored)) if lineage.is_whole else None
    except (DatasetError, *ODD_VALUES):
        return {}
    excluded = _part(stored, "trained_on").get("exclusion")
    found = {
        "network": _part(stored, "model").get("name"),
        "method": f"{method}, excluded" if method and excluded else method,
        "size": lineage.learnt.samples or None,
        "seed": stored.get("seed"),
    }
    return {name: printable(str(each)) for name, each in found.items() if each is not None}


def _of_manifest(manifest: Mapping[str, Any]) -> Facts:
    config = manifest.get("config") or {}
    is_pseudo = "teachers" in manifest
    axes = {"dataset": printable(str(manifest.get("dataset") or ""))}
    return Facts(
        stage="teach" if is_pseudo else "pack",
        axes={name: value for name, value in axes.items() if value},
        paths=tuple(_paths(config)),
        is_done=True,
    )


def _of_settings(stage: str, settings: Any) -> Facts:
    """Reads axes in the field's words from settings of whatever stage."""
    if not isinstance(settings, Mapping):
        raise DatasetError(f"{CONFIG_NAME}: holds no settings")
    data = _data(settings)
    recipe, teacher = _part(settings, "recipe"), _part(settings, "teacher")
    found = {
        "dataset": _last(data.get("dataset") or settings.get("dataset")),
        "network": _part(settings, "model").get("name"),
        "method": _method(settings, data, teacher) if stage == "train" else None,
        "size": data.get("count"),
        "seed": settings.get("seed") if stage == "train" else None,
        "weights": _last(settings.get("weights")),
    }
    batch = recipe.get("global_batch_size")
    return Facts(
        stage=printable(stage),
        axes={name: printable(str(each)) for name, each in found.items() if each is not None},
        paths=tuple(_paths(settings)),
        batch_size=batch if type(batch) is int else None,
    )


def _data(settings: Mapping) -> Mapping:
    """Returns what is learnt from; of several sources their names, and what one of them has."""
    several = settings.get("data")
    if not isinstance(several, list):
        return _part(settings, "data")
    sources = [each for each in several if isinstance(each, Mapping)]
    names = (each.get("name") or _last(each.get("dataset")) or "" for each in sources)
    found = {
        name: next((each[name] for each in sources if each.get(name)), None)
        for name in ("pseudo_labels", "exclusion")
    }
    return {**found, "dataset": " + ".join(map(str, names))}


def _method(settings: Mapping, data: Mapping, teacher: Mapping) -> str:
    """Says how a network learns, by the signals it takes from a teacher."""
    signals = [name for name in teacher if name not in _OF_A_TEACHER and teacher[name]]
    words = [f"{name.replace('_', ' ')} transfer" for name in signals]
    if data.get("pseudo_labels"):
        words.append("pseudo masks, excluded" if data.get("exclusion") else "pseudo masks")
    if settings.get("init"):
        words.append(f"from {_last(settings['init'])}")
    return ", ".join(words) or "from scratch"


_OF_A_TEACHER = ("weights", "model", "preprocessing", "name", "labels")


def _part(settings: Mapping, name: str) -> Mapping:
    value = settings.get(name)
    return value if isinstance(value, Mapping) else {}


def _last(path: Any) -> str | None:
    return str(path).rstrip("/").rsplit("/", 1)[-1] if path else None


def _total_steps(settings: Mapping, identity: Mapping) -> int | None:
    """Computes the steps of a training that is not done, as the recipe does."""
    recipe = _part(settings, "recipe")
    steps, epochs, batch = (recipe.get(n) for n in ("steps", "epochs", "global_batch_size"))
    if type(steps) is int:
        return steps
    samples = _part(_part(identity, "lineage"), "trained_on").get("samples")
    if type(epochs) is int and type(batch) is int and batch > 0 and type(samples) is int:
        return epochs * (samples // batch)
    return None


def _paths(value: Any, name: str = "") -> Iterator[str]:
    """Yields what may be a folder that is read, of nested settings."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item, name)
    elif isinstance(value, str) and "/" in value and name not in _NO_INPUTS:
        yield value.rstrip("/")


def _config_of_json(path: Path) -> Any:
    return read_json(path, "run record", _MOST_BYTES).get("config")


def _yaml(path: Path) -> Any:
    return load_document(read_regular_file(path, _MOST_BYTES).decode())
