"""Sets of pseudo-labels on disk: their statistics, and what an exclusion rule does to them."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.records.exposure import images_by_role
from nakt_dist.records.fields import label_dataset, printable
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.processes import say
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, PseudoLabelManifest
from nakt_dist.shards.tables import per_class, pseudo_index_schema, read_table
from nakt_dist.transfer.exclusion import FURTHER_LIMITS, ExclusionRule

ALL_SPLITS = "all"
NOT_EXCLUDED = ""
BELOW_ALPHA = "target pixels below alpha"
ABOVE_BETA = "entropy above beta"
UNSURE = "teachers not sure"
BOTH = "target pixels below alpha and entropy above beta"


@dataclass(frozen=True)
class PseudoSet:
    """The pseudo-labels of one dataset.

    Attributes:
        statistics: a row per sample, as ``pseudo_index_schema`` says.
    """

    name: str
    manifest: PseudoLabelManifest
    statistics: pa.Table

    @property
    def label(self) -> str:
        """The dataset's name, marked where it is a phantom."""
        return label_dataset(printable(self.manifest.dataset), self.manifest.phantom)

    @property
    def target_pixels(self) -> np.ndarray:
        """N, int64 (samples,): pixels above 0.5 in each stored mask."""
        return self.statistics["target_pixels"].to_numpy()

    @property
    def entropy(self) -> np.ndarray:
        """E, float64 (samples,): grey-level entropy of each stored mask, in bits."""
        return self.statistics["entropy"].to_numpy()

    def in_splits(self, splits: tuple[str, ...] | None) -> np.ndarray:
        """Says which samples belong to the splits, bool (samples,); None means all."""
        if splits is None:
            return np.ones(self.statistics.num_rows, dtype=bool)
        return np.isin(self.statistics["split"].to_numpy(zero_copy_only=False).astype(str), splits)


@dataclass(frozen=True)
class RuleVerdict:
    """What a rule says about each sample of a set; all are bool (samples,).

    Attributes:
        few_targets: N < α, whatever the entropy.
        high_entropy: E > β, whatever the target pixels; never where no teacher was soft.
        unsure: the teachers' confidence is too small, or their disagreement too large; None where
            the rule does not ask.
        kept: the image stays.
    """

    few_targets: np.ndarray
    high_entropy: np.ndarray
    unsure: np.ndarray | None
    kept: np.ndarray

    @property
    def reasons(self) -> list[str]:
        """Why each sample is excluded; empty for kept ones."""
        names = np.array([NOT_EXCLUDED, BELOW_ALPHA, ABOVE_BETA, BOTH], dtype=object)
        reasons = names[self.few_targets + 2 * self.high_entropy]
        if self.unsure is not None:
            joined = np.where(reasons == NOT_EXCLUDED, UNSURE, reasons + f" and {UNSURE}")
            reasons = np.where(self.unsure, joined, reasons)
        return np.where(self.kept, NOT_EXCLUDED, reasons).tolist()

    def counts(self, chosen: np.ndarray) -> dict[str, int]:
        """Counts images before and after exclusion.

        Args:
            chosen: bool (samples,), the samples counted.

        Returns:
            ``before`` = ``after`` + ``excluded``; how many have N < α alone, E > β alone, or
            both. With ``combine: both`` only the last are excluded. Where the rule asks for it,
            of how many the teachers are not sure, whatever α and β say of them.
        """
        few, high = self.few_targets, self.high_entropy
        masks = {
            "before": np.ones_like(self.kept),
            "after": self.kept,
            "excluded": ~self.kept,
            "below_alpha_alone": few & ~high,
            "above_beta_alone": high & ~few,
            "below_alpha_and_above_beta": few & high,
        }
        if self.unsure is not None:
            masks["unsure"] = self.unsure
        return {name: int(np.count_nonzero(mask & chosen)) for name, mask in masks.items()}


def read_pseudo_set(root: str | Path) -> PseudoSet:
    """Reads the manifest and the statistics of a folder or URL of pseudo-labels.

    Raises:
        DatasetError: they are absent, damaged or unfinished.
    """
    location = DatasetLocation(root)
    location.refresh(MANIFEST_NAME)
    manifest = PseudoLabelManifest.read(location.folder)
    expected = manifest.files.get(INDEX_NAME, "")

    def is_current(path: Path) -> bool:
        return path.is_file() and file_sha256(path) == expected

    path = location.local(INDEX_NAME, is_current)
    if not is_current(path):
        raise DatasetError(f"{path}: absent or not the file the manifest names. Run nakt verify")
    table = read_table(path, pseudo_index_schema(manifest.classes))
    if table.num_rows != manifest.num_samples:
        raise DatasetError(
            f"{path}: {table.num_rows} rows, but the manifest counts {manifest.num_samples} "
            "pseudo-labels. Run nakt verify on the folder"
        )
    return PseudoSet(printable(Path(location.url).name), manifest, table)


