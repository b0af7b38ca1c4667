"""The main table, the counts before and after exclusion (table 7), and the list of all runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nakt_dist.records.evaluation_set import describe_splits
from nakt_dist.records.fields import printable
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.records.pseudo_sets import PseudoSet, apply_rule
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report import paper
from nakt_dist.report.capability import Capability, Transfer
from nakt_dist.report.cautions import meetings
from nakt_dist.report.document import WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.evaluations import SegmentationRun, show_interval
from nakt_dist.report.roles import describe_lineage, describe_rule
from nakt_dist.report.runs import FoundRecord
from nakt_dist.report.telling import grouped
from nakt_dist.runtime.files import value_sha256
from nakt_dist.transfer.exclusion import ExclusionRule

NOTHING = "–"
_SHOWN_DIGITS = 12
_DICE = (
    "Dice: mean ± standard deviation over the test images, in percent; the interval is a 95 % "
    "bootstrap interval of the mean."
)
_CAPABILITY = (
    "KTC, the knowledge-transfer capability of a transferal dataset, is 100 × the Dice of the "
    "best student trained on it, with or without exclusion, / the Dice of the teacher that wrote "
    "its pseudo masks, on the same test images. It stands in the row of that student."
)


def main_table(
    evaluations: Sequence[SegmentationRun], capabilities: Mapping[Transfer, Capability]
) -> Table:
    """Shows every evaluation in one row, by the part its network plays."""
    several = len({run.tested_on for run in evaluations}) > 1
    leading = {each.best: each for each in capabilities.values()}

    def dice(run: SegmentationRun) -> Cell:
        return Cell(f"{run.dice}{run.warned}", strong=run in leading)

    def capability(run: SegmentationRun) -> Cell:
        found = leading.get(run)
        if found is None:
            return Cell("")
        return Cell(show_capability(found), strong=found.percent is not None)

    columns = (
        Column("Role", lambda run: run.role.value),
        Column("Run", lambda run: run.name),
        Column("Network", lambda run: run.network.label),
        Column("Dice %", dice),
        Column("95 % interval", lambda run: show_interval(run.interval)),
        Column("KTC %", capability),
        Column("Test set", lambda run: run.tested_on.label, shown=several, minor=True),
        Column("Test images", _count_images, minor=True),
        Column("Learnt from", lambda run: describe_lineage(run.lineage), minor=True),
        Column("Exclusion", _exclusion, minor=True),
    )
    remarks = [_DICE, _CAPABILITY, *(f"{WARNING} {each}" for each in meetings(evaluations))]
    remarks += [
        f"No KTC for {run.lineage.learnt.label}: {leading[run].reason}."
        for run in evaluations
        if run in leading and leading[run].percent is None
    ]
    title = "All evaluations" if several else f"Tested on {evaluations[0].tested_on.label}"
    return tabulate(title, columns, evaluations, dict.fromkeys(remarks))


def show_capability(capability: Capability) -> str:
    """Returns a capability as text, or a dash where there is none."""
    return NOTHING if capability.percent is None else f"{capability.percent:.2f}"


def _exclusion(run: SegmentationRun) -> str:
    if run.transfer is None:
        return NOTHING
    return describe_rule(run.transfer.exclusion) if run.excluded else "no"


def _count_images(run: SegmentationRun) -> str:
    left_out = f" (+ {run.images_left_out} without a defined Dice)" if run.images_left_out else ""
    return f"{run.images}{left_out}"


@dataclass(frozen=True)
class _Counted:
    """Images before and after a rule; excluded by N < α alone, by E > β alone, and by both."""

    dataset: str
    name: Cell
    rule: ExclusionRule
    before: int
    after: int
    alone: tuple[str, ...]

    @property
    def share(self) -> str:
        """Images that stay, in percent."""
        return f"{100 * self.after / self.before:.1f}" if self.before else NOTHING


def exclusion_table(
    trainings: Iterable[TrainingSet], pseudo_sets: Sequence[PseudoSet]
) -> Table | None:
    """Counts images before and after exclusion (paper A, table 7).

    Counts come from the statistics beside the pseudo-labels where those are among the folders
    given, else from the lineage of the networks that learnt from them.

    Returns:
        None where there is nothing to count.
    """
    trainings = [training for training in dict.fromkeys(trainings) if training.exclusion]
    by_set = grouped(trainings, lambda training: training.pseudo_labels_fingerprint)
    rows = [
        _count_statistics(pseudo, training)
        for pseudo in pseudo_sets
        for training in by_set.pop(pseudo.manifest.fingerprint, [None])
    ]
    rows += [
        _read_lineage(training, training.exclusion)
        for training in trainings
        if training.exclusion and training.pseudo_labels_fingerprint in by_set
    ]
    if not rows:
        return None
    columns = (
        Column("Transferal dataset", lambda row: row.name),
        Column("Rule", lambda row: describe_rule(row.rule)),
        Column("Before", lambda row: str(row.before)),
        Column("After", lambda row: str(row.after)),
        Column("Kept %", lambda row: row.share),
        Column("N < α alone", lambda row: row.alone[0]),
        Column("E > β alone", lambda row: row.alone[1]),
        Column("Both", lambda row: row.alone[2]),
        Column("The paper's table 7", _printed_counts),
    )
    remarks = (
        "N: pixels above 0.5 of the stored pseudo mask. E: grey-level entropy of it, in bits.",
        "The paper's counts are of other images and another teacher; only the share compares, "
        "and only roughly.",
    )
    return tabulate("Table 7: images before and after exclusion", columns, rows, remarks)


def _count_statistics(pseudo: PseudoSet, training: TrainingSet | None) -> _Counted:
    rule = (training and training.exclusion) or ExclusionRule()
    splits = training.splits if training else None
    counts = apply_rule(pseudo, rule).counts(pseudo.in_splits(splits))
    notes = [f"pseudo-labels {pseudo.name}", describe_splits(splits)]
    if training is None:
        notes.append("no network here learnt from them with exclusion: the paper's thresholds")
    elif training.samples < counts["after"]:
        notes.append(f"{training.samples} of those kept were used")
    alone = ("below_alpha_alone", "above_beta_alone", "below_alpha_and_above_beta")
    return _Counted(
        pseudo.manifest.dataset, Cell(pseudo.label, tuple(notes)), rule, counts["before"],
        counts["after"], tuple(str(counts[name]) for name in alone),
    )  # fmt: skip


def _read_lineage(training: TrainingSet, rule: ExclusionRule) -> _Counted:
    notes = (describe_splits(training.splits), "from the lineage: after a count, if one was set")
    return _Counted(
        training.dataset, Cell(training.label, notes), rule,
        training.before_exclusion, training.samples, (NOTHING,) * 3,
    )  # fmt: skip


def _printed_counts(row: _Counted) -> Cell:
    theirs = paper.find_exclusion(row.dataset)
    if theirs is None:
        return Cell(NOTHING)
    before, after = theirs
    share = f"{100 * after / before:.1f} % kept"
    return Cell(f"{before:,} → {after:,}", (f"{paper.dataset_name(row.dataset)}", share))


def version_sets(records: Sequence[FoundRecord]) -> dict[str, str]:
    """Returns the distinct sets of package versions, as text, each with a letter or two."""
    texts = dict.fromkeys(_show(found.record.versions) for found in records)
    return {text: _letters(number) for number, text in enumerate(texts)}


def _letters(number: int) -> str:
    first, last = divmod(number, 26)
    return (chr(64 + first) if first else "") + chr(65 + last)


def records_table(records: Sequence[FoundRecord], versions: Mapping[str, str]) -> Table:
    """Lists every record.

    Args:
        versions: as ``version_sets`` returns them.
    """
    columns = (
        Column("Run", lambda found: Cell(printable(found.record.name), (found.place,))),
        Column("Stage", lambda found: printable(found.record.stage)),
        Column("Counts", lambda found: _show(found.record.counts)),
        Column("Seconds", lambda found: f"{found.record.seconds:.1f}"),
        Column("Configuration", lambda found: value_sha256(found.record.config)[:_SHOWN_DIGITS]),
        Column("Weights", lambda found: _digits(_weights(found.record))),
        Column("Dataset", lambda found: _digits(_dataset(found.record))),
        Column("Versions", lambda found: versions[_show(found.record.versions)]),
    )
    remarks = (
        "Configuration, weights and dataset: the first digits of the SHA-256 of the resolved "
        "configuration, of the weights file (training: the last weights) and of the dataset's "
        "manifest.",
    )
    return tabulate("Every record found", columns, records, remarks)


def _weights(record: RunRecord) -> Any:
    return record.inputs.get("weights_sha256") or record.details.get("best_weights_sha256")


def _dataset(record: RunRecord) -> Any:
    return record.inputs.get("dataset_fingerprint") or record.inputs.get("dataset")


def _digits(value: Any) -> str:
    return printable(str(value))[:_SHOWN_DIGITS] if value else NOTHING


def _show(values: Mapping[str, Any]) -> str:
    """Returns a flat mapping as one line of at most 300 characters."""
    parts = [
        f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]
    return printable(", ".join(parts))[:300] or NOTHING
