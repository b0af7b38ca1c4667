"""The claims of paper A, "Network-Agnostic Knowledge Transfer for Medical Image Segmentation"."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.reproduction.claims import Claim, Printed, Row
from benchmarks.reproduction.collecting import AS_PRINTED, CALIBRATED
from benchmarks.reproduction.contrasts import (
    Estimate,
    by_key,
    capability,
    difference_of_dice,
    gain_over_best,
    pair,
)
from benchmarks.reproduction.records import Records, Run
from nakt_dist.report import paper
from nakt_dist.report.roles import Role
from nakt_dist.report.wording import grouped

CLOSE = 95.0
"""Knowledge-transfer capability above which a student counts as close to its teacher, in percent;
the paper calls 93.19 to 105.66 close or above, and excepts dermoscopy with 81.16 and 87.30."""

DERMOSCOPY, NERVE = "Skin Lesion", "Nerve Structure"
_ULTRASOUND = (paper.BAHEYA, paper.BREAST_LESION_2, "Thyroid Nodule", NERVE)
_PHOTOGRAPHS = ("bsds", "photo", "voc")


def claims_of_a(records: Records | None) -> tuple[Claim, ...]:
    """Returns every claim with the figures that there are."""
    runs = () if records is None else records.runs
    return (
        _close(records, runs),
        _exclusion(records, runs, AS_PRINTED, "exclusion"),
        _exclusion(records, runs, CALIBRATED, "calibrated"),
        _fine_tuned(records, runs),
        _weak(records, runs),
    )


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
    """Returns the paper's dataset that one of ours stands for; photographs stand for VOC."""
    if any(word in dataset.lower() for word in _PHOTOGRAPHS):
        return "PASCAL VOC2012"
    return paper.dataset_name(dataset)


def is_single(dataset: str) -> bool:
    """Says whether it is one dataset, and not several at once."""
    return " + " not in dataset


def differs(dataset: str) -> bool:
    """Says whether a transferal dataset is of another modality than the teacher's ultrasound."""
    return is_single(dataset) and counterpart(dataset) not in _ULTRASOUND


def change_of(run: Run) -> str:
    """Returns what a run varies of the main one, by the study's axis ``change``; else empty."""
    return run.axes.get("change", "")


def _close(records: Records | None, runs: Sequence[Run]) -> Claim:
    def row(key: tuple[str, str, str], found: Sequence[Run]) -> Row:
        dataset, _, change = key
        theirs = counterpart(dataset) if is_single(dataset) else None
        return Row(
            key=slug(*key),
            label=_label_student(*key),
            estimate=_capability_of(records, found, runs),
            printed=_printed_capability(theirs),
            decides=theirs != DERMOSCOPY and not change,
        )

    varied = [run for run in runs if change_of(run) and tests_breast(run) and not run.taught_by]
    shown = [*students(runs), *varied]
    groups = grouped(shown, lambda run: (run.transferal, run.teacher_start, change_of(run)))
    return Claim(
        key="close",
        paper="A",
        words="A student that sees no annotation comes close to its teacher, whatever organ and "
        "modality the transferal images show (but for dermoscopy, which the paper excepts)",
        where="section 5.1, tables 2 and 3",
        measure="Knowledge-transfer capability in %: Dice of the best student, chosen anew in each "
        "resample, by that of its teacher",
        unit="capability, %",
        threshold=CLOSE,
        rows=(
            *(row(key, found) for key, found in sorted(groups.items())),
            *(() if groups else (Row("any", "Any transferal dataset", None),)),
            Row("nerve", "Nerve ultrasound", None, _printed_capability(NERVE), decides=False,
                obstacle="no such open dataset at hand"),
        ),
    )  # fmt: skip


def _label_student(dataset: str, start: str, change: str) -> str:
    words = (
        [dataset, f"teacher from {start}"] if dataset else ["the same annotations as the teacher"]
    )
    return ", ".join([*words, *([f"changed: {change}"] if change else [])])


