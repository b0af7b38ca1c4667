"""``nakt inspect`` of a packed dataset: how much of what is in which split."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nakt_dist.config import InspectConfig, as_plain, save_config
from nakt_dist.drawing.sheets import Group, Outline, Panel, draw_sheet
from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.loading.pictures import sample_picture
from nakt_dist.records.fields import label_dataset, printable
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import read_json, write_bytes
from nakt_dist.shards.findings import COUNTED, count_findings
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import MANIFEST_NAME, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.split_table import compare_splits, describe_splits
from nakt_dist.stages.inspect_copies import (
    as_csv,
    copies_as_csv,
    describe_copies,
    draw_copies,
    find_copies,
)
from nakt_dist.stages.mask_coverage import describe_coverage, summarise_coverage, target_pixels
from nakt_dist.transfer.exclusion import ExclusionRule

FINDINGS_NAME = "findings.csv"
IMAGES_NAME = "images.png"
MASKS_NAME = "masks.png"
COPIES_NAME = "copies.csv"
PAIRS_NAME = "look_alike.png"
_MOST_NAMED = 2
_TINT = 0.4
_MOST_EMPTY = 4


def is_packed_dataset(root: str) -> bool:
    """Says whether a folder or URL holds a packed dataset; False where it cannot be read."""
    try:
        location = DatasetLocation(root)
        location.refresh(MANIFEST_NAME)
        found = read_json(location.folder / MANIFEST_NAME, "manifest")
    except DatasetError:  # who reads pseudo-labels there says what is wrong
        return False
    return found.get("format") == ShardManifest.FORMAT


def inspect_dataset(config: InspectConfig) -> RunRecord:
    """Prints samples and patients by split, the findings of each split, and what masks cover.

    With ``config.output`` it writes ``findings.csv``, ``images.png``, a sheet of
    ``config.images`` images of each split, chosen by the seed, and ``masks.png``, as many masks
    on their images, from the smallest target to the largest. Captions name findings only.
    ``copies.csv`` names the pairs of identical pictures, and with ``config.near_duplicates`` of
    those that look alike, which ``look_alike.png`` shows.

    Raises:
        ConfigurationError: settings are set that only pseudo-labels have.
        DatasetError: the dataset is damaged.
    """
    stopwatch = Stopwatch()
    check_settings(config)
    images = IndexedShards(config.pseudo_labels)
    manifest = images.manifest
    findings, splits = images.findings(), images.column("split").to_pylist()
    counts = count_findings(findings, splits, manifest.findings)
    by_split = _count_splits(images, findings)
    print(f"{_label(manifest)}: {len(images)} images")
    print_table(("split", "images", "patients", "without labels"), by_split)
    if counts:
        print_table(("finding", "split", *COUNTED), _rows(counts))
    table = compare_splits(images.index, findings, manifest.findings)
    print(*map(printable, describe_splits(table)), sep="\n")
    coverage = summarise_coverage(images.index)
    copies = find_copies(config, images)
    lines = describe_coverage(coverage, manifest, config.pseudo_labels)
    print(*lines, *describe_copies(images, copies), sep="\n")
    if config.output is not None:
        sheet = _draw_images(config, images, findings)
        masks = draw_masks(images, config.images) if coverage else None
        output = Path(config.output)
        output.mkdir(parents=True, exist_ok=True)
        rows = ((_as_text(name), _as_text(split), *rest) for name, split, *rest in _rows(counts))
        write_bytes(output / FINDINGS_NAME, as_csv(("finding", "split", *COUNTED), rows))
        write_bytes(output / IMAGES_NAME, sheet)
        write_bytes(output / COPIES_NAME, copies_as_csv(images, copies))
        pairs = draw_copies(images, copies, config.images)
        for name, drawn in ((MASKS_NAME, masks), (PAIRS_NAME, pairs)):
            (output / name).unlink(missing_ok=True)  # left by another dataset
            if drawn is not None:
                write_bytes(output / name, drawn)
        save_config(config, output)
        print(f"Written to {output}", flush=True)
    return RunRecord(
        stage="inspect",
        name=manifest.dataset,
        config=as_plain(config),
        inputs={"dataset": manifest.fingerprint},
        counts={"images": len(images)},
        details={
            "splits": dict(manifest.splits),
            "splits_differ": [row.what for row in table if row.differs],
            "findings": counts,
            "coverage": coverage,
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def check_settings(config: InspectConfig) -> None:
    """Refuses what can be asked of pseudo-labels alone.

    Raises:
        ConfigurationError: such a setting is set.
    """
    if config.dataset is not None or config.exclusion != ExclusionRule():
        raise ConfigurationError(
            f"{config.pseudo_labels} is a packed dataset, which has no masks to exclude; leave out "
            "dataset and exclusion, or name a folder of pseudo-labels"
        )


def _count_splits(
    images: IndexedShards, findings: Sequence[Mapping[str, int] | None]
) -> list[tuple[Any, ...]]:
    """Returns name, images, known patients and images without labels of each split."""
    splits = images.column("split").to_pylist()
    known = {pair for pair in zip(splits, images.patients, strict=True) if pair[1] is not None}
    patients = Counter(split for split, _ in known)
    without = Counter(s for s, found in zip(splits, findings, strict=True) if found is None)
    return [(s, n, patients[s], without[s]) for s, n in Counter(splits).items()]


def _label(manifest: ShardManifest) -> str:
    return label_dataset(printable(manifest.dataset), manifest.phantom)


def _rows(counts: Mapping[str, Mapping[str, Mapping[str, int]]]) -> Iterator[tuple[Any, ...]]:
    for name, by_split in counts.items():
        for split, numbers in by_split.items():
            yield printable(name), printable(split), *(numbers[each] for each in COUNTED)


def print_table(head: tuple[str, ...], rows: Any) -> None:
    """Prints a table whose texts stand left and whose numbers stand right."""
    table = [head, *rows]
    widths = [max(len(str(row[column])) for row in table) for column in range(len(head))]
    texts = [isinstance(cell, str) for cell in table[-1]]
    for row in table:
        cells = zip(row, widths, texts, strict=True)
        print(
            "  ".join(
                f"{cell:<{width}}" if text else f"{cell:>{width}}" for cell, width, text in cells
            )
        )


def _as_text(name: str) -> str:
    """Marks a name that a spreadsheet would take for a formula, and run, as text."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@")) else name


