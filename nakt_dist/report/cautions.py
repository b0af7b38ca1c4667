"""Says plainly what may not be compared between the runs themselves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nakt_dist.records.evaluation_set import EvaluationSet, describe_splits
from nakt_dist.records.exposure import Exposure, warn, warn_of_teacher
from nakt_dist.records.fields import printable
from nakt_dist.records.lineage import Method
from nakt_dist.report.document import WARNING
from nakt_dist.report.evaluations import (
    Evaluation,
    SegmentationRun,
    is_classifier_test,
)
from nakt_dist.report.paper_differences import recipe_numbers
from nakt_dist.report.roles import Role
from nakt_dist.report.runs import Collection, FoundRecord
from nakt_dist.report.studies import Repeats, Setting, Study
from nakt_dist.report.trained import Settings, differing, settings_of
from nakt_dist.report.wording import describe_packing, describe_policy, grouped, list_some
from nakt_dist.runtime.files import differing_fields, value_sha256
from nakt_dist.signals.kind import TRANSFER_LEARNING

PHANTOM_NOTICE = (
    "Images marked (phantom) are drawn by a program. Their numbers show that the method and the "
    "software work; they say nothing about patients, and nothing about any hospital's images."
)
_PREPROCESSING = "preprocessing"
# What lineages, and so the tables, say of the images.
_OF_A_FOLD = tuple(
    f"{part}.{name}"
    for part in ("data", "validation")
    for name in ("pseudo_labels", "exclusion", "splits", "count", "subset_seed")
)


def uses_phantoms(collection: Collection) -> bool:
    """Says whether any image behind the report is procedural."""
    runs = [*collection.evaluations, *collection.classified]
    sets = (pseudo.manifest.phantom for pseudo in collection.pseudo_sets)
    return any(run.uses_phantoms for run in runs) or any(sets)


def cautions(collection: Collection) -> tuple[str, ...]:
    """Returns what a reader must know before comparing these runs with each other."""
    runs = collection.evaluations
    tested = _tested(runs)
    sentences = [*meetings(runs), *not_known(runs)]
    sentences += _several_tests(map(_identify, tested), "test sets or ways of scoring")
    sentences += unlike_inputs(collection.records)
    lineages = [(found, found.record.details["lineage"]) for found in collection.trainings]
    chosen = {found.record.name for found, told in lineages if told.get("validated_on") is not None}
    if chosen:
        sentences.append(
            "These networks are their best epoch's by Dice on a validation set: "
            f"{', '.join(sorted(chosen))}. Validation and test images should be apart."
        )
    taught = [found for found, told in lineages if "teachers" in told["trained_on"]]
    sentences += _trained_differently(runs, settings_of(collection.trainings))
    exclusion = {run.excluded for run in runs if run.role == Role.STUDENT}
    if len(exclusion) == 2 and recipe_numbers(taught, "epochs"):
        sentences.append(
            "Training is counted in epochs, as in the paper: students with exclusion took fewer "
            "steps than those without, which is part of any difference between them."
        )
    if any(run.images < 30 for run in runs):
        sentences.append(
            "Some test sets hold fewer than 30 images; their intervals are wide and rough."
        )
    sentences.append(
        "Intervals express the choice of test images only, not of the seed, the training images "
        "or the teacher: a difference smaller than them may be chance."
    )
    return tuple(sentences)


def meetings(runs: Sequence[SegmentationRun]) -> Iterator[str]:
    """Says of each run that may have met its test images while it learnt how."""
    several = len(_tested(runs)) > 1
    for run in runs:
        if run.warnings:
            where = f" on {run.tested_on.label}" if several else ""
            yield f"{run.name}{where}: {run.warning}."


def not_known(runs: Iterable[Evaluation]) -> Iterator[str]:
    """Names the runs of which neither lineage nor record tells whether they met test images."""
    unclear = []
    for run in runs:
        unknown = [role for role, each in run.exposure.items() if each.exposure is Exposure.UNKNOWN]
        if unknown:
            unclear.append(f"{run.name} ({', '.join(unknown)})")
    if unclear:
        yield (
            "Whether these met images of their test sets, themselves or through parents or "
            f"teachers, is not known: {'; '.join(dict.fromkeys(unclear))}."
        )


def _tested(runs: Iterable[SegmentationRun]) -> list[EvaluationSet]:
    return list(dict.fromkeys(run.tested_on for run in runs))


def _several_tests(names: Iterable[str], what: str) -> Iterator[str]:
    names = list(names)
    if len(names) > 1:
        yield (
            f"There are {len(names)} {what}. Numbers compare within one of them only: "
            f"{'; '.join(names)}."
        )


def _identify(tested_on: EvaluationSet) -> str:
    return (
        f"{tested_on.label}, {tested_on.height} × {tested_on.width}, packing "
        f"{tested_on.fingerprint[:8]}, threshold {tested_on.threshold:g}, both empty "
        f"{tested_on.both_empty}"
    )


def _trained_differently(runs: Sequence[SegmentationRun], settings: Settings) -> Iterator[str]:
    """Says in what else networks differ that the page holds against each other.

    That is students of one transferal set by their exclusion, and fine-tuned networks with those
    from scratch.
    """

    def compared(run: SegmentationRun) -> tuple[Any, ...]:
        learnt = run.lineage.learnt
        return run.role == Role.STUDENT, learnt.teachers, learnt.fingerprint, run.network

    roles = (Role.STUDENT, Role.FROM_SCRATCH, Role.FINE_TUNED_STUDENT, Role.FINE_TUNED_TEACHER)
    groups = grouped((run for run in runs if run.role in roles), compared)
    for (taught, _, _, network), alike in groups.items():
        names = [name for name in differing(alike, settings) if not name.startswith(_OF_A_FOLD)]
        if names:
            learnt = alike[0].lineage.learnt
            what = "Students of" if taught else "Networks from scratch, and fine-tuned, on"
            yield (
                f"{what} {learnt.label}, {network.label}, were trained differently: "
                f"{list_some(names)}."
            )


def classifier_cautions(
    studies: Sequence[Study], trainings: Sequence[FoundRecord]
) -> tuple[str, ...]:
    """Returns what a reader must know before comparing classifiers with each other."""
    settings = settings_of(trainings)
    sentences = [*_study_meetings(studies), *_teachers_met(studies), *_without_validation(studies)]
    sentences += not_known(run for study in studies for run in study.runs)
    sentences += [
        f"On {study.label} {words}."
        for study in studies
        for run in study.runs
        for words in run.result.cautions
    ]
    sentences += _untold(studies, settings)
    sentences += _several_tests(map(_identify_study, studies), "test sets")
    for study in studies:
        for setting, cell in study.cells.items():
            sentences += _unlike(study, setting, cell, settings)
    if any(study.cells for study in studies):
        sentences += [
            "Intervals over seeds express the randomness of training, those over "
            "patients the choice of test images; neither expresses the choice of the training "
            "images or of the teacher.",
            "A student that follows a teacher profits from all images that the teacher learnt "
            "from; transfer learning does so only where its first weights come from them.",
        ]
    return tuple(dict.fromkeys(sentences))


def _study_meetings(studies: Iterable[Study]) -> Iterator[str]:
    for study in studies:
        for run in study.runs:
            own = {role: each for role, each in run.exposure.items() if role != "teacher"}
            for words in warn(own, "AUROC"):
                yield f"{WARNING} {run.name} on {study.label}: {words}."


def _teachers_met(studies: Sequence[Study]) -> Iterator[str]:
    """Says of each teacher whether it met the images its students are tested on."""
    for study in studies:
        unclear = set()
        for run in study.runs:
            teacher = run.lineage.method.teacher
            verdict = run.exposure["teacher"]
            if verdict.exposure is not Exposure.APART:
                unclear.add(teacher)
            if teacher is not None and verdict.exposure is not Exposure.SAME_PICTURES:
                subject = f"The teacher {teacher.label} of students tested on {study.label}"
                yield from (
                    f"{WARNING} {subject} {each}." for each in warn_of_teacher(verdict, "AUROC")
                )
            else:
                for words in warn({"teacher": verdict}, "AUROC"):
                    yield f"{WARNING} {run.name} on {study.label}: {words}."
        for teacher in dict.fromkeys(method.teacher for method in study.methods if method.teacher):
            learnt = teacher.learnt
            if not learnt.fingerprint and learnt.dataset == study.tested_on.dataset:
                yield (
                    f"The teacher {teacher.label} learnt from {learnt.dataset}, as the test set "
                    "is called; whether from its test patients, no record here says."
                )
            elif teacher not in unclear and learnt.fingerprint == study.tested_on.fingerprint:
                yield (
                    f"The teacher {teacher.label} learnt from {describe_splits(learnt.splits)} "
                    f"of the packing tested here, and met no image of {study.label}."
                )


def _without_validation(studies: Sequence[Study]) -> Iterator[str]:
    runs = [run for study in studies for run in study.runs if run.lineage.is_whole]
    last = sorted({run.name for run in runs if run.lineage.validated_on is None})
    if last:
        yield (
            f"No validation set chose the epoch of {list_some(last)}: these are the last epoch's "
            "weights."
        )


def _untold(studies: Sequence[Study], settings: Settings) -> Iterator[str]:
    """Names the runs that are held against others, and whose trainings no record here tells of."""
    compared = [
        run
        for study in studies
        for cell in study.cells.values()
        if sum(len(repeats.runs) for repeats in cell.values()) > 1
        for repeats in cell.values()
        for run in repeats.runs
    ]
    untold = sorted({run.name for run in compared if run.original not in settings})
    if untold:
        yield (
            f"The records of the trainings of {list_some(untold)} are not here: whether they "
            "differ from those beside them in more than the seed and the method is not known."
        )


def _identify_study(study: Study) -> str:
    tested_on = study.tested_on
    facts = (
        f"{len(tested_on.findings)} findings",
        *describe_policy(tested_on.policy).values(),
        f"{tested_on.height} × {tested_on.width} pixels",
        describe_packing(tested_on.fingerprint),
    )
    return ", ".join([tested_on.label, *facts])


def _unlike(
    study: Study,
    setting: Setting,
    cell: Mapping[Method, Repeats],
    settings: Settings,
) -> Iterator[str]:
    """Says in what else runs of a setting differ: first weights, repetitions, and methods.

    Methods are held against transfer learning of all layers.
    """
    label = study.label_of(setting)
    runs = [run for repeats in cell.values() for run in repeats.runs]
    weights = {run.lineage.start.weights_sha256 for run in runs} - {None}
    if len(weights) > 1:
        yield (
            f"{label}: the first weights called {setting.start.label} are {len(weights)} "
            "different files."
        )
    for method, repeats in cell.items():
        names = differing(repeats.runs, settings)
        if names:
            yield (
                f"{label}, {study.name(method)}: runs counted as repetitions differ in more than "
                f"the seed: {list_some(names)}."
            )
    first = next(iter(cell))
    for method in cell if first.kind == TRANSFER_LEARNING else ():
        names = differing([cell[first].runs[0], cell[method].runs[0]], settings)
        if names:
            yield (
                f"{label}: {study.name(method)} and {study.name(first)} were also trained "
                f"differently: {list_some(names)}."
            )


def unlike_inputs(records: Sequence[FoundRecord], classifiers: bool = False) -> Iterator[str]:
    """Says which evaluations differ in what the same network saw of the same test images."""
    alike: dict[str, FoundRecord] = {}
    for found in records:
        record = found.record
        if record.stage != "evaluate" or is_classifier_test(record) != classifiers:
            continue
        others = {name: value for name, value in record.inputs.items() if name != _PREPROCESSING}
        first = alike.setdefault(value_sha256(others), found).record
        ours, theirs = (each.inputs.get(_PREPROCESSING) for each in (first, record))
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours != theirs:
            how = [
                f"{name} {ours.get(name)} and {theirs.get(name)}"
                for name in (each.split(":")[0] for each in differing_fields(ours, theirs))
            ]
            yield printable(
                f"{first.name} and {record.name} are one network on one test set with other "
                f"{_PREPROCESSING}: {', '.join(how)}."
            )
