"""The main table, the counts before and after exclusion (table 7), and the list of all runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nakt_dist.records.fields import printable
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.report import paper
from nakt_dist.report.capability import Capability, Transfer, transfer_of
from nakt_dist.report.comparability import meetings
from nakt_dist.report.document import WARNING, Cell, Table
from nakt_dist.report.evaluations import EvaluatedRun
from nakt_dist.report.pseudo_sets import PseudoSet, judge
from nakt_dist.report.roles import describe_lineage, describe_rule
from nakt_dist.report.runs import FoundRecord
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
    evaluations: Sequence[EvaluatedRun], capabilities: Mapping[Transfer, Capability]
) -> Table:
    """Shows every evaluation in one row, by the part its network plays.

    Args:
        evaluations: in the order of the rows.
        capabilities: of every transferal dataset.
    """
    several = len({run.tested_on for run in evaluations}) > 1
    header = ["Role", "Run", "Network", "Dice %", "95 % interval", "KTC %"]
    header += [*(["Test set"] if several else []), "Test images", "Learnt from", "Exclusion"]
    remarks = [_DICE, _CAPABILITY, *(f"{WARNING} {each}" for each in meetings(evaluations))]
    rows = []
    for run in evaluations:
        transfer = transfer_of(run)
        capability = capabilities[transfer] if transfer else None
        is_best = capability is not None and capability.best is run
        if is_best and capability.percent is None:
            remarks.append(f"No KTC for {transfer.dataset}: {capability.reason}.")
        cells = [
            Cell(run.role.value),
            Cell(run.name),
            Cell(run.network.label),
            Cell(f"{run.dice} {WARNING}" if run.seen_before() else run.dice, strong=is_best),
            Cell(run.interval),
            Cell(
                show_capability(capability) if is_best else "",
                strong=is_best and capability.percent is not None,
            ),
            *([Cell(run.tested_on.label, minor=True)] if several else []),
            Cell(_count_images(run), minor=True),
            Cell(describe_lineage(run.lineage), minor=True),
            Cell(_exclusion(run), minor=True),
        ]
        rows.append(tuple(cells))
    title = "All evaluations" if several else f"Tested on {evaluations[0].tested_on.label}"
    return Table(title, tuple(header), tuple(rows), tuple(dict.fromkeys(remarks)))


def show_capability(capability: Capability) -> str:
    """Returns a capability as text, or a dash where there is none."""
    return NOTHING if capability.percent is None else f"{capability.percent:.2f}"


def _exclusion(run: EvaluatedRun) -> str:
    if run.transfer is None:
        return NOTHING
    return describe_rule(run.transfer.exclusion) if run.excluded else "no"


def _count_images(run: EvaluatedRun) -> str:
    left_out = f" (+ {run.images_left_out} without a defined Dice)" if run.images_left_out else ""
    return f"{run.images}{left_out}"


def exclusion_table(
    trainings: Iterable[TrainingSet], pseudo_sets: Sequence[PseudoSet]
) -> Table | None:
    """Counts images before and after exclusion (paper A, table 7).

    Counts come from the statistics beside the pseudo-labels where those are among the folders
    given, else from the lineage of the networks that learnt from them.

    Args:
        trainings: every training on pseudo masks that is known.
        pseudo_sets: every set of pseudo-labels found.

    Returns:
        None where there is nothing to count.
    """
    trainings = [training for training in dict.fromkeys(trainings) if training.exclusion]
    rows = []
    for pseudo in pseudo_sets:
        fingerprint = pseudo.manifest.fingerprint
        users = [each for each in trainings if each.pseudo_labels_fingerprint == fingerprint]
        rows += [_counted_row(pseudo, training) for training in users or [None]]
    known = {pseudo.manifest.fingerprint for pseudo in pseudo_sets}
    rows += [
        _lineage_row(training)
        for training in trainings
        if training.pseudo_labels_fingerprint not in known
    ]
    if not rows:
        return None
    header = (
        "Transferal dataset", "Rule", "Before", "After", "Kept %", "N < α alone",
        "E > β alone", "Both", "The paper's table 7",
    )  # fmt: skip
    remarks = (
        "N: pixels above 0.5 of the stored pseudo mask. E: grey-level entropy of it, in bits.",
        "The paper's counts are of other images and another teacher; only the share compares, "
        "and only roughly.",
    )
    return Table("Table 7: images before and after exclusion", header, tuple(rows), remarks)


def _counted_row(pseudo: PseudoSet, training: TrainingSet | None) -> tuple[Cell, ...]:
    rule = training.exclusion if training else ExclusionRule()
    splits = training.splits if training else None
    counts = judge(pseudo, rule).counts(pseudo.in_splits(splits))
    notes = [f"pseudo-labels {pseudo.name}", _name_splits(splits)]
    if training is None:
        notes.append("no network here learnt from them with exclusion: the paper's thresholds")
    elif training.samples < counts["after"]:
        notes.append(f"{training.samples} of those kept were used")
    alone = ("below_alpha_alone", "above_beta_alone", "below_alpha_and_above_beta")
    return _exclusion_row(
        pseudo.manifest.dataset, Cell(pseudo.label, tuple(notes)), rule, counts["before"],
        counts["after"], [str(counts[name]) for name in alone],
    )  # fmt: skip


def _lineage_row(training: TrainingSet) -> tuple[Cell, ...]:
    notes = (_name_splits(training.splits), "from the lineage: after a count, if one was set")
    return _exclusion_row(
        training.dataset, Cell(training.label, notes), training.exclusion,
        training.before_exclusion, training.samples, [NOTHING] * 3,
    )  # fmt: skip


def _exclusion_row(
    dataset: str, name: Cell, rule: ExclusionRule, before: int, after: int, alone: list[str]
) -> tuple[Cell, ...]:
    theirs = paper.find_exclusion(dataset)
    printed = Cell(NOTHING)
    if theirs is not None:
        share = f"{100 * theirs[1] / theirs[0]:.1f} % kept"
        printed = Cell(f"{theirs[0]:,} → {theirs[1]:,}", (paper.dataset_name(dataset), share))
    share = f"{100 * after / before:.1f}" if before else NOTHING
    numbers = [str(before), str(after), share, *alone]
    return (name, Cell(describe_rule(rule)), *map(Cell, numbers), printed)


def _name_splits(splits: tuple[str, ...] | None) -> str:
    return "all splits" if splits is None else f"split {' + '.join(splits)}"


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
        records: in the order of the rows.
        versions: as ``version_sets`` returns them.
    """
    header = (
        "Run", "Stage", "Counts", "Seconds", "Configuration", "Weights", "Dataset", "Versions",
    )  # fmt: skip
    rows = []
    for found in records:
        record = found.record
        weights = record.inputs.get("weights_sha256") or record.details.get("best_weights_sha256")
        dataset = record.inputs.get("dataset_fingerprint") or record.inputs.get("dataset")
        texts = (
            printable(record.stage),
            _show(record.counts),
            f"{record.seconds:.1f}",
            value_sha256(record.config)[:_SHOWN_DIGITS],
            _digits(weights),
            _digits(dataset),
            versions[_show(record.versions)],
        )
        rows.append((Cell(printable(record.name), (found.place,)), *map(Cell, texts)))
    remarks = (
        "Configuration, weights and dataset: the first digits of the SHA-256 of the resolved "
        "configuration, of the weights file (training: the last weights) and of the dataset's "
        "manifest.",
    )
    return Table("Every record found", header, tuple(rows), remarks)


def _digits(value: Any) -> str:
    return printable(str(value))[:_SHOWN_DIGITS] if value else NOTHING


def _show(values: Mapping[str, Any]) -> str:
    """Returns a flat mapping as one line of at most 300 characters."""
    parts = [
        f"{name} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in values.items()
    ]
    return printable(", ".join(parts))[:300] or NOTHING
