"""What ``nakt pack`` says when it is done."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig
from nakt_dist.runtime.processes import say
from nakt_dist.shards.manifest import REJECTED_NAME, ShardManifest
from nakt_dist.shards.split_table import SplitRow, describe_constant, describe_splits
from nakt_dist.shards.tables import REJECTED_SCHEMA, read_table
from nakt_dist.sources.patients import SPLIT_APART
from nakt_dist.stages.mask_coverage import describe_coverage
from nakt_dist.stages.pack_divide import COPIES, COPIES_APART
from nakt_dist.stages.pack_plan import PackPlan

_OFFICIAL = "official split "


def announce(
    plan: PackPlan,
    manifest: ShardManifest,
    table: Sequence[SplitRow],
    coverage: dict[str, Any],
    output: Path,
) -> None:
    """Prints what was packed, left out, found and set aside."""
    config, counts = plan.config, manifest.counts
    phantom = " (phantom images)" if manifest.phantom else ""
    say(f"pack {manifest.dataset}{phantom}: {counts['packed']} samples in {output}")
    say(
        f"  inputs {counts['inputs']} = packed {counts['packed']} + rejected {counts['rejected']}"
        f"; united from several masks {counts['united_masks']}"
    )
    for words, count in manifest.left_out.items():
        say(f"  left out by setting, {words}: {count}")
    for words, count in manifest.found.items():
        say(f"  {words}: {count}")
    for line in describe_coverage(coverage, manifest, str(output)):
        say(f"  {line}")
    _announce_findings(manifest)
    if config.deidentify:
        fingerprint = manifest.config["deidentified"]["key_fingerprint"]
        say(f"  de-identified with the key {config.deidentify_key} (fingerprint {fingerprint})")
    say(f"  {_how_split(config, manifest)}")
    _announce_official(plan)
    _announce_splits(config, manifest, table)
    for comparison in () if manifest.phantom else plan.expected:
        if comparison.what.startswith(_OFFICIAL) and not config.splits.official:
            continue  # beside splits of our own they would only mislead
        say(f"  {comparison.what}: card expects {comparison.expected}, found {comparison.found}")
    if counts["rejected"]:
        rejected = read_table(output / REJECTED_NAME, REJECTED_SCHEMA)
        reasons = rejected["reason"].to_pylist()
        found = ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).most_common())
        say(f"  rejected: {found} (each one in {output / REJECTED_NAME})")
        turned = sum("EXIF" in detail for detail in rejected["detail"].to_pylist())
        if turned:
            say(
                f"  masks whose size differs because EXIF turns the image otherwise: {turned}; see "
                "mask_values.orientation"
            )
    if manifest.ignored_files:
        found = ", ".join(f"{suffix} {count}" for suffix, count in manifest.ignored_files.items())
        say(f"  files of no sample, by suffix: {found}")


def announce_speed(packed_now: int, seconds: float) -> None:
    """Prints how fast the images were packed, if any were."""
    if packed_now:
        say(f"  {packed_now / seconds:.0f} images/s over {seconds:.1f} s")
    else:
        say("  was complete already; nothing was written")


def _announce_official(plan: PackPlan) -> None:
    """Prints that the dataset has splits of its own where they are not used."""
    splits = (each.record.official_split for each in plan.inputs)
    counts = Counter(filter(None, splits))
    if len(counts) > 1 and not plan.config.splits.official:
        told = ", ".join(f"{split} {count}" for split, count in sorted(counts.items()))
        say(
            f"  folders or tables tell official splits ({told}), which are not used; "
            "--splits.official true uses them"
        )


def _announce_findings(manifest: ShardManifest) -> None:
    if manifest.findings:
        policy = manifest.label_policy
        say(
            f"  findings {len(manifest.findings)}, kept as published; uncertain ones count as "
            f"{policy['uncertain']}, blank ones as {policy['blank']}, unless a reader differs"
        )


def _announce_splits(
    config: PackConfig, manifest: ShardManifest, table: Sequence[SplitRow]
) -> None:
    """Prints what the splits hold side by side, and what is wrong with that."""
    for line in describe_splits(table):
        say(f"  {line}")
    told = describe_constant(table, manifest.findings, manifest.splits)
    if told:
        say(f"  {told}")
    wanted = [] if config.splits.official else [s for s, f in config.splits.fractions.items() if f]
    if config.splits.validation_from_train:
        wanted = ["validation"]
    for split in wanted:
        if split not in manifest.splits:
            say(
                f"  WARNING: the split '{split}' was asked for and got no image: there are too few "
                "patients, or images, to divide"
            )
    spelt = _spelt_apart(manifest)
    if spelt and config.splits.official:
        say(
            f"  WARNING: {spelt} patients seem to lie in two of the dataset's own splits, spelt in "
            "two ways; splits.official false takes such spellings for one patient"
        )
    if config.count is not None and manifest.left_out and COPIES in manifest.found:
        say(
            "  WARNING: copies are known among the packed images alone, so that in a packing of "
            "more of them an image may be in another split: test no network on another --count"
        )
    apart = manifest.found.get(COPIES_APART, 0)
    if apart:
        say(
            f"  WARNING: {apart} images have a copy in another split, so that a test knows them "
            "from training; splits.official false and splits.identical_together true keep copies "
            "in one split"
        )


def _how_split(config: PackConfig, manifest: ShardManifest) -> str:
    """Says by what the samples were divided; that no patient is in two splits was checked."""
    known, without = manifest.patients["known"], manifest.patients["images_without"]
    how = "split as the dataset itself is; " if config.splits.official else ""
    if config.splits.validation_from_train:
        how += f"{config.splits.validation_from_train:g} of its training is validation; "
    if known == 0:
        by_image = "" if config.splits.official else ": split by image"
        return f"{how}no patients known{by_image}, so images of one patient may be in two splits"
    rest = f"; {without} images of no known patient" if without else ""
    spelt = config.splits.official and _spelt_apart(manifest)
    alone = (
        "none of them in two splits as they are spelt" if spelt else "none of them in two splits"
    )
    return f"{how}{known} patients, {alone}{rest}"


def _spelt_apart(manifest: ShardManifest) -> int:
    """Returns how many patients the dataset's own splits share under two spellings."""
    return sum(n for words, n in manifest.found.items() if words.startswith(SPLIT_APART))
