"""Puts a report together from what was collected."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nakt_dist.records.fields import printable
from nakt_dist.records.run_record import RunRecord
from nakt_dist.report.cautions import PHANTOM_NOTICE, uses_phantoms
from nakt_dist.report.classification import classification_wing, result_tables
from nakt_dist.report.document import (
    NOTHING,
    Block,
    Bullets,
    Cell,
    Column,
    Document,
    Notice,
    Paragraph,
    Section,
    Table,
    tabulate,
)
from nakt_dist.report.evaluations import FoundRecord
from nakt_dist.report.runs import Collection, LeftOut
from nakt_dist.report.segmentation import segmentation_wing
from nakt_dist.report.tables import main_table
from nakt_dist.report.wording import show_count
from nakt_dist.runtime.files import value_sha256

_SHOWN_DIGITS = 12


def make_document(collection: Collection, title: str, show_images: bool = False) -> Document:
    """Makes the whole report; images that are no phantoms only where ``show_images``."""
    left_out = list(collection.left_out)
    classification = classification_wing(collection, left_out, show_images)
    segmentation = segmentation_wing(collection, left_out)  # both may leave out more
    wings = (segmentation, classification)
    notice = (Notice(PHANTOM_NOTICE),) if uses_phantoms(collection) else ()
    brief = Bullets(tuple(sentence for wing in wings for sentence in wing.brief))
    sections = (
        Section("brief", "In brief", (*notice, brief)),
        *(section for wing in wings for section in wing.sections),
        Section("left-out", "Left out", (_left_out(left_out),)),
        Section("runs", "Appendix: all runs", (*classification.appendix, *_records(collection))),
    )
    return Document(title, _subtitle(collection, len(left_out)), sections)


def terminal_tables(collection: Collection) -> list[Table]:
    """Returns the main tables, for the end of the command."""
    tables = [main_table(collection.evaluations)] if collection.evaluations else []
    return tables + result_tables(collection.studies[0])


def _subtitle(collection: Collection, left_out: int) -> str:
    runs = [*collection.evaluations, *collection.classified]
    networks = len({run.original for run in runs})
    sets = len({run.tested_on for run in runs})
    return (
        f"{show_count(len(runs), 'evaluation')} of {show_count(networks, 'network')} on "
        f"{show_count(sets, 'test set')}; {show_count(len(collection.records), 'record')} read, "
        f"{left_out} left out"
    )


def _left_out(left_out: Sequence[LeftOut]) -> Block:
    if not left_out:
        return Paragraph("Nothing: every record and every set of pseudo-labels found was used.")
    columns = (Column("Where", lambda each: each.place), Column("Why", lambda each: each.reason))
    return tabulate("Found, but not used", columns, left_out)


def _records(collection: Collection) -> tuple[Block, ...]:
    versions = _version_sets(collection.records)
    legend = tuple(f"Versions {letter}: {text}" for text, letter in versions.items())
    return _records_table(collection.records, versions), Bullets(legend)


def _version_sets(records: Sequence[FoundRecord]) -> dict[str, str]:
    """Returns the distinct sets of package versions, as text, each with a letter or two."""
    texts = dict.fromkeys(_show(found.record.versions) for found in records)
    return {text: _letters(number) for number, text in enumerate(texts)}


def _letters(number: int) -> str:
    first, last = divmod(number, 26)
    return (chr(64 + first) if first else "") + chr(65 + last)


def _records_table(records: Sequence[FoundRecord], versions: Mapping[str, str]) -> Table:
    """Lists every record."""
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
        "configuration, of the weights file (training: the best weights) and of the dataset's "
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
