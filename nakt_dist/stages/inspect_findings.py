"""``nakt inspect`` of pseudo-findings: what teachers say, and what a rule of confidence leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.config import InspectConfig, LabelConfig, as_plain, save_config
from nakt_dist.drawing.style import BLUE, GREY, figure_style, make_panels, shorten, to_png
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.auroc import auroc
from nakt_dist.loading.targets import labelled_targets
from nakt_dist.records.fields import label_dataset, printable
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import write_bytes, write_json
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import MANIFEST_NAME, PseudoFindingsManifest, read_taught_manifest
from nakt_dist.shards.pseudo_findings import PseudoFindings
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages.inspect_dataset import print_table
from nakt_dist.transfer.exclusion import ExclusionRule

COUNTS_NAME = "counts.json"
HISTOGRAMS_NAME = "probabilities.png"
_BINS = 40
_NAMES = {
    "answered": "answered",
    "mean": "mean p", "present": "p >= 0.5", "entropy": "entropy", "disagreement": "disagree",
    "kept": "kept", "kept_present": "kept, p >= 0.5", "auroc": "AUROC", "kept_right": "kept right",
}  # fmt: skip


def is_pseudo_findings(root: str) -> bool:
    """Says whether a folder or URL holds pseudo-findings; False where it cannot be read."""
    try:
        location = DatasetLocation(root)
        location.refresh(MANIFEST_NAME)
        return isinstance(read_taught_manifest(location.folder), PseudoFindingsManifest)
    except DatasetError:
        return False  # whoever reads it says why


def inspect_findings(config: InspectConfig, output: Path, stopwatch: Stopwatch) -> RunRecord:
    """Prints of each finding how sure the teachers are, and what the rule leaves of it.

    Where a dataset is given that has labels, they are compared with what teachers say: AUROC, and
    the share of what is kept that lies on the right side of 0.5. Writes ``counts.json`` and
    ``probabilities.png``.

    Raises:
        ConfigurationError: a rule for masks is set.
        DatasetError: the pseudo-findings are damaged, or not of the dataset.
    """
    if config.exclusion != ExclusionRule():
        raise ConfigurationError(
            f"{config.pseudo_labels} holds pseudo-findings, which confidence judges; leave "
            "exclusion out"
        )
    pseudo = PseudoFindings.read(config.pseudo_labels)
    labels = None if config.dataset is None else _labels(pseudo, config.dataset)
    kept = ~np.isnan(config.confidence.judge(pseudo.probability, pseudo.disagreement))
    manifest = pseudo.manifest
    splits = np.repeat([e.split for e in manifest.shards], [e.samples for e in manifest.shards])
    by_split = {
        split: {"images": int((splits == split).sum()),
                "with a finding left": int(kept[splits == split].any(axis=1).sum())}
        for split in dict.fromkeys(splits.tolist())
    }  # fmt: skip
    findings = {
        name: dict(_describe(pseudo, number, kept[:, number], labels))
        for number, name in enumerate(manifest.findings)
    }
    _print(pseudo, by_split, findings)
    picture = _draw(pseudo, kept)
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(output / HISTOGRAMS_NAME, picture)
    details = {"rule": vars(config.confidence), "images": by_split, "findings": findings}
    write_json(output / COUNTS_NAME, details)
    save_config(config, output)
    print(f"Written to {output}", flush=True)
    return RunRecord(
        stage="inspect",
        name=output.resolve().name,
        config=as_plain(config),
        inputs={"pseudo_labels": manifest.fingerprint},
        counts={"before": len(pseudo), "after": int(kept.any(axis=1).sum())},
        details=details,
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def _labels(pseudo: PseudoFindings, dataset: str) -> np.ndarray | None:
    """Returns the dataset's own labels, float32 (N, K), NaN where it says nothing; or None."""
    images = IndexedShards(dataset)
    pseudo.manifest.check_made_for(images.manifest, pseudo.root)
    known = [name for name in pseudo.manifest.findings if name in images.manifest.findings]
    if not known:
        return None
    place = {key: row for row, key in enumerate(images.keys)}
    rows = [place[key] for key in pseudo.keys.to_pylist()]
    values = np.full(pseudo.probability.shape, np.nan, np.float32)
    columns = [pseudo.manifest.findings.index(name) for name in known]
    values[:, columns] = labelled_targets(images.select(rows), LabelConfig(known)).values
    return values


