"""Puts a report together from what was collected."""

from collections.abc import Sequence

from nakt_dist.report.cautions import PHANTOM_NOTICE, uses_phantoms
from nakt_dist.report.classification import classification_wing, result_tables
from nakt_dist.report.document import (
    Block,
    Bullets,
    Column,
    Document,
    Notice,
    Paragraph,
    Section,
    Table,
    tabulate,
)
from nakt_dist.report.runs import Collection, LeftOut
from nakt_dist.report.segmentation import results_table, segmentation_wing
from nakt_dist.report.studies import make_studies
from nakt_dist.report.tables import records_table, version_sets
from nakt_dist.report.telling import show_count


def make_document(collection: Collection, title: str, show_images: bool = False) -> Document:
    """Makes the whole report, of segmentation, classification, or both.

    Args:
        show_images: show images that are no phantoms.
    """
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
    tables = [results_table(collection)] if collection.evaluations else []
    return tables + result_tables(make_studies(collection.classified)[0])


def _subtitle(collection: Collection, left_out: int) -> str:
    runs = [*collection.evaluations, *collection.classified]
    networks = len({run.weights_sha256 for run in runs})
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
    versions = version_sets(collection.records)
    legend = tuple(f"Versions {letter}: {text}" for text, letter in versions.items())
    return records_table(collection.records, versions), Bullets(legend)
