"""The evaluations of a network that is handed on, found among records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nakt_dist.exporting.places import without_places
from nakt_dist.models.onnx_metadata import OnnxMetadata
from nakt_dist.records.fields import read_if_there
from nakt_dist.records.run_record import RunRecord
from nakt_dist.records.seen_images import input_differences
from nakt_dist.report.evaluations import Evaluation
from nakt_dist.report.runs import Collection, collect
from nakt_dist.runtime.files import differing_fields

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


def find_evaluations(folders: Sequence[str | Path], told: OnnxMetadata) -> FoundEvaluations:
    """Looks for the evaluations of a network, by its weights and by what it sees of images.

    Args:
        folders: that hold records, at any depth.
        told: what is said of the network; with the input in full with which it is handed on.

    Raises:
        DatasetError: a folder does not exist.
    """
    found, weights_sha256 = collect(folders, needs_tests=False), told.weights_sha256
    records = {each.folder: each for each in found.records}
    ours: list[Evaluation] = []
    notes = list(_left_out(found, weights_sha256))
    for run in (*found.evaluations, *found.classified):
        if run.weights_sha256 != weights_sha256:
            continue
        record = records[run.folder].record
        if differs := _built_otherwise(record, told):
            notes.append(
                f"{run.place} is not on the card: there the network was another ({differs})"
            )
        elif other := _seen_otherwise(record, run, told):
            notes.append(f"{run.place} is not on the card: there the network saw {other}")
        else:
            ours.append(run)
    metrics = {str(run.folder): records[run.folder].record.metrics for run in ours}
    capabilities = {
        folder: read_if_there(each, _CAPABILITY, (int, float)) for folder, each in metrics.items()
    }
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


def _built_otherwise(record: RunRecord, told: OnnxMetadata) -> str:
    """Says in what a network of these weights was another; records say it where weights do not."""
    model = without_places(record.inputs.get("model"))
    known = isinstance(model, Mapping)
    return "; ".join(differing_fields(model, asdict(told.model), "model.")) if known else ""


def _seen_otherwise(record: RunRecord, run: Evaluation, told: OnnxMetadata) -> str:
    """Says in what the input of an evaluation is not that of the export; empty where it is."""
    stored = record.inputs.get("preprocessing")  # earlier records do not say it
    size = run.tested_on.height, run.tested_on.width
    differences = input_differences(vars(told.preprocessing), stored, size) if stored else []
    return ", ".join(
        f"{name} {then}, and it is exported with {now}" for name, now, then in differences
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
