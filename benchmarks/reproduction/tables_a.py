"""Tables of study A beside its claims: all networks, what one change gives, what β leaves."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.reproduction.claims import Verdict, signed
from benchmarks.reproduction.collecting import AS_PRINTED, CALIBRATED, EXPECTED_DICE, RULES
from benchmarks.reproduction.contrasts import (
    RESAMPLES,
    SEED,
    Estimate,
    by_key,
    capability,
    capability_gain,
    dice_by_row,
    difference_of_dice,
    of_one_collection,
    whole_pairs,
)
from benchmarks.reproduction.mask_quality import MEASURES
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import Interval, rows_of
from benchmarks.reproduction.runs_a import (
    TOGETHER,
    change_of,
    name_of,
    pairs_of_exclusion,
    planned_sets,
    slug,
    students,
    teachers_beside,
    teachers_of,
    tests_breast,
)
from nakt_dist.evaluation.summary import bootstrap_interval
from nakt_dist.report.document import NOTHING, WARNING, Column, Table, tabulate
from nakt_dist.report.roles import Role
from nakt_dist.report.wording import grouped

_NOT_RUN = Verdict.NOT_RUN.value


def tables_of_a(records: Records | None) -> dict[str, Table]:
    """Returns the tables by name."""
    return {
        "students": _students_table(records),
        "causes": _causes_table(records),
        "rule": _rule_table(records),
        "measures": _measures_table(records),
    }


def numbers_of_a(records: Records | None) -> dict[str, str]:
    """Returns numbers that the page's prose may hold, by name."""
    waiting = {} if records is None else records.about["not_run_yet"]
    changes = [axes["change"] for axes in waiting.values() if "change" in axes]
    numbers = {f"causes/{slug(change)}": _NOT_RUN for change in changes}
    for change, (_, _, gain) in _causes(records).items():
        numbers[f"causes/{slug(change)}"] = _NOT_RUN if gain is None else _with_interval(gain)
    kept: dict[str, dict[str, str]] = {name: {} for name in planned_sets(records)} | _kept_by_set(
        records
    )
    for name, shares in kept.items():
        for rule in RULES:
            numbers[f"kept/{slug(name)}/{slug(rule)}"] = shares.get(rule, _NOT_RUN)
    return numbers | _entropy_by_size(records) | _measures(records)


def _measures(records: Records | None) -> dict[str, str]:
    """Returns how each measure of pseudo masks goes with their Dice, by dataset."""
    told = grouped(
        [] if records is None else records.about["judged_masks"], lambda each: each["dataset"]
    )
    found = {}
    for dataset, sets in told.items():
        for name in ("dice", *MEASURES):
            values = [each[name] for each in sets if each[name] is not None]
            limits = " to ".join(_shown(name, each) for each in (min(values), max(values)))
            found[f"measures/{slug(dataset)}/{name}"] = limits
    return found


def _shown(name: str, value: float) -> str:
    return f"{value:.1f}" if name == "dice" else signed(value)


def _measures_table(records: Records | None) -> Table:
    """Shows which measure of pseudo masks tells the good ones."""
    sets = [] if records is None else records.about["judged_masks"]
    told, numbers = grouped(sets, lambda each: each["dataset"]), _measures(records)

    def column(name: str, title: str) -> Column:
        return Column(title, lambda dataset: numbers[f"measures/{slug(dataset)}/{name}"])

    columns = (
        Column("Pseudo masks of", lambda dataset: str(dataset)),
        Column("Teachers", lambda dataset: str(len(told[dataset]))),
        Column("Images", lambda dataset: str(max(each["images"] for each in told[dataset]))),
        column("dice", "Their Dice %"),
        column("entropy", "ρ of entropy"),
        column("expected_dice", "of the expected Dice"),
        column("mean_confidence", "of the mean confidence"),
        column("target_pixels", "of the target's pixels"),
    )
    remarks = [
        "ρ: Spearman's correlation with the Dice of the pseudo mask, least and greatest over the "
        "teachers. A rule that leaves out a mask for much entropy needs a negative one."
    ]
    return tabulate("What is measured of a pseudo mask, and its Dice", columns, told, remarks)


def _entropy_by_size(records: Records | None) -> dict[str, str]:
    """Returns how the entropy of pseudo masks follows their size, and in how many sets of them."""
    counted = () if records is None else records.about["kept"]
    found = [each["entropy_by_size"] for each in counted if each["entropy_by_size"] is not None]
    told = f"{min(found):.2f} to {max(found):.2f}" if found else _NOT_RUN
    return {"entropy_by_size": told, "entropy_by_size/sets": str(len(found))}


def warned(text: str, alike: Iterable[Run]) -> str:
    """Marks text where a run may have met its test images."""
    return f"{text} {WARNING}" if any(run.met for run in alike) else text


