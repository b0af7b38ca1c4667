"""What is shown of a run besides its curves: settings, results, tables, where it comes from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nakt_dist.mirroring.runs import FoundRun, is_number
from nakt_dist.records.fields import label_dataset
from nakt_dist.records.pseudo_sets import read_pseudo_set
from nakt_dist.records.run_tags import run_tags
from nakt_dist.runtime.mirrors import without_folders
from nakt_dist.shards.manifest import (
    AnyManifest,
    PseudoFindingsManifest,
    PseudoLabelManifest,
    ShardManifest,
)

_BINS = 64


class Table(NamedTuple):
    """Rows under their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Histogram(NamedTuple):
    """Counts between edges, of which there is one more."""

    counts: tuple[int, ...]
    edges: tuple[float, ...]


@dataclass(frozen=True)
class Link:
    """A dataset, a set of pseudo-labels or weights that a run has read or written.

    Attributes:
        direction: ``read`` or ``wrote``.
        kind: ``dataset``, ``pseudo-labels`` or ``weights``.
        sha256: its fingerprint; None where nobody says, and then it links nothing.
        facts: what else is known of it.
    """

    direction: str
    kind: str
    sha256: str | None
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The same in each run that names it."""
        return f"{self.kind}-{str(self.sha256)[:16]}"


def tags_of(run: FoundRun, more: Iterable[str]) -> tuple[str, ...]:
    """Returns the tags by which a run is found; see ``run_tags``."""
    tags = list(more)
    if run.manifest is not None:
        tags.insert(0, f"dataset:{label_dataset(run.manifest.dataset, run.manifest.phantom)}")
    tested = run.record.details.get("test_set") if run.record is not None else None
    if isinstance(tested, Mapping):
        name = label_dataset(str(tested.get("dataset")), tested.get("phantom") is True)
        tags.insert(0, f"tested on:{name}")
    return run_tags(run.lineage, tags)


def config_of(run: FoundRun) -> dict[str, Any]:
    """Returns its settings without folders, and its place in its study."""
    config = {name: without_folders(value) for name, value in run.settings.items()}
    config.pop("samples", None) if run.stage == "attention" else None
    if run.study is not None:
        config["study"] = {"name": run.study.plan.name, "run": run.study.name}
        if run.study.planned is not None:
            planned = run.study.planned
            config["study"] |= {"group": planned.group, "axes": dict(planned.axes)}
    return config


def summary_of_run(run: FoundRun) -> dict[str, Any]:
    """Returns the results of a finished run that are numbers, by name."""
    if run.record is None:
        return {} if run.manifest is None else _facts(run.manifest)
    record = run.record
    found = {name: value for name, value in record.metrics.items() if is_number(value)}
    found |= {f"count/{name}": value for name, value in record.counts.items() if is_number(value)}
    for row in record.details.get("labels") or []:
        if isinstance(row, Mapping) and is_number(row.get("auroc")):
            found[f"auroc/{row.get('name')}"] = row["auroc"]
    return {**found, "seconds": record.seconds}


def tables_of(run: FoundRun) -> dict[str, Table]:
    """Returns the tables of an evaluation or of attention: by finding, by group of patients."""
    details = run.record.details if run.record is not None else {}
    fields = {"findings": "labels", "subgroups": "subgroups"}
    found = {name: details.get(field) for name, field in fields.items()}
    return {name: _tabled(rows) for name, rows in found.items() if rows}


def histograms_of(run: FoundRun) -> dict[str, Histogram]:
    """Returns how entropy and target pixels of pseudo-labels are spread.

    Raises:
        DatasetError: the statistics are damaged.
    """
    if not isinstance(run.manifest, PseudoLabelManifest) or not run.manifest.num_samples:
        return {}
    pseudo = read_pseudo_set(run.folder)
    spread = {"entropy": pseudo.entropy, "target_pixels": pseudo.target_pixels}
    found = {}
    for name, values in spread.items():
        counts, edges = np.histogram(values[np.isfinite(values)], bins=_BINS)
        found[name] = Histogram(tuple(counts.tolist()), tuple(edges.tolist()))
    return found


def links_of(run: FoundRun) -> list[Link]:
    """Returns what it read and wrote, as far as fingerprints tell; each once."""
    if run.manifest is not None:
        found = _links_of_manifest(run.manifest)
    else:
        found = [*_links_of_lineage(run), *_links_of_record(run)]
    whole = [link for link in found if link.sha256]
    return list({(link.direction, link.name): link for link in whole}.values())


def _links_of_manifest(manifest: AnyManifest) -> list[Link]:
    if isinstance(manifest, ShardManifest):
        return [Link("wrote", "dataset", manifest.fingerprint, _facts(manifest))]
    facts = {"name": manifest.dataset}
    return [
        Link("read", "dataset", manifest.dataset_fingerprint, facts),
        *(_weights("read", teacher) for teacher in manifest.teachers),
        Link("wrote", "pseudo-labels", manifest.fingerprint, _facts(manifest)),
    ]


def _links_of_lineage(run: FoundRun) -> list[Link]:
    """What a training read."""
    if run.stage != "train":
        return []
    links = []
    for name in ("trained_on", "validated_on"):
        whole = run.lineage.get(name) or {}
        for images in whole.get("sources") or [whole]:
            facts = {"name": images.get("dataset"), "phantom": images.get("phantom")}
            links.append(Link("read", "dataset", images.get("fingerprint"), facts))
            pseudo = images.get("pseudo_labels_fingerprint")
            links.append(Link("read", "pseudo-labels", pseudo, {"name": images.get("dataset")}))
    networks = (run.lineage.get("parent"), (run.lineage.get("transfer") or {}).get("teacher"))
    return links + [_weights("read", network) for network in networks if network]


def _links_of_record(run: FoundRun) -> list[Link]:
    """What a finished run wrote, and what a test or a look at attention read."""
    if run.record is None:
        return []
    inputs, details = run.record.inputs, run.record.details
    if run.stage == "train":
        return [
            Link("wrote", "weights", details.get(f"{which}_weights_sha256"), {"name": run.name})
            for which in ("last", "best")
        ]
    tested = details.get("test_set")
    dataset = {"name": tested.get("dataset") if isinstance(tested, Mapping) else None}
    return [
        Link("read", "dataset", inputs.get("dataset_fingerprint"), dataset),
        Link("read", "weights", inputs.get("weights_sha256"), {"name": details.get("network")}),
        Link("read", "weights", inputs.get("teacher_weights_sha256"), {}),
    ]


def _weights(direction: str, network: Mapping[str, Any]) -> Link:
    facts = {"name": network.get("name")}
    return Link(direction, "weights", network.get("weights_sha256"), facts)


def _facts(manifest: AnyManifest) -> dict[str, Any]:
    """What may be told of a dataset: its name and numbers; its manifest names files."""
    size = {}
    if not isinstance(manifest, PseudoFindingsManifest):
        size = {"height": manifest.height, "width": manifest.width}
    return {
        "name": manifest.dataset,
        "phantom": manifest.phantom,
        "images": manifest.num_samples,
        **size,
    }


def _tabled(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    cells = tuple(tuple(_cell(row.get(name)) for name in columns) for row in rows)
    return Table(columns, cells)


def _cell(value: Any) -> Any:
    if isinstance(value, list):  # an interval
        return " to ".join(
            f"{each:.2f}" if isinstance(each, float) else str(each) for each in value
        )
    return value
