"""Which evaluations of study A are whose, and which belong together."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.reproduction.contrasts import pair
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import rows_of
from nakt_dist.report import paper
from nakt_dist.report.roles import Role

DERMOSCOPY, NERVE = "Skin Lesion", "Nerve Structure"
TOGETHER = "all sets together"
_ULTRASOUND = (paper.BAHEYA, paper.BREAST_LESION_2, "Thyroid Nodule", NERVE)
_PHOTOGRAPHS = ("bsds", "photo", "voc")


def students(runs: Iterable[Run]) -> list[Run]:
    """Returns students of one teacher that learnt pseudo masks alone, tested on its task."""
    return [
        run for run in runs
        if run.role == Role.STUDENT and run.teachers == 1 and tests_breast(run)
    ]  # fmt: skip


def tests_breast(run: Run) -> bool:
    """Says whether it was tested on breast ultrasound."""
    return paper.dataset_name(run.tested_on) in (paper.BAHEYA, paper.BREAST_LESION_2)


def counterpart(dataset: str) -> str | None:
    """Returns the paper's dataset that one of ours stands for; photographs stand for VOC.

    None of several at once, or one that the paper has nothing like.
    """
    if not is_single(dataset):
        return None
    if any(word in dataset.lower() for word in _PHOTOGRAPHS):
        return "PASCAL VOC2012"
    return paper.dataset_name(dataset)


def is_single(dataset: str) -> bool:
    """Says whether it is one dataset, and not several at once."""
    return dataset != TOGETHER and " + " not in dataset


def differs(dataset: str) -> bool:
    """Says whether a transferal dataset is of another modality than the teacher's ultrasound."""
    return is_single(dataset) and counterpart(dataset) not in _ULTRASOUND


def change_of(run: Run) -> str:
    """Returns what a run varies of the main one, by the study's axis ``change``; else empty."""
    return run.axes.get("change", "")


def name_of(transferal: str) -> str:
    """Names the transferal dataset, or all of them at once."""
    return transferal if is_single(transferal) else TOGETHER


def planned_sets(records: Records | None) -> tuple[str, ...]:
    """Returns the transferal datasets of the students with or without exclusion that are to come.

    The study calls a dataset by its name, and gives no name to all of them at once.
    """
    waiting = {} if records is None else records.about["not_run_yet"]
    axes = [each for each in waiting.values() if "rule" in each]
    return tuple(dict.fromkeys(each.get("set", TOGETHER) for each in axes))


def teachers_beside(records: Records, found: Sequence[Run], runs: Sequence[Run]) -> list[Run]:
    """Returns the teachers of students; of those without, the main students' in their folds."""
    if found[0].taught_by:
        return teachers_of(found, runs)
    folds = {rows_of(records, run) for run in found}
    main = [
        run for run in students(runs)
        if not change_of(run) and run.collection == found[0].collection
        and (run.tested_on, run.size) == (found[0].tested_on, found[0].size)
        and rows_of(records, run) in folds
    ]  # fmt: skip
    starts = Counter(run.teacher_start for run in main).most_common(1)
    return teachers_of([run for run in main if run.teacher_start == starts[0][0]], runs)


def teachers_of(found: Iterable[Run], runs: Iterable[Run]) -> list[Run]:
    """Returns the evaluations of those who taught some students, on the same test set."""
    taught = {(run.collection, digits, run.tested_on, run.size) for run in found
              for digits in run.taught_by.split(" + ")}  # fmt: skip
    return [run for run in runs if (run.collection, run.weights, run.tested_on, run.size) in taught]


def pairs_of_exclusion(
    records: Records | None, runs: Sequence[Run], rule: str
) -> list[tuple[Run, Run]]:
    """Pairs students that learnt what a rule leaves with those that learnt all images."""

    def same(run: Run) -> tuple[Any, ...]:
        return (run.teacher_start, run.transferal, run.network, run.seed, run.size,
                fold_of(records, run))  # fmt: skip

    main = [run for run in students(runs) if not change_of(run)]
    chosen = [run for run in main if run.rule == rule]
    return pair(chosen, [run for run in main if not run.rule], same)


def fold_of(records: Records | None, run: Run) -> tuple[int, ...]:
    """Returns the images that a run was tested on: what tells folds apart, whatever their name."""
    return () if records is None else rows_of(records, run)


def slug(*words: str) -> str:
    """Returns a short word for names of figures."""
    text = "-".join(word for word in words if word).lower()
    return "".join(each if each.isalnum() else "-" for each in text).strip("-")