def warn_of(met: Iterable[str]) -> list[str]:
    """Says once how networks may have met their test images."""
    return [f"{WARNING} {words}." for words in dict.fromkeys(met) if words]


def _students_table(records: Records | None) -> Table:
    """Shows teachers and students over all folds and seeds, after the paper's tables."""
    runs = () if records is None else records.runs
    shown = students(runs)
    names = {run.name for run in shown}
    groups = grouped(
        [*(run for run in runs if run.name not in names), *shown],
        lambda r: (r.role, r.tested_on, r.network, r.start, r.teacher_start, r.transferal, r.rule,
                   change_of(r), r.size, r.steps, r.samples if not r.transferal else 0),
    )  # fmt: skip

    def dice(alike: Sequence[Run]) -> np.ndarray:
        assert records is not None
        return np.array(list(dice_by_row(records, alike).values()))

    def interval(alike: Sequence[Run]) -> str:
        low, high = bootstrap_interval(dice(alike), RESAMPLES, SEED)
        return f"{low:.1f} to {high:.1f}"

    columns = (
        Column("Role", lambda alike: warned(alike[0].role, alike)),
        Column("Network", lambda alike: alike[0].network),
        Column("From", lambda alike: alike[0].start),
        Column("Teacher from", lambda alike: alike[0].teacher_start or NOTHING),
        Column("Transferal", lambda alike: alike[0].transferal or NOTHING),
        Column("Exclusion", lambda alike: alike[0].rule or NOTHING),
        Column("Kept %", lambda alike: _share(alike) or NOTHING),
        Column("Changed", lambda alike: change_of(alike[0]) or NOTHING),
        Column("Pixels", lambda alike: str(alike[0].size)),
        Column("Steps", lambda alike: f"{alike[0].steps:,}"),
        Column("Tested on", lambda alike: alike[0].tested_on),
        Column("Dice %", lambda alike: f"{dice(alike).mean():.1f} ± {dice(alike).std():.1f}"),
        Column("95 % interval", interval),
        Column("Images", lambda alike: str(len(dice(alike)))),
        Column("Runs", lambda alike: str(len(alike))),
    )
    remarks = [
        "± is the standard deviation over images, of the mean over runs that tested the same "
        "image. The interval is over images. Rows with fewer images are of fewer folds, that is "
        "of other images: the tables above compare on the same ones.",
        *warn_of(run.met for run in runs),
    ]
    return tabulate("Dice over all folds and seeds", columns, groups.values(), remarks)


def _share(alike: Iterable[Run]) -> str:
    """Returns how much a rule left of the images of students, in percent; empty without one."""
    kept = [
        100 * run.samples / run.before
        for run in alike if run.role == Role.STUDENT and run.before and run.rule
    ]  # fmt: skip
    return f"{np.mean(kept):.0f}" if kept else ""


Cause = tuple[Estimate | None, Estimate | None, Estimate | None]
"""The capability of a changed student and of another one, and the former less the latter."""

_BESIDE = (("own_organ", "fewer"),)
"""Changes of the study that differ from each other in one thing, as both do from the main one."""


def _causes(records: Records | None) -> dict[str, Cause]:
    """Returns what each change gives over the main student of the same folds and seeds."""
    if records is None:
        return {}
    runs = records.runs
    plain = [run for run in students(runs) if not change_of(run) and not run.rule]
    kinds = grouped(plain, lambda run: (run.transferal, run.network, run.teacher_start, run.size))
    changed = [run for run in runs if change_of(run) and tests_breast(run)]
    # The main one learnt from the set that most of the changed ones learnt from.
    shared = Counter(run.transferal for run in changed)
    main = max(kinds.values(), key=lambda own: (shared[own[0].transferal], len(own)), default=[])
    by_change = grouped(changed, change_of)
    told = {change: _cause(records, found, main) for change, found in by_change.items()}
    for one, other in _BESIDE:
        if one in by_change and other in by_change:
            told[f"{one}, beside {other}"] = _cause(records, by_change[one], by_change[other])
    return told


def _cause(records: Records, changed: Sequence[Run], others: Sequence[Run]) -> Cause:
    known = by_key(others, lambda run: (run.seed, rows_of(records, run)))
    told = {run: (run.collection, (run.seed, rows_of(records, run))) for run in changed}
    ours = of_one_collection(run for run in changed if told[run] in known)
    theirs = [known[told[run]] for run in ours]
    if not ours:
        return None, None, None
    our_teacher = teachers_beside(records, ours, records.runs)
    their_teacher = teachers_of(theirs, records.runs)
    return (
        capability(records, [ours], our_teacher),
        capability(records, [theirs], their_teacher),
        capability_gain(records, ours, our_teacher, theirs, their_teacher),
    )