def _capability_of(
    records: Records | None, found: Sequence[Run], runs: Sequence[Run]
) -> Estimate | None:
    if records is None:
        return None
    by_student = grouped(found, lambda run: (run.network, run.rule))
    taught = found if found[0].taught_by else _main(runs, found[0])
    return capability(records, list(by_student.values()), teachers_of(taught, runs))


def _main(runs: Sequence[Run], like: Run) -> list[Run]:
    """Returns the students beside which one without a teacher belongs, with that of most."""
    main = [
        run for run in students(runs)
        if not change_of(run) and (run.tested_on, run.size) == (like.tested_on, like.size)
    ]  # fmt: skip
    starts = Counter(run.teacher_start for run in main).most_common(1)
    return [run for run in main if run.teacher_start == starts[0][0]]


def teachers_of(found: Iterable[Run], runs: Iterable[Run]) -> list[Run]:
    """Returns the evaluations of those who taught some students, on the same test set."""
    taught = {(digits, run.tested_on, run.size) for run in found
              for digits in run.taught_by.split(" + ")}  # fmt: skip
    return [run for run in runs if (run.weights, run.tested_on, run.size) in taught]


def _printed_capability(dataset: str | None) -> tuple[Printed, ...]:
    told = paper.find_capability("busi", dataset) if dataset else []
    return tuple((float(each.split()[0]), each.split("(")[1].rstrip(")")) for each in told)


def _exclusion(records: Records | None, runs: Sequence[Run], rule: str, key: str) -> Claim:
    def same(run: Run) -> tuple[Any, ...]:
        return (run.teacher_start, run.transferal, run.network, run.seed, run.size,
                fold_of(records, run))  # fmt: skip

    main = [run for run in students(runs) if not change_of(run)]

    def pairs(kept: Callable[[Run], bool]) -> list[tuple[Run, Run]]:
        chosen = [run for run in main if kept(run)]
        without = [run for run in chosen if not run.rule]
        return pair([run for run in chosen if run.rule == rule], without, same)

    def estimate(kept: Callable[[Run], bool]) -> Estimate | None:
        return None if records is None else difference_of_dice(records, pairs(kept))

    single = dict.fromkeys(run.transferal for run in main if is_single(run.transferal))
    of_sets = [
        Row(slug(name), name, estimate(lambda run, name=name: run.transferal == name),
            _printed_exclusion([counterpart(name)]), decides=False,
            obstacle=_starved(records, rule, lambda other, name=name: other == name))
        for name in single
    ]  # fmt: skip
    how = "at the paper's thresholds" if rule == AS_PRINTED else "with β calibrated on the teacher"
    return Claim(
        key=key,
        paper="A",
        words="Leaving out images without a salient target helps where the transferal images are "
        f"of another modality than the teacher's, {how}",
        where="section 5.1, tables 2 and 3",
        measure="Dice with less Dice without exclusion, in points, over all students",
        unit="Dice, points",
        threshold=0.0,
        rows=(
            Row("differ", "All sets of another modality", estimate(lambda r: differs(r.transferal)),
                _printed_exclusion([DERMOSCOPY, "PASCAL VOC2012"]),
                obstacle=_starved(records, rule, differs)),
            *of_sets,
        ),
    )  # fmt: skip


def _starved(records: Records | None, rule: str, concerned: Callable[[str], bool]) -> str:
    """Says why no student of some sets is planned with a rule: what it leaves of their images."""
    about = {} if records is None else records.about
    told = [
        each for each in about.get("kept", ())
        if each["rule"] == rule and concerned(each["transferal"])
    ]  # fmt: skip
    names = {each["transferal"] for each in told}
    waiting = [set(axes.values()) for axes in about.get("not_run_yet", {}).values()]
    trained = {run.transferal for run in (records.runs if records else ()) if run.rule == rule}
    if not told or trained & names or any(names & axes and "printed" in axes for axes in waiting):
        return ""
    before, after = (sum(each[name] for each in told) for name in ("before", "after"))
    return f"{after} of {before} images are left, over all folds: too few to learn from"


