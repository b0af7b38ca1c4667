"""The claims of paper A, "Network-Agnostic Knowledge Transfer for Medical Image Segmentation"."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.reproduction.claims import Claim, Printed, Row
from benchmarks.reproduction.collecting import AS_PRINTED, CALIBRATED, EXPECTED_DICE
from benchmarks.reproduction.contrasts import (
    Estimate,
    by_key,
    capability,
    difference_of_dice,
    gain_over_best,
    of_one_collection,
    whole_pairs,
)
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import Pairs
from benchmarks.reproduction.runs_a import (
    DERMOSCOPY,
    NERVE,
    TOGETHER,
    change_of,
    counterpart,
    differs,
    fold_of,
    name_of,
    pairs_of_exclusion,
    planned_sets,
    slug,
    students,
    teachers_beside,
    teachers_of,
    tests_breast,
)
from nakt_dist.report import paper
from nakt_dist.report.roles import Role
from nakt_dist.report.wording import grouped, show_count

CLOSE = 95.0
"""Knowledge-transfer capability above which a student counts as close to its teacher, in percent;
the paper calls 93.19 to 105.66 close or above, and excepts dermoscopy with 81.16 and 87.30."""


def claims_of_a(records: Records | None) -> tuple[Claim, ...]:
    """Returns every claim with the figures that there are."""
    runs = () if records is None else records.runs
    return (
        _close(records, runs),
        _exclusion(records, runs, AS_PRINTED, "exclusion"),
        _exclusion(records, runs, CALIBRATED, "calibrated"),
        _exclusion(records, runs, EXPECTED_DICE, "expected-dice"),
        _fine_tuned(records, runs),
        _weak(records, runs),
    )


def _close(records: Records | None, runs: Sequence[Run]) -> Claim:
    def row(key: tuple[str, str, str], found: Sequence[Run]) -> Row:
        dataset, _, change = key
        theirs = counterpart(dataset)
        return Row(
            key=slug(*key),
            label=_label_student(*key),
            estimate=_capability_of(records, found, runs),
            printed=_printed_capability(theirs),
            decides=theirs != DERMOSCOPY and not change,
        )

    varied = [run for run in runs if change_of(run) and tests_breast(run) and not run.taught_by]
    shown = [*students(runs), *varied]
    groups: dict[tuple[str, str, str], list[Run]] = grouped(
        shown, lambda run: (name_of(run.transferal), run.teacher_start, change_of(run))
    )
    main = Counter(run.teacher_start for run in students(runs)).most_common(1)
    for name in planned_sets(records):
        groups.setdefault((name, main[0][0] if main else "imagenet", ""), [])
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
    if records is None or not found:
        return None
    one = of_one_collection(found)
    by_student = grouped(one, lambda run: (run.network, run.rule))
    return capability(records, list(by_student.values()), teachers_beside(records, one, runs))


def _printed_capability(dataset: str | None) -> tuple[Printed, ...]:
    told = paper.find_capability("busi", dataset) if dataset else []
    return tuple((float(each.split()[0]), each.split("(")[1].rstrip(")")) for each in told)


def _exclusion(records: Records | None, runs: Sequence[Run], rule: str, key: str) -> Claim:
    def row(name: str, pairs: Pairs) -> Row:
        return Row(
            key=slug(name),
            label=name,
            estimate=None if records is None else difference_of_dice(records, pairs),
            printed=_printed_exclusion([counterpart(name)]),
            decides=False,
            obstacle=_starved(records, rule, lambda other: other == name),
        )

    pairs = pairs_of_exclusion(records, runs, rule)
    of_sets = grouped(pairs, lambda each: name_of(each[0].transferal))
    known = [name_of(run.transferal) for run in students(runs) if not change_of(run)]
    names = [name for name in dict.fromkeys(known) if name in of_sets or name != TOGETHER]
    differing = [each for each in pairs if differs(each[0].transferal)]
    counted = whole_pairs(records, differing) if records is not None else ()
    which = ", ".join(sorted({ours.transferal for ours, _ in counted}))
    how = {
        AS_PRINTED: "at the paper's thresholds",
        CALIBRATED: "with β calibrated on the teacher",
        EXPECTED_DICE: "with the smallest expected Dice calibrated on the teacher, in place of β",
    }[rule]
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
            Row("differ", f"Sets of another modality: {which}" if which
                else "All sets of another modality",
                None if records is None else difference_of_dice(records, differing),
                _printed_exclusion([DERMOSCOPY, "PASCAL VOC2012"]),
                obstacle=_starved(records, rule, differs)),
            *(row(name, of_sets.get(name, [])) for name in names),
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
    return (
        f"no student is planned on the {after:,} of {before:,} images that are left in "
        f"{show_count(len(told), 'set')} of pseudo masks, of {', '.join(sorted(names))}"
    )


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
    wanted = {(run.collection, same(run)) for run in tuned}
    plain = [
        run
        for run in runs
        if run.role == Role.FROM_SCRATCH and (run.collection, same(run)) in wanted
    ]
    scratch = by_key(plain, same)
    beside = [(run, scratch.get((run.collection, same(run)))) for run in tuned]
    pairs = [(run, other) for run, other in beside if other is not None]

    def row(key: str, label: str, table: str, dataset: str = "") -> Row:
        chosen = [
            each for each in pairs
            if tests_breast(each[0]) == (key == "breast")
            and dataset in ("", name_of(each[0].transferal))
        ]  # fmt: skip
        return Row(
            key=slug(key, dataset),
            label=f"{label}, students of {dataset}" if dataset else label,
            estimate=None if records is None else difference_of_dice(records, chosen),
            printed=_printed_tuned(table, dataset),
            decides=not dataset,
        )

    of_thyroid = [name_of(ours.transferal) for ours, _ in pairs if not tests_breast(ours)]
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
            row("breast", "Breast ultrasound", "table 4"),
            row("thyroid", "Thyroid ultrasound", "table 5"),
            *(row("thyroid", "Thyroid ultrasound", "table 5", name)
              for name in sorted(set(of_thyroid))),
        ),
    )  # fmt: skip


def _printed_tuned(table: str, dataset: str) -> tuple[Printed, ...]:
    """Returns the paper's mean difference over networks, of one transferal dataset or of all."""
    of_table = [each for each in paper.all_dice() if each.where == table]
    tuned = [
        each.mean for each in of_table
        if each.role == Role.FINE_TUNED_STUDENT
        and (not dataset or each.transferal_dataset == counterpart(dataset))
    ]  # fmt: skip
    scratch = [each.mean for each in of_table if each.role == Role.FROM_SCRATCH]
    return ((float(np.mean(tuned) - np.mean(scratch)), table),) if tuned else ()


def _weak(records: Records | None, runs: Sequence[Run]) -> Claim:
    of_several = [
        run for run in runs
        if run.role == Role.STUDENT and run.teachers > 1 and tests_breast(run)
    ]  # fmt: skip
    of_several = of_one_collection(of_several)
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
