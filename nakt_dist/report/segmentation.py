"""What a report says about segmentation (paper A)."""

from collections.abc import Iterator, Sequence

from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.lineage import TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report import paper
from nakt_dist.report.cautions import cautions
from nakt_dist.report.class_tables import class_tables
from nakt_dist.report.dice_figures import draw_dice, draw_distribution
from nakt_dist.report.document import (
    WARNING,
    Block,
    Bullets,
    Paragraph,
    Section,
    Table,
    Wing,
    present,
)
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.excluded_figures import draw_excluded
from nakt_dist.report.histograms import JudgedSet, draw_entropy, draw_target_pixels
from nakt_dist.report.learning_curves import draw_learning_curves
from nakt_dist.report.mask_tables import masks_table
from nakt_dist.report.paper_differences import differences_from_paper
from nakt_dist.report.paper_tables import (
    fine_tuning_tables,
    several_teachers_tables,
    single_teacher_tables,
)
from nakt_dist.report.pooled import pool
from nakt_dist.report.pooled_tables import pooled_differences, pooled_table
from nakt_dist.report.roles import FOLLOWING, Role
from nakt_dist.report.runs import Collection, LeftOut
from nakt_dist.report.tables import (
    capabilities,
    exclusion_table,
    main_table,
    students_of,
    transfer_of,
)
from nakt_dist.report.wording import grouped


def segmentation_wing(collection: Collection, left_out: list[LeftOut]) -> Wing:
    """Makes the parts about segmentation; what cannot be used is added to ``left_out``."""
    runs = collection.evaluations
    if not runs:
        return Wing()
    pooled = pool(collection, left_out)
    comparable = (
        Paragraph("With the paper:"),
        Bullets(differences_from_paper(collection)),
        Paragraph("Between these runs:"),
        Bullets(cautions(collection)),
    )
    return Wing(
        brief=_brief(runs),
        sections=(
            Section(
                "results",
                "Results",
                (
                    *present(pooled_table(pooled), pooled_differences(pooled)),
                    main_table(runs),
                    *class_tables(runs),
                    *present(masks_table(runs)),
                ),
            ),
            Section("comparable", "What is not comparable", comparable),
            Section("paper", "Beside the paper's tables", _beside_the_paper(collection)),
            Section("figures", "Figures", tuple(_figures(collection, left_out))),
        ),
    )


def _trainings(collection: Collection) -> list[TrainingSet]:
    """Returns every training on pseudo masks, source by source, of networks evaluated or not."""
    lineages = [run.lineage for run in collection.evaluations]
    lineages += [read_lineage(found.record.details["lineage"]) for found in collection.trainings]
    steps = [training for lineage in lineages for training in lineage.trainings]
    parts = (part for training in steps for part in training.parts)
    return list(dict.fromkeys(part for part in parts if part.teachers))


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
        *single_teacher_tables(runs),
        *fine_tuning_tables(runs),
        *several_teachers_tables(runs),
        *([counts] if counts is not None else []),
    ]


def _figures(collection: Collection, left_out: list[LeftOut]) -> Iterator[Block]:
    groups = grouped(collection.evaluations, lambda run: run.tested_on)
    for number, runs in enumerate(groups.values(), start=1):
        yield draw_dice(runs, number)
        distribution = draw_distribution(runs, number, left_out)
        yield from present(distribution, draw_excluded(runs, number))
    yield from present(draw_learning_curves(collection.trainings, left_out))
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
        judged += [] if uses else [JudgedSet(pseudo, paper.EXCLUSION)]
    return judged


def _brief(evaluations: Sequence[SegmentationRun]) -> tuple[str, ...]:
    """Returns a sentence per teacher, per transferal dataset and per effect."""
    several = len({run.tested_on for run in evaluations}) > 1
    parts = (_teachers, _transfers, _effects_of_exclusion, _fine_tuning, _following)
    return tuple(sentence for part in parts for sentence in part(evaluations, several))


def _where(run: SegmentationRun, several: bool) -> str:
    return f" on {run.tested_on.label}" if several else ""