def _printed_exclusion(datasets: Sequence[str | None]) -> tuple[Printed, ...]:
    """Returns the paper's mean difference over networks, of tables 2 and 3."""
    found = []
    for table in ("table 2", "table 3"):
        of_table = [
            each for each in paper.all_dice()
            if each.where == table and each.transferal_dataset in datasets
        ]  # fmt: skip
        if of_table:
            sides = [[e.mean for e in of_table if e.exclusion == side] for side in (True, False)]
            found.append((float(np.mean(sides[0]) - np.mean(sides[1])), table))
    return tuple(found)


def _fine_tuned(records: Records | None, runs: Sequence[Run]) -> Claim:
    def same(run: Run) -> tuple[Any, ...]:
        return (run.tested_on, run.learnt, run.network, run.seed, run.samples, run.size,
                fold_of(records, run))  # fmt: skip

    tuned = [run for run in runs if run.role == Role.FINE_TUNED_STUDENT]
    scratch = by_key((run for run in runs if run.role == Role.FROM_SCRATCH), same)

    def estimate(is_breast: bool) -> Estimate | None:
        chosen = [run for run in tuned if tests_breast(run) == is_breast and same(run) in scratch]
        pairs = [(run, scratch[same(run)]) for run in chosen]
        return None if records is None else difference_of_dice(records, pairs)

    return Claim(
        key="tuned",
        paper="A",
        words="A student fine-tuned on few annotated images is better than the same network "
        "trained on them from scratch",
        where="section 5.2, tables 4 and 5",
        measure="Dice of fine-tuned students less that from scratch, in points, over all networks "
        "and transferal datasets",
        unit="Dice, points",
        threshold=0.0,
        rows=(
            Row("breast", "Breast ultrasound", estimate(True), _printed_tuned("table 4")),
            Row("thyroid", "Thyroid ultrasound", estimate(False), _printed_tuned("table 5")),
        ),
    )


def _printed_tuned(table: str) -> tuple[Printed, ...]:
    found = [each for each in paper.all_dice() if each.where == table]
    tuned, scratch = (
        np.mean([each.mean for each in found if each.role == role])
        for role in ("fine-tuned student", "from scratch")
    )
    return ((float(tuned - scratch), table),)


def _weak(records: Records | None, runs: Sequence[Run]) -> Claim:
    of_several = [
        run for run in runs
        if run.role == Role.STUDENT and run.teachers > 1 and tests_breast(run)
    ]  # fmt: skip
    weak = teachers_of(of_several, runs)
    each_weak = list(grouped(weak, lambda run: (run.network, run.seed)).values())
    groups = grouped(of_several, lambda run: (run.transferal, run.rule))
    return Claim(
        key="weak",
        paper="A",
        words="The student of several weak teachers is better than each of them",
        where="section 5.3, table 6",
        measure="Dice of the student less that of the best teacher, chosen anew in each resample, "
        "in points",
        unit="Dice, points",
        threshold=0.0,
        rows=(
            *(
                Row(slug(*key), ", ".join(filter(None, key)),
                    records and gain_over_best(records, found, each_weak), _printed_weak())
                for key, found in groups.items()
            ),
            *(() if groups else (Row("any", "Four weak teachers", None, _printed_weak()),)),
        ),
    )  # fmt: skip


def _printed_weak() -> tuple[Printed, ...]:
    found = []
    for test_set in (paper.BREAST_LESION_2, paper.BAHEYA):
        of_set = [e for e in paper.all_dice() if e.where == "table 6" and e.test_set == test_set]
        student = max(e.mean for e in of_set if e.role == "student of several teachers")
        best = max(e.mean for e in of_set if e.role == "one of several teachers")
        found.append((student - best, test_set))
    return tuple(found)


def fold_of(records: Records | None, run: Run) -> tuple[int, ...]:
    """Returns the images that a run was tested on: what tells folds apart, whatever their name."""
    return () if records is None else tuple(records.values[run.name].rows.tolist())


def slug(*words: str) -> str:
    """Returns a short word for names of figures."""
    text = "-".join(word for word in words if word).lower()
    return "".join(each if each.isalnum() else "-" for each in text).strip("-")
