"""What a report says about segmentation (paper A)."""

from collections.abc import Iterator

from nakt_dist.records.lineage import TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.brief import summarise
from nakt_dist.report.capability import capabilities
from nakt_dist.report.cautions import cautions
from nakt_dist.report.dice_figures import draw_dice, draw_distribution
from nakt_dist.report.document import Block, Bullets, Figure, Paragraph, Section, Table, Wing
from nakt_dist.report.histograms import JudgedSet, draw_entropy, draw_target_pixels
from nakt_dist.report.learning_curves import draw_learning_curves
from nakt_dist.report.paper_differences import differences_from_paper
from nakt_dist.report.paper_tables import (
    fine_tuning_tables,
    several_teachers_tables,
    single_teacher_tables,
)
from nakt_dist.report.runs import Collection, LeftOut
from nakt_dist.report.tables import exclusion_table, main_table
from nakt_dist.report.telling import grouped
from nakt_dist.transfer.exclusion import ExclusionRule


def segmentation_wing(collection: Collection, left_out: list[LeftOut]) -> Wing:
    """Makes the parts about segmentation; what cannot be used is added to ``left_out``."""
    runs = collection.evaluations
    if not runs:
        return Wing()
    comparable = (
        Paragraph("With the paper:"),
        Bullets(differences_from_paper(collection)),
        Paragraph("Between these runs:"),
        Bullets(cautions(collection)),
    )
    return Wing(
        brief=summarise(runs, capabilities(runs)),
        sections=(
            Section("results", "Results", (results_table(collection),)),
            Section("comparable", "What is not comparable", comparable),
            Section("paper", "Beside the paper's tables", _beside_the_paper(collection)),
            Section("figures", "Figures", tuple(_figures(collection, left_out))),
        ),
    )


def results_table(collection: Collection) -> Table:
    """Returns the main table: teacher, students, from scratch, fine-tuned, and their KTC."""
    runs = collection.evaluations
    return main_table(runs, capabilities(runs))


def _trainings(collection: Collection) -> list[TrainingSet]:
    """Returns every training on pseudo masks, of networks evaluated or not."""
    lineages = [run.lineage for run in collection.evaluations]
    lineages += [read_lineage(found.record.details["lineage"]) for found in collection.trainings]
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
    groups = grouped(collection.evaluations, lambda run: run.tested_on)
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
    trainings = _trainings(collection)
    judged = []
    for pseudo in collection.pseudo_sets:
        uses = dict.fromkeys(
            (each.exclusion, each.splits)
            for each in trainings
            if each.exclusion and each.pseudo_labels_fingerprint == pseudo.manifest.fingerprint
        )
        judged += [JudgedSet(pseudo, rule, splits) for rule, splits in uses if rule]
        judged += [] if uses else [JudgedSet(pseudo, ExclusionRule())]
    return judged