def _warning(*runs: SegmentationRun) -> str:
    """Says of each run that may have met its test images how, behind its number."""
    seen = {run.name: run.warning for run in runs}
    return "".join(f" {WARNING} {name}: {words}." for name, words in seen.items() if words)


def _teachers(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    for run in evaluations:
        if run.role == Role.TEACHER:
            yield (
                f"Teacher “{run.name}”, {run.network.label}: Dice {run.dice} %"
                f"{_where(run, several)}.{_warning(run)}"
            )


def _transfers(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    for transfer, capability in capabilities(evaluations).items():
        best = capability.best
        how = "with exclusion" if best.excluded else "without exclusion"
        share = (
            f"{capability.percent:.1f} % of its teacher's"
            if capability.percent is not None
            else f"there is no KTC: {capability.reason}"
        )
        several_students = f"the best of {capability.students} students"
        which = "the only student" if capability.students == 1 else several_students
        yield (
            f"{transfer.dataset} as transferal dataset, its annotations unused: {which}, "
            f"“{best.name}”, {best.network.label} {how}, reaches {best.dice} %"
            f"{_where(best, several)}; {share}.{_warning(best)}"
        )


def _effects_of_exclusion(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    """Compares networks trained with and without exclusion, one run each."""
    groups = grouped(students_of(evaluations), lambda run: (transfer_of(run), run.network))
    for (transfer, network), runs in groups.items():
        if sorted(run.excluded for run in runs) == [False, True]:
            without, with_rule = sorted(runs, key=lambda run: run.excluded)
            counts = [run.lineage.learnt.samples for run in (without, with_rule)]
            change = f"{with_rule.mean - without.mean:+.1f}".replace("-", "−")
            yield (
                f"Exclusion changes the mean Dice of {network.label}, taught on "
                f"{transfer.dataset}, by {change} points{_where(without, several)} "
                f"({counts[0]} images without, {counts[1]} with)."
                f"{_warning(without, with_rule)}"
            )


def _fine_tuning(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    """Compares the best fine-tuned student with the best network that learnt from scratch."""
    roles = (Role.FINE_TUNED_STUDENT, Role.FROM_SCRATCH)

    def annotated(run: SegmentationRun) -> tuple[EvaluationSet, str, int]:
        last = run.lineage.trainings[0]
        return run.tested_on, last.fingerprint, last.samples

    groups = grouped((run for run in evaluations if run.role in roles), annotated)
    for (_, _, samples), runs in groups.items():
        sides = grouped(runs, lambda run: run.role)
        if len(sides) == 2:
            tuned, scratch = (max(sides[role], key=lambda run: run.mean) for role in roles)
            yield (
                f"Fine-tuned on {samples} annotated images, the best student reaches "
                f"{tuned.dice} % (“{tuned.name}”); trained from scratch on them, the best network "
                f"reaches {scratch.dice} % (“{scratch.name}”){_where(tuned, several)}."
                f"{_warning(tuned, scratch)}"
            )


def _following(evaluations: Sequence[SegmentationRun], several: bool) -> Iterator[str]:
    """Puts students that followed a teacher beside networks from scratch on the same images."""
    for run in evaluations:
        last, following = run.lineage.learnt, run.lineage.following
        if following is None or run.role not in FOLLOWING.values():
            continue
        alike = [
            each
            for each in evaluations
            if each.role == Role.FROM_SCRATCH
            and each.tested_on == run.tested_on
            and each.network == run.network
            and last == each.lineage.learnt
        ]
        how = following.kind.value.lower()
        sentence = (
            f"“{run.name}”, {run.network.label}, which follows the teacher "
            f"{following.teacher.label} ({how}) on {last.samples} annotated images, reaches "
            f"{run.dice} %{_where(run, several)}"
        )
        best = max(alike, key=lambda each: each.mean, default=None)
        if best is None:
            yield f"{sentence}.{_warning(run)}"
        else:
            yield (
                f"{sentence}; from scratch on them, {best.dice} % (“{best.name}”)."
                f"{_warning(run, best)}"
            )
