"""The parts of a report that are about classifiers (paper B)."""

from collections.abc import Iterator, Sequence
from functools import partial

from nakt_dist.report.attention import attention_figures, read_attention
from nakt_dist.report.auroc_curves import collect_curves, draw_auroc_curves
from nakt_dist.report.auroc_figures import draw_by_size, draw_findings, over_strongest
from nakt_dist.report.cautions import classifier_cautions, unlike_inputs
from nakt_dist.report.classification_tables import (
    evaluations_table,
    main_table,
    others_table,
    paper_table,
)
from nakt_dist.report.differences import (
    Difference,
    differences_table,
    find_differences,
    summarise_differences,
)
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
from nakt_dist.report.finding_differences import finding_differences_table
from nakt_dist.report.finding_tables import findings_table, subgroups_table
from nakt_dist.report.operating_tables import operating_tables
from nakt_dist.report.paper_differences import differences_from_paper_b
from nakt_dist.report.reliability_figures import draw_reliability
from nakt_dist.report.runs import Collection, LeftOut, read_each
from nakt_dist.report.studies import Study
from nakt_dist.report.weight_table import weight_table
from nakt_dist.report.wording import grouped

_MOST_SENTENCES = 12


def classification_wing(
    collection: Collection, left_out: list[LeftOut], show_images: bool = False
) -> Wing:
    """Makes the parts about classifiers; what cannot be used is added to ``left_out``."""
    studies, repeated = collection.studies
    left_out += repeated
    differences = [find_differences(study, left_out) for study in studies]
    taught = [study for study in studies if study.cells]  # the others hold teachers alone
    curves = collect_curves(collection.classifier_trainings, left_out, collection.learnt)
    sections = [
        Section("auroc", "Classification: results",
                (*result_tables(studies), *_reference(studies))),
        Section("teacher-gives", "What a teacher gives", tuple(_gains(studies, differences))),
        Section("curves", "Learning curves",
                (*draw_auroc_curves(curves), *present(weight_table(curves)))),
        Section("by-finding", "Findings", tuple(_findings(studies, differences))),
        Section("operating", "Operating points", tuple(_operating(studies))),
        Section("groups", "Groups of patients", present(*map(subgroups_table, taught))),
        Section("attention", "Where the networks look",
                tuple(_attention(collection, left_out, show_images))),
        Section("auroc-comparable", "What is not comparable: classification",
                _what_is_not_comparable(studies, collection)),
    ]  # fmt: skip
    return Wing(
        brief=tuple(_brief(studies, differences)),
        sections=tuple(section for section in sections if section.blocks),
        appendix=(evaluations_table(studies),) if studies else (),
    )


def result_tables(studies: Sequence[Study]) -> list[Table]:
    """Returns a table in the shape of paper B's table 2 for each test set, and the teachers'."""
    tables = [main_table(study) for study in studies if study.cells]
    others = others_table(studies)
    return tables if others is None else [*tables, others]


def _reference(studies: Sequence[Study]) -> tuple[Block, ...]:
    """The paper's own table beside procedural images, apart from ours."""
    if not any(study.tested_on.phantom for study in studies if study.cells):
        return ()
    return (paper_table(real=any(not study.tested_on.phantom for study in studies)),)


def _brief(studies: Sequence[Study], differences: Sequence[Sequence[Difference]]) -> Iterator[str]:
    """Says each comparison below the name of its test set; warnings are never cut off."""
    told = [
        (study, sentence)
        for study, found in zip(studies, differences, strict=True)
        for sentence in summarise_differences(study, over_strongest(study, found))
    ]
    plain = [each for each in told if WARNING not in each[1]]
    cut = set(map(id, plain[max(0, _MOST_SENTENCES - (len(told) - len(plain))) :]))
    shown = grouped((each for each in told if id(each) not in cut), lambda each: id(each[0]))
    for sentences in shown.values():
        study = sentences[0][0]
        run = study.runs[0]
        yield (
            f"Tested on {study.label}, {run.images} images of {run.result.patients} patients, "
            "mean AUROC:"
        )
        yield from (sentence for _, sentence in sentences)
    if cut:
        yield f"{len(cut)} more comparisons stand in the tables below."
    if not told:
        yield from _best(studies)


def _best(studies: Sequence[Study]) -> Iterator[str]:
    """Names the best network of each test set, where nothing is compared."""
    for study in studies:
        if study.runs:
            best = max(study.runs, key=lambda run: run.mean)
            yield (
                f"“{best.name}”, {best.network.label}, reaches a mean AUROC of {best.mean:.2f} % "
                f"over {best.result.counted} findings on {study.label}."
                f"{''.join(f' {WARNING} It {words}.' for words in best.warnings)}"
            )


def _gains(
    studies: Sequence[Study], differences: Sequence[Sequence[Difference]]
) -> Iterator[Block]:
    for number, (study, found) in enumerate(zip(studies, differences, strict=True), start=1):
        figure = draw_by_size(study, found, number) if found else None
        yield from present(figure, differences_table(study, found))


def _findings(
    studies: Sequence[Study], differences: Sequence[Sequence[Difference]]
) -> Iterator[Block]:
    taught = [each for each in zip(studies, differences, strict=True) if each[0].cells]
    for number, (study, found) in enumerate(taught, start=1):
        by_finding = finding_differences_table(study, found)
        yield from present(draw_findings(study, number), findings_table(study), by_finding)


def _operating(studies: Sequence[Study]) -> Iterator[Block]:
    for number, study in enumerate(studies, start=1):
        yield from operating_tables(study)
        yield from present(draw_reliability(study, number))


def _attention(
    collection: Collection, left_out: list[LeftOut], show_images: bool
) -> Iterator[Block]:
    read = partial(read_attention, known=collection.learnt)
    comparisons = read_each(collection.attention, read, left_out)
    yield from attention_figures(comparisons, left_out, show_images)


def _what_is_not_comparable(studies: Sequence[Study], collection: Collection) -> tuple[Block, ...]:
    if not studies:
        return ()
    return (
        Paragraph("With the paper:"),
        Bullets(differences_from_paper_b(studies)),
        Paragraph("Between these runs:"),
        Bullets(
            (
                *classifier_cautions(studies, collection.classifier_trainings),
                *unlike_inputs(collection.records, classifiers=True),
            )
        ),
    )
