"""``nakt inspect``: what an exclusion rule does to pseudo-labels, or what a dataset holds."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.config import InspectConfig, as_plain, save_config
from nakt_dist.drawing.sheets import Group, Outline, Panel, draw_sheet
from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.loading.pictures import sample_picture
from nakt_dist.records.fields import label_dataset
from nakt_dist.records.pseudo_sets import (
    ALL_SPLITS,
    PseudoSet,
    RuleVerdict,
    apply_rule,
    count_by_class,
    count_by_split,
    read_pseudo_set,
    with_threshold_found,
)
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.report.histograms import JudgedSet, draw_entropy, draw_target_pixels
from nakt_dist.report.roles import describe_rule, show_threshold
from nakt_dist.runtime.files import write_bytes, write_json
from nakt_dist.runtime.processes import require_one_process
from nakt_dist.shards.location import DEFAULT_CACHE
from nakt_dist.shards.manifest import ShardManifest
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.tables import write_table
from nakt_dist.stages.inspect_advice import advise, percentiles, show_classes, show_percentiles
from nakt_dist.stages.inspect_dataset import check_settings, inspect_dataset, is_packed_dataset
from nakt_dist.stages.inspect_findings import inspect_findings, is_pseudo_findings
from nakt_dist.stages.opening import Opening
from nakt_dist.transfer.confidence import EVERYTHING
from nakt_dist.transfer.exclusion import ExclusionRule

ENTROPY_NAME = "entropy_histogram.png"
TARGET_NAME = "target_pixel_histogram.png"
COUNTS_NAME = "counts.json"
EXCLUDED_NAME = "excluded.parquet"
OVERLAYS_NAME = "overlays.png"

EXCLUDED_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("target_pixels", pa.int64()),
        ("entropy", pa.float64()),
        ("reason", pa.string()),
    ]
)
"""One row per excluded image, in the order of the dataset."""

_COLUMNS = {
    "before": "before",
    "after": "after",
    "excluded": "excluded",
    "below_alpha_alone": "by α alone",
    "above_beta_alone": "by β alone",
    "below_alpha_and_above_beta": "by both",
    "unsure": "not sure",
}


def run(config: InspectConfig) -> RunRecord:
    """Prints counts before and after exclusion, and writes what they look like.

    Writes ``counts.json``, ``excluded.parquet``, the histograms of entropy (paper A, figure 3)
    and of target pixels, and, where a dataset is given, a sheet of kept and excluded images.

    A packed dataset is counted instead: see ``nakt_dist.stages.inspect_dataset``.

    Everything is read, checked and drawn before the first file is written.

    Raises:
        ConfigurationError: the pseudo-labels are behind a URL and no output is given, or it
            was started as several processes.
        DatasetError: the pseudo-labels are absent, damaged, or not of the dataset.
    """
    require_one_process("inspect")
    if is_packed_dataset(config.pseudo_labels):
        return inspect_dataset(config)
    if config.against or config.near_duplicates:
        raise ConfigurationError(
            f"{config.pseudo_labels} is no packed dataset, whose images against and "
            "near_duplicates look at; leave these out, or name the dataset"
        )
    stopwatch = Stopwatch()
    output = _output_of(config)
    if is_pseudo_findings(config.pseudo_labels):
        return inspect_findings(config, output, stopwatch)
    if config.confidence != EVERYTHING:
        raise ConfigurationError(
            f"{config.pseudo_labels} holds pseudo masks, which exclusion judges; leave "
            "confidence out"
        )
    pseudo = read_pseudo_set(config.pseudo_labels)
    asked, rule = config, with_threshold_found(config.exclusion, pseudo.manifest)
    config = replace(asked, exclusion=rule)
    verdict = apply_rule(pseudo, config.exclusion)
    counts = count_by_split(pseudo, verdict)
    by_class = count_by_class(pseudo, verdict)
    pictures = _draw(config, pseudo)
    shown, remarks = percentiles(pseudo), advise(pseudo, config.exclusion, verdict)
    details = {
        "rule": _describe(config.exclusion, pseudo),
        "images": counts,
        **({"classes": by_class} if by_class else {}),
        "percentiles": shown,
        "remarks": remarks,
    }
    output.mkdir(parents=True, exist_ok=True)
    # A sheet left by an earlier call may show another rule.
    (output / OVERLAYS_NAME).unlink(missing_ok=True)
    for name, picture in pictures.items():
        write_bytes(output / name, picture)
    write_table(output / EXCLUDED_NAME, EXCLUDED_SCHEMA, [_excluded(pseudo, verdict)], None)
    write_json(output / COUNTS_NAME, details)
    save_config(asked, output)
    _print_counts(config.exclusion, pseudo, counts)
    print(*show_classes(by_class), *show_percentiles(shown), *remarks, sep="\n")
    print(f"Written to {output}", flush=True)
    return RunRecord(
        stage="inspect",
        name=output.resolve().name,
        config=as_plain(asked),
        inputs={"pseudo_labels": pseudo.manifest.fingerprint},
        counts=counts[ALL_SPLITS],
        details=details,
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: InspectConfig, opening: Opening) -> None:
    """Looks at a local folder, and whether the settings and the dataset belong to it."""
    with opening.part("data"):
        manifest = opening.tell_folder(config.pseudo_labels)
        if isinstance(manifest, ShardManifest):
            check_settings(config)
        elif config.dataset is not None:
            images = IndexedShards(config.dataset, cache=Path(opening.cache or DEFAULT_CACHE))
            manifest.check_made_for(images.manifest, Path(config.pseudo_labels))


def _output_of(config: InspectConfig) -> Path:
    if config.output is not None:
        return Path(config.output)
    if "://" in config.pseudo_labels:
        raise ConfigurationError(
            f"output is not set and pseudo_labels is {config.pseudo_labels}; nothing is written "
            "behind a URL. Give a local folder with --output"
        )
    folder = Path(config.pseudo_labels)
    if folder.name in ("", ".."):  # such as ".": its own name is needed
        folder = folder.resolve()
    return folder.with_name(f"{folder.name}-inspection")


def _draw(config: InspectConfig, pseudo: PseudoSet) -> dict[str, bytes]:
    """Draws every picture, as PNG by file name; the sheet only where a dataset is given."""
    # The sheet comes first: it finds out whether the dataset is the right one.
    dataset = config.dataset
    sheet = {} if dataset is None else {OVERLAYS_NAME: _draw_overlays(config, dataset)}
    judged = [JudgedSet(pseudo, config.exclusion)]
    return sheet | {
        ENTROPY_NAME: draw_entropy(judged).png,
        TARGET_NAME: draw_target_pixels(judged).png,
    }


def _describe(rule: ExclusionRule, pseudo: PseudoSet) -> dict[str, Any]:
    """Returns the rule as set, and what came of it for these masks."""
    manifest = pseudo.manifest
    return {
        **rule.to_json(),
        "alpha_in_pixels": rule.alpha_at(manifest.height, manifest.width),
        "beta_applies": rule.beta is not None and manifest.soft,
    }


def _excluded(pseudo: PseudoSet, verdict: RuleVerdict) -> list[Mapping[str, Any]]:
    """Returns the rows of ``excluded.parquet``."""
    table = pseudo.statistics.select(["key", "target_pixels", "entropy"])
    table = table.append_column("reason", pa.array(verdict.reasons, pa.string()))
    return table.filter(pa.array(~verdict.kept)).to_pylist()


def _print_counts(
    rule: ExclusionRule, pseudo: PseudoSet, counts: Mapping[str, Mapping[str, int]]
) -> None:
    print(f"{pseudo.label}: pseudo-labels {pseudo.name}; excluded: {describe_rule(rule)}")
    height, width = pseudo.manifest.height, pseudo.manifest.width
    alpha = rule.alpha_at(height, width)
    if alpha is not None and alpha != rule.alpha:
        print(f"  N < {show_threshold(alpha)} of the {height} × {width} pixels here")
    if rule.beta is not None and not pseudo.manifest.soft:
        print("  every teacher gave binary masks: β does not apply")
    width = max(map(len, counts))
    shown = [name for name in _COLUMNS if name in next(iter(counts.values()))]
    print(" " * width, *(f"{_COLUMNS[name]:>11}" for name in shown))
    for split, numbers in counts.items():
        print(f"{split:<{width}}", *(f"{numbers[name]:>11}" for name in shown))
    applies = (rule.alpha is not None, rule.beta is not None and pseudo.manifest.soft)
    if rule.combine == "both" and all(applies):  # else the other decides alone
        print("  α or β alone excludes nothing here: the rule asks for both")


def _draw_overlays(config: InspectConfig, dataset: str) -> bytes:
    """Draws kept and excluded images, each chosen by the seed."""
    images = IndexedShards(dataset)
    labels = PseudoLabels(config.pseudo_labels, images)
    in_order = PseudoSet(labels.root.name, labels.manifest, labels.statistics)
    verdict = apply_rule(in_order, config.exclusion)
    kept, excluded = np.flatnonzero(verdict.kept), np.flatnonzero(~verdict.kept)
    groups = []
    for title, rows in (("Kept", kept), ("Excluded", excluded)):
        chosen = _choose(rows, config.images, config.seed)
        panels = tuple(_panels(images, labels, chosen.tolist(), verdict, config.exclusion))
        groups.append(Group(f"{title}: {len(chosen)} of {len(rows)} images", panels))
    label = label_dataset(images.manifest.dataset, images.manifest.phantom)
    return draw_sheet(f"Pseudo masks of {label}", groups)


def _choose(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Chooses rows by a seed, ascending; a smaller choice is part of a larger one."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))
    return np.sort(rows[order[:count]])


def _panels(
    images: IndexedShards,
    labels: PseudoLabels,
    rows: Iterable[int],
    verdict: RuleVerdict,
    rule: ExclusionRule,
) -> Iterator[Panel]:
    for row in rows:
        try:
            planes = decode_pixels(labels.soft_mask_bytes(row))[0]
        except UnusableSample as error:
            raise DatasetError(
                f"{images.describe(row)}: soft mask: {error.detail}. Run nakt verify"
            ) from None
        planes = planes.reshape(labels.manifest.planes, -1, planes.shape[1]).astype(int)
        soft = planes.sum(0).clip(max=255)  # of several classes, how much of it is no background
        target_pixels, entropy = (
            labels.column(name)[row].as_py() for name in ("target_pixels", "entropy")
        )
        rules = []
        alpha = rule.alpha_at(*soft.shape)
        if verdict.few_targets[row] and alpha is not None:
            rules.append(f"N < {show_threshold(alpha)}")
        if verdict.high_entropy[row]:
            rules.append(f"E > {rule.beta:g}")
        if verdict.unsure is not None and verdict.unsure[row]:
            rules.append("not sure")
        yield Panel(
            image=sample_picture(images, row),
            caption=f"N = {target_pixels}, E = {entropy:.2f} bits\n{' and '.join(rules)}",
            outlines=(Outline(soft / 255 > 0.5, "pseudo mask above 0.5"),),
            soft=soft / 255,
        )
