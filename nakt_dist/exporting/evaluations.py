"""The evaluations of a network that is handed on, found among records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nakt_dist.records.fields import read_if_there
from nakt_dist.report.evaluations import Evaluation
from nakt_dist.report.runs import Collection, collect

_CAPABILITY = "knowledge_transfer_capability"


@dataclass(frozen=True)
class FoundEvaluations:
    """What records say of a network.

    Attributes:
        runs: its evaluations, one for each test.
        capabilities: knowledge-transfer capability by the evaluation's folder, in percent.
        records: SHA-256 of their records' files.
        notes: what is worth knowing of those that are left out, a sentence each.
    """

    runs: tuple[Evaluation, ...] = ()
    capabilities: Mapping[str, float] = field(default_factory=dict)
    records: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_evaluations(folders: Sequence[str | Path], weights_sha256: str) -> FoundEvaluations:
    """Looks for the evaluations of a network, by its weights.

    Args:
        folders: that hold records, at any depth.

    Raises:
        DatasetError: a folder does not exist.
    """
    found = collect(folders, needs_tests=False)
    ours: list[Evaluation] = [
        run
        for run in (*found.evaluations, *found.classified)
        if run.weights_sha256 == weights_sha256
    ]
    records = {each.folder: each for each in found.records}
    told = {str(run.folder): records[run.folder].record.metrics for run in ours}
    capabilities = {
        folder: read_if_there(metrics, _CAPABILITY, (int, float))
        for folder, metrics in told.items()
    }
    notes = list(_left_out(found, weights_sha256))
    if not ours:
        where = ", ".join(map(str, folders))
        notes.append(
            f"found no evaluation of this network below {where}, so that the card has no results; "
            "run nakt evaluate, or name in records the folders that hold its output"
        )
    return FoundEvaluations(
        runs=tuple(ours),
        capabilities={folder: each for folder, each in capabilities.items() if each is not None},
        records=tuple(records[run.folder].sha256 for run in ours),
        notes=tuple(notes),
    )


def _left_out(found: Collection, weights_sha256: str) -> Iterator[str]:
    """Says which records are of the network, or cannot be read at all, and are not on the card."""
    others = {
        each.place
        for each in found.records
        if each.record.inputs.get("weights_sha256") != weights_sha256
    }
    for each in found.left_out:
        if each.place not in others:
            yield f"{each.place} is not on the card: {each.reason}"