def with_threshold_found(rule: ExclusionRule, manifest: PseudoLabelManifest) -> ExclusionRule:
    """Returns a rule whose threshold is that of its calibration, where it has one.

    Args:
        manifest: of the pseudo masks that it is to judge.

    Raises:
        DatasetError: the masks of the calibration are absent or damaged.
        ConfigurationError: they are of other teachers or another size, none is in its splits,
            the teachers learnt from some of them, or no teacher gave soft masks.
    """
    asked = rule.calibration
    if asked is None:
        return rule
    if asked.pseudo_labels is None:
        raise ConfigurationError("exclusion.calibration.pseudo_labels must be a folder, not null")
    own = read_pseudo_set(asked.pseudo_labels)
    differs = _made_by(own.manifest) != _made_by(manifest)
    if differs or (own.manifest.height, own.manifest.width) != (manifest.height, manifest.width):
        raise ConfigurationError(
            f"exclusion.calibration.pseudo_labels: {asked.pseudo_labels} was written by "
            f"{_describe(own.manifest)}, the masks of {manifest.dataset} by {_describe(manifest)}; "
            "how sure they are compares between masks of the same teachers and size alone. Let "
            "those teachers write both (nakt teach)"
        )
    if asked.threshold == "beta" and not manifest.soft:
        raise ConfigurationError(
            f"exclusion.calibration: every teacher of the masks of {manifest.dataset} gave binary "
            "ones, to which no β applies; leave it out"
        )
    for learnt in itertools.chain(*map(learnt_from, own.manifest.teachers)):
        known = learnt.splits
        both = known is None or asked.splits is None or set(known) & set(asked.splits)
        if learnt.fingerprint == own.manifest.dataset_fingerprint and both:
            raise ConfigurationError(
                f"exclusion.calibration.splits: a teacher, or what it began with, learnt from "
                f"images of {own.manifest.dataset} in splits {known or 'all'}; it is surer of "
                "these than of new ones. Name splits that no teacher learnt from"
            )
    values = own.statistics[asked.measure].to_numpy()[own.in_splits(asked.splits)]
    if not len(values):
        splits = sorted(own.statistics["split"].unique().to_pylist())
        raise ConfigurationError(
            f"exclusion.calibration.splits: {asked.pseudo_labels} has no mask in "
            f"{', '.join(asked.splits or ())}; its splits are {', '.join(splits)}"
        )
    found = rule.with_found(values)
    told = (
        f"β is {found.beta:g} bits, above"
        if found.beta is not None
        else f"the smallest expected Dice is {found.smallest_expected_dice:g}, below"
    )
    idle = (
        ""
        if found.smallest_expected_dice != 0
        else ("; no mask is below 0: too many of these have no target to find another")
    )
    form = _in_another_form(own.manifest, manifest)
    say(f"exclusion: {told} {asked.percentile:g} % of {len(values)} masks of "
        f"{own.manifest.dataset}{idle}{form}{_doubt(own.manifest)}")  # fmt: skip
    return found


def learnt_from(teacher: Mapping[str, Any]) -> Iterator[TrainingSet]:
    """Yields what a teacher, its parents and its own teachers learnt from, as far as known.

    Args:
        teacher: as a manifest of pseudo-labels names it.
    """
    met = images_by_role(read_lineage(teacher.get("lineage") or {}, lenient=True))
    for role in ("training", "parents", "teacher"):
        yield from (each.images for each in met[role] if not each.chosen)


def _doubt(manifest: PseudoLabelManifest) -> str:
    """Says which teachers may have learnt from these images, in a packing or a way unknown here."""
    doubted = [
        printable(str(teacher.get("name")))
        for teacher in manifest.teachers
        if all(e.fingerprint != manifest.dataset_fingerprint for e in learnt_from(teacher))
    ]
    if not doubted:
        return ""
    return (
        f"; {', '.join(doubted)} did not learn from this packing of them, and whether it learnt "
        "from these images in another cannot be told: then too much is left out, and nakt "
        "evaluate on them warns"
    )