def _causes_table(records: Records | None) -> Table:
    def number(estimate: Estimate | None) -> str:
        return NOTHING if estimate is None else f"{estimate.value:.1f}"

    def gain(item: tuple[str, Cause], name: str) -> str:
        return NOTHING if item[1][2] is None else f"{getattr(item[1][2], name)}"

    def interval(item: tuple[str, Cause], name: str) -> str:
        limits: Interval | None = getattr(item[1][2], name, None)
        return NOTHING if limits is None else " to ".join(map(signed, limits))

    columns = (
        Column("Changed", lambda item: item[0]),
        Column("Capability %", lambda item: number(item[1][0])),
        Column("The other's", lambda item: number(item[1][1])),
        Column("Gain", lambda item: NOTHING if item[1][2] is None else signed(item[1][2].value)),
        Column("95 % over images", lambda item: interval(item, "drawn")),
        Column("95 % over repetitions", lambda item: interval(item, "over_repeats")),
        Column("Images", lambda item: gain(item, "images")),
        Column("Repetitions", lambda item: gain(item, "repeats")),
    )
    title = "Knowledge-transfer capability of students with one thing changed, and of the main one"
    return tabulate(title, columns, _causes(records).items())


def _with_interval(gain: Estimate) -> str:
    told = f"{' to '.join(map(signed, gain.drawn))} over images"
    if gain.over_repeats is not None:
        told += f"; {' to '.join(map(signed, gain.over_repeats))} over {gain.repeats} repetitions"
    return f"{signed(gain.value)} ({told})"


def _kept_by_set(records: Records | None) -> dict[str, dict[str, str]]:
    """Returns the share of images that each rule leaves, in percent, by transferal dataset."""
    if records is None:
        return {}
    trained = [run for run in students(records.runs) if not change_of(run)]
    names = sorted({name_of(run.transferal) for run in trained}, key=lambda n: (n == TOGETHER, n))
    counted = records.about["kept"]
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for name in names:
        for rule in RULES:
            own = [run for run in trained if name_of(run.transferal) == name and run.rule == rule]
            told = _counted(counted, rule, name, set(names) - {TOGETHER}) or _share(own)
            if told:
                found[name][rule] = told
    return found


def _counted(kept: Iterable[Mapping[str, object]], rule: str, name: str, singles: set[str]) -> str:
    """Returns what was counted of a set, or of all of them together where each was."""
    wanted = singles if name == TOGETHER else {name}
    told = [each for each in kept if each["rule"] == rule and each["transferal"] in wanted]
    if {each["transferal"] for each in told} != wanted:
        return ""
    before, after = (sum(int(str(each[side])) for each in told) for side in ("before", "after"))
    return f"{100 * after / before:.0f}"


def _rule_table(records: Records | None) -> Table:
    """Shows what each rule leaves, and what that gives, for each transferal dataset."""
    kept = _kept_by_set(records)
    runs = () if records is None else records.runs
    pairs = {rule: pairs_of_exclusion(records, runs, rule) for rule in RULES}

    def own(rule: str, name: str) -> Sequence[tuple[Run, Run]]:
        chosen = [each for each in pairs[rule] if name_of(each[0].transferal) == name]
        return whole_pairs(records, chosen) if records is not None else ()

    def dice(rule: str, name: str, side: int) -> str:
        alike = [each[side] for each in own(rule, name)]
        if records is None or not alike:
            return NOTHING
        return f"{np.mean(list(dice_by_row(records, alike).values())):.1f}"

    def gain(rule: str, name: str) -> str:
        found = None if records is None else difference_of_dice(records, own(rule, name))
        return NOTHING if found is None else _with_interval(found)

    columns = (
        Column("Transferal", lambda name: name),
        Column("Kept %, calibrated", lambda name: kept[name].get(CALIBRATED, NOTHING)),
        Column("Kept %, expected Dice", lambda name: kept[name].get(EXPECTED_DICE, NOTHING)),
        Column("Kept %, as printed", lambda name: kept[name].get(AS_PRINTED, NOTHING)),
        Column("Dice without %", lambda name: dice(CALIBRATED, name, 1)),
        Column("Dice calibrated %", lambda name: dice(CALIBRATED, name, 0)),
        Column("Calibrated less without", lambda name: gain(CALIBRATED, name)),
        Column("Expected Dice less without", lambda name: gain(EXPECTED_DICE, name)),
        Column("As printed less without", lambda name: gain(AS_PRINTED, name)),
    )
    remarks = ["Both sides of a difference are of the same images, networks, folds and seeds."]
    return tabulate("What each rule leaves of the images, and gives", columns, kept, remarks)
