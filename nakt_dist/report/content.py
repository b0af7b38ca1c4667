"""Puts a report together from what was collected."""

from collections.abc import Iterator, Sequence

from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.brief import summarise
from nakt_dist.report.capability import capabilities
from nakt_dist.report.classification_content import make_classifier_parts, result_tables
from nakt_dist.report.comparability import (
    PHANTOM_NOTICE,
    cautions,
    differences_from_paper,
    uses_phantoms,
)
from nakt_dist.report.dice_figures import draw_dice, draw_distribution
from nakt_dist.report.document import (
    Block,
    Bullets,
    Cell,
    Document,
    Figure,
    Notice,
    Paragraph,
    Section,
    Table,
)
from nakt_dist.report.evaluations import EvaluatedRun
from nakt_dist.report.histograms import JudgedSet, draw_entropy, draw_target_pixels
from nakt_dist.report.learning_curves import draw_learning_curves
from nakt_dist.report.paper_tables import (
    fine_tuning_tables,
    several_teachers_tables,
    single_teacher_tables,
)
from nakt_dist.report.runs import Collection, LeftOut
from nakt_dist.report.studies import make_studies
from nakt_dist.report.tables import exclusion_table, main_table, records_table, version_sets
from nakt_dist.transfer.exclusion import ExclusionRule


def make_document(collection: Collection, title: str, show_images: bool = False) -> Document:
    """Makes the whole report.

    Args:
        collection: what was found: segmentation, classification, or both.
        title: the heading.
        show_images: show images that are no phantoms.
    """
    left_out = list(collection.left_out)
    parts = make_classifier_parts(collection, left_out, show_images)  # both may leave out more
    about_segmentation = _segmentation(collection, left_out)
    opening: list[Block] = [Notice(PHANTOM_NOTICE)] if uses_phantoms(collection) else []
    runs = collection.evaluations
    opening.append(Bullets((*summarise(runs, capabilities(runs)), *parts.brief)))
    sections = [
        Section("brief", "In brief", tuple(opening)),
        *about_segmentation,
        *parts.sections,
        Section("left-out", "Left out", (_left_out(left_out),)),
        Section("runs", "Appendix: all runs", _appendix(collection, parts.appendix)),
    ]
    return Document(title, _subtitle(collection, len(left_out)), tuple(sections))


def terminal_tables(collection: Collection) -> list[Table]:
    """Returns the main tables, for the end of the command."""
    tables = [results_table(collection)] if collection.evaluations else []
    return tables + result_tables(make_studies(collection.classified)[0])


def _segmentation(collection: Collection, left_out: list[LeftOut]) -> list[Section]:
    if not collection.evaluations:
        return []
    figures = tuple(_figures(collection, left_out))
    return [
        Section("results", "Results", (results_table(collection),)),
        Section("comparable", "What is not comparable", _what_is_not_comparable(collection)),
        Section("paper", "Beside the paper's tables", _beside_the_paper(collection)),
        Section("figures", "Figures", figures),
    ]


def results_table(collection: Collection) -> Table:
    """Returns the main table: teacher, students, from scratch, fine-tuned, and their KTC."""
    runs = collection.evaluations
    return main_table(runs, capabilities(runs))


def _subtitle(collection: Collection, left_out: int) -> str:
    runs = [*collection.evaluations, *collection.classified]
    networks = len({run.weights_sha256 for run in runs})
    sets = len({run.tested_on for run in runs})
    return (
        f"{_number(len(runs), 'evaluation')} of {_number(networks, 'network')} on "
        f"{_number(sets, 'test set')}; {_number(len(collection.records), 'record')} read, "
        f"{left_out} left out"
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _what_is_not_comparable(collection: Collection) -> tuple[Block, ...]:
    return (
        Paragraph("With the paper:"),
        Bullets(differences_from_paper(collection)),
        Paragraph("Between these runs:"),
        Bullets(cautions(collection)),
    )


def _trainings(collection: Collection) -> list[TrainingSet]:
    """Returns every training on pseudo masks, of networks evaluated or not."""
    lineages = [run.lineage for run in collection.evaluations]
    lineages += (read_lineage(each.record.details["lineage"]) for each in collection.trainings)
    steps = [training for lineage in lineages for training in lineage.trainings]
    return list(dict.fromkeys(training for training in steps if training.teachers))


def _beside_the_paper(collection: Collection) -> tuple[Block, ...]:
    tables = tables_beside_the_paper(collection)
    if not tables:
        return (Paragraph("None of these runs belongs into one of the paper's tables."),)
    reading = (
        "Each cell: our mean ± standard deviation in percent, its 95 % bootstrap interval, the "
        "number of test images, and what the paper prints where it has such a network and dataset."
    )
    return (Paragraph(reading), *tables)


def tables_beside_the_paper(collection: Collection) -> list[Table]:
    """Returns the tables in the shape of the paper's tables 2 to 7 that these runs fill."""
    runs = collection.evaluations
    counts = exclusion_table(_trainings(collection), collection.pseudo_sets)
    return [
        *single_teacher_tables(runs, capabilities(runs)),
        *fine_tuning_tables(runs),
        *several_teachers_tables(runs),
        *([counts] if counts is not None else []),
    ]


def _figures(collection: Collection, left_out: list[LeftOut]) -> Iterator[Figure]:
    groups: dict[EvaluationSet, list[EvaluatedRun]] = {}
    for run in collection.evaluations:
        groups.setdefault(run.tested_on, []).append(run)
    for number, runs in enumerate(groups.values(), start=1):
        yield draw_dice(runs, number)
        distribution = draw_distribution(runs, number, left_out)
        if distribution is not None:
            yield distribution
    curves = draw_learning_curves(collection.trainings, left_out)
    if curves is not None:
        yield curves
    judged = _judged_sets(collection)
    if judged:
        yield draw_entropy(judged)
        yield draw_target_pixels(judged)


def _judged_sets(collection: Collection) -> list[JudgedSet]:
    """Pairs each set of pseudo-labels with the rules used on it, or with the paper's."""
    trainings = [training for training in _trainings(collection) if training.exclusion]
    judged = []
    for pseudo in collection.pseudo_sets:
        fingerprint = pseudo.manifest.fingerprint
        uses = dict.fromkeys(
            (training.exclusion, training.splits)
            for training in trainings
            if training.pseudo_labels_fingerprint == fingerprint
        )
        judged += [JudgedSet(pseudo, *use) for use in uses or [(ExclusionRule(), None)]]
    return judged


def _left_out(left_out: Sequence[LeftOut]) -> Block:
    if not left_out:
        return Paragraph("Nothing: every record and every set of pseudo-labels found was used.")
    rows = tuple((Cell(each.place), Cell(each.reason)) for each in left_out)
    return Table("Found, but not used", ("Where", "Why"), rows)


def _appendix(collection: Collection, classified: Table | None) -> tuple[Block, ...]:
    versions = version_sets(collection.records)
    legend = tuple(f"Versions {letter}: {text}" for text, letter in versions.items())
    table = records_table(collection.records, versions)
    return (*([classified] if classified is not None else []), table, Bullets(legend))