def _made_by(manifest: PseudoLabelManifest) -> list[Any]:
    """Returns what decides the masks of an image: the teachers, and how they are combined.

    An ONNX file is the network that it says it was exported from.
    """
    apart, sides = ("name", "lineage", "exported_from"), ("height", "width")
    teachers = [{k: v for k, v in each.items() if k not in apart} for each in manifest.teachers]
    for told, each in zip(teachers, manifest.teachers, strict=True):
        told["weights_sha256"] = each.get("exported_from") or each.get("weights_sha256")
        stored = each.get("preprocessing")
        seen = dict(stored) if isinstance(stored, Mapping) else {"stored": stored}
        # An ONNX file always says its size.
        own = {side: seen.get(side) or getattr(manifest, side) for side in sides}
        told["preprocessing"] = seen | own
    return [teachers, manifest.config.get("combination"), manifest.classes]


def _in_another_form(own: PseudoLabelManifest, other: PseudoLabelManifest) -> str:
    """Says that masks of the same networks were written by other files of them."""
    pairs = zip(own.teachers, other.teachers, strict=True)
    names = [
        printable(str(one.get("name")))
        for one, another in pairs
        if one.get("weights_sha256") != another.get("weights_sha256")
    ]
    if not names:
        return ""
    return f"; {', '.join(names)} wrote them in another form (ONNX says which weights it is of)"


def _describe(manifest: PseudoLabelManifest) -> str:
    names = ", ".join(printable(str(each.get("name"))) for each in manifest.teachers)
    return f"{names} at {manifest.height} × {manifest.width}"


def apply_rule(pseudo: PseudoSet, rule: ExclusionRule) -> RuleVerdict:
    """Applies a rule to the stored statistics, and each of its parts alone."""

    def kept(by: ExclusionRule) -> np.ndarray:
        return kept_by(by, pseudo.manifest, lambda name: pseudo.statistics[name].to_numpy())

    papers = rule.without(*FURTHER_LIMITS)
    few, high = ~kept(replace(papers, beta=None)), ~kept(replace(papers, alpha=None))
    # One class may pass the one rule, and another the other: no class passes both.
    neither = ~(kept(papers) | few | high)
    unsure = None
    if any(getattr(rule, name) is not None for name in FURTHER_LIMITS):
        unsure = ~kept(rule.without("alpha", "beta"))
    return RuleVerdict(few | neither, high | neither, unsure, kept(rule))


def kept_by(
    rule: ExclusionRule, manifest: PseudoLabelManifest, column: Callable[[str], np.ndarray]
) -> np.ndarray:
    """Applies a rule to the stored statistics.

    Args:
        column: gives a column of the index of pseudo-labels, (N,), by its name.

    Returns:
        bool (N,), True where the image stays.

    Raises:
        ConfigurationError: it judges classes that the masks do not have.
    """
    classes = ("", *rule.judged_classes(manifest.classes))

    def statistic(name: str) -> np.ndarray:
        columns = [column(each) for each in per_class(name, classes)]
        return np.stack(columns, axis=1) if columns else column(name)

    n, e = statistic("target_pixels"), statistic("entropy")
    kept = rule.kept(n, e, manifest.height, manifest.width, manifest.soft)
    return kept & rule.sure(column)


def count_by_split(pseudo: PseudoSet, verdict: RuleVerdict) -> dict[str, dict[str, int]]:
    """Counts as ``RuleVerdict.counts`` does, over all samples and in each split."""
    splits = pseudo.statistics["split"].unique().to_pylist()
    chosen = {ALL_SPLITS: pseudo.in_splits(None)}
    chosen |= {f"split {name}": pseudo.in_splits((name,)) for name in sorted(splits)}
    return {name: verdict.counts(mask) for name, mask in chosen.items()}


def count_by_class(pseudo: PseudoSet, verdict: RuleVerdict) -> dict[str, dict[str, float]]:
    """Counts the images in which each of several classes is somewhere the most probable.

    Returns:
        Per class the images ``before`` exclusion and ``after`` it, and over those before it the
        median of its ``target_pixels`` and of its mask's ``entropy``, 0 where there are none;
        nothing of masks with one target.
    """
    counts = {}
    for name in pseudo.manifest.classes[1:]:
        pixels, entropy = (
            pseudo.statistics[f"{each}:{name}"].to_numpy() for each in ("target_pixels", "entropy")
        )
        there = pixels > 0
        counts[name] = {
            "before": int(there.sum()),
            "after": int((there & verdict.kept).sum()),
            "target_pixels": float(np.median(pixels[there])) if there.any() else 0.0,
            "entropy": float(np.median(entropy[there])) if there.any() else 0.0,
        }
    return counts