def _describe(
    pseudo: PseudoFindings, number: int, kept: np.ndarray, labels: np.ndarray | None
) -> Iterator[tuple[str, Any]]:
    """Yields what is known of one finding, by the names of ``_NAMES``."""
    given = ~np.isnan(pseudo.probability[:, number])  # private votes do not answer all
    probability = pseudo.probability[:, number].astype(np.float64)
    present = probability >= 0.5
    yield "answered", int(given.sum())
    if given.any():
        yield "mean", float(probability[given].mean())
        yield "present", int(present.sum())
        yield "entropy", float(binary_entropy(probability[given]).mean())
        yield "disagreement", float(pseudo.disagreement[given, number].mean())
    yield "kept", int(kept.sum())
    yield "kept_present", int((kept & present).sum())
    if labels is not None:
        own = np.where(given, labels[:, number], np.nan)
        value = auroc(probability, own)
        yield "auroc", None if np.isnan(value) else value
        judged = kept & ~np.isnan(own)
        right = float((present == (own >= 0.5))[judged].mean()) if judged.any() else None
        yield "kept_right", right


def binary_entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of a finding that is present with a probability.

    Args:
        probability: float64 in [0, 1], of any shape.

    Returns:
        float64 of the same shape, in bits, from 0 to 1.
    """
    both = np.stack([probability, 1 - probability])
    logarithms = np.log2(both, where=both > 0, out=np.zeros_like(both))
    return 0.0 - (both * logarithms).sum(0)


def _print(
    pseudo: PseudoFindings, by_split: dict[str, dict[str, int]], findings: dict[str, dict[str, Any]]
) -> None:
    manifest = pseudo.manifest
    label = label_dataset(printable(manifest.dataset), manifest.phantom)
    names = ", ".join(printable(str(each["name"])) for each in manifest.teachers)
    print(f"{label}: pseudo-findings of {len(pseudo)} images by {names}")
    rows = [(printable(name), *counts.values()) for name, counts in by_split.items()]
    print_table(("split", "images", "with a finding left"), rows)
    columns = [name for name in _NAMES if any(name in each for each in findings.values())]
    print_table(
        ("finding", *(_NAMES[name] for name in columns)),
        [
            (printable(name), *(_Cell(each.get(column)) for column in columns))
            for name, each in findings.items()
        ],
    )


class _Cell:
    """A number of the table; a dash where there is none."""

    def __init__(self, value: float | None) -> None:
        self._value = value

    def __str__(self) -> str:
        if self._value is None:
            return "-"
        return f"{self._value:.3f}" if isinstance(self._value, float) else str(self._value)

    def __format__(self, form: str) -> str:
        return format(str(self), form)


def _draw(pseudo: PseudoFindings, kept: np.ndarray) -> bytes:
    """Draws how the probabilities of each finding are distributed, before and after the rule."""
    edges = np.linspace(0, 1, _BINS + 1).tolist()
    names = pseudo.manifest.findings
    with figure_style():
        canvas, panels = make_panels(len(names), 4, (2.8, 2.3), 5.6)
        for number, ((axes,), name) in enumerate(zip(panels, names, strict=True)):
            axes.set_axis_on()
            values, chosen = pseudo.probability[:, number], kept[:, number]
            axes.hist(values[~np.isnan(values)], edges, color=GREY, alpha=0.55, label="all")
            axes.hist(values[chosen], edges, color=BLUE, alpha=0.85, label="kept")
            axes.set_yscale("symlog", linthresh=10)
            axes.yaxis.set_major_formatter("{x:g}")  # its own is mathematics, which is not read
            axes.set_title(f"{shorten(printable(name), 28)}\n{chosen.sum()} of {len(values)} kept")
            axes.set_xlabel("probability")
            axes.set_ylabel("images")
        panels[0][0].legend(loc="best", handlelength=1.4)
        return to_png(canvas)