def _draw_images(
    config: InspectConfig, images: IndexedShards, findings: Sequence[Mapping[str, int] | None]
) -> bytes:
    splits = np.array(images.column("split").to_pylist(), dtype=object)
    groups = []
    for split in dict.fromkeys(splits):
        rows = np.flatnonzero(splits == split)
        order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(rows))
        chosen = np.sort(rows[order[: config.images]])
        panels = tuple(_panel(images, int(row), findings[row]) for row in chosen)
        groups.append(Group(f"{split}: {len(chosen)} of {len(rows)} images", panels))
    return draw_sheet(f"Images of {_label(images.manifest)}", groups)


def _panel(images: IndexedShards, row: int, findings: Mapping[str, int] | None) -> Panel:
    present = [printable(name) for name, value in (findings or {}).items() if value == 1]
    if len(present) > _MOST_NAMED:
        present = [*present[: _MOST_NAMED - 1], f"and {len(present) - _MOST_NAMED + 1} more"]
    return Panel(image=sample_picture(images, row), caption="\n".join(present))


def draw_masks(images: IndexedShards, wanted: int) -> bytes:
    """Draws masks from the smallest target to the largest, the median among them; then empty ones.

    An inverted or misread set is seen by them at a glance.

    Args:
        wanted: how many masks with a target; at least three are drawn, unless 0.

    Returns:
        The sheet as PNG. Captions say what share of the image is target.

    Raises:
        DatasetError: an image or a mask is damaged.
    """
    shares = images.column("target_share").to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(shares > 0)
    rows = rows[np.argsort(shares[rows], kind="stable")]
    empty = np.flatnonzero(shares == 0)
    last = len(rows) - 1
    names = {last // 2: "middle ", 0: "smallest ", last: "largest "}
    panels = [
        _mask_panel(images, int(rows[place]), f"{names.get(place, '')}{shares[rows[place]]:.2%}")
        for place in _spread(len(rows), wanted)
    ]
    title = f"From the smallest to the largest target: {len(panels)} of {len(rows)}"
    groups = [Group(title, tuple(panels))]
    if len(empty):
        few = empty[: min(wanted, _MOST_EMPTY)]
        title = f"Without a target: {len(few)} of {len(empty)}"
        groups.append(Group(title, tuple(_mask_panel(images, int(row), "empty") for row in few)))
    return draw_sheet(f"Masks of {_label(images.manifest)}", groups, tint="target")


def _spread(count: int, wanted: int) -> list[int]:
    """Returns places out of ``count``, even over the range, with both ends and the middle one."""
    if not count or not wanted:
        return []
    places = np.linspace(0, count - 1, min(max(wanted, 3), count)).round().astype(int)
    if count > 2:
        inner, middle = places[1:-1], (count - 1) // 2
        inner[np.abs(inner - middle).argmin()] = middle
    return np.unique(places).tolist()


def _mask_panel(images: IndexedShards, row: int, caption: str) -> Panel:
    try:
        mask = decode_pixels(images.mask_bytes(row) or b"")[0]
    except UnusableSample as error:
        raise DatasetError(
            f"{images.describe(row)}: mask: {error.detail}. Run nakt verify"
        ) from None
    target = target_pixels(mask, images.manifest.mask_kind)
    return Panel(
        image=sample_picture(images, row),
        caption=caption,
        outlines=(Outline(target, "edge of the target"),),
        soft=_TINT * target.astype(np.float32),
    )
