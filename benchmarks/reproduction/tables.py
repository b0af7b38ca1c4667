"""Tables and numbers of the page, from records and the claims on them."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from benchmarks.reproduction.claims import Claim, Row, Verdict
from benchmarks.reproduction.claims_a import change_of, students
from benchmarks.reproduction.contrasts import (
    RESAMPLES,
    SEED,
    Interval,
    dice_by_row,
)
from benchmarks.reproduction.figures import method_of
from benchmarks.reproduction.records import Records, Run
from nakt_dist.evaluation.summary import bootstrap_interval, confidence_over_runs
from nakt_dist.report.document import WARNING, Column, Table, tabulate
from nakt_dist.report.markdown import table_to_markdown
from nakt_dist.report.tables import NOTHING
from nakt_dist.report.wording import grouped

STUDIES = {"a": "A, segmentation", "b": "B, chest X-rays"}
_MOST_NAMED = 12


def all_tables(claims: Sequence[Claim], found: Mapping[str, Records | None]) -> dict[str, str]:
    """Returns the page's tables as Markdown, by name."""
    tables = {f"claim-{claim.key}": _claim_table(claim) for claim in claims}
    tables |= {"verdicts": _verdicts(claims, found), "standing": _standing(found)}
    tables["students"] = _students_table(found["a"])
    tables["classifiers"] = _classifiers_table(found["b"])
    shown = {name: table_to_markdown(table) for name, table in tables.items()}
    return shown | {"missing": _missing(found)}


def all_numbers(claims: Sequence[Claim], found: Mapping[str, Records | None]) -> dict[str, str]:
    """Returns the numbers, and the words, that the page's prose may hold, by name."""
    numbers = {"resamples": f"{RESAMPLES:,}"}
    for claim in claims:
        numbers[f"{claim.key}/verdict"] = _verdict(claim, found)
        numbers[f"{claim.key}/threshold"] = f"{claim.threshold:g}"
        for row in claim.rows:
            numbers[f"{claim.key}/{row.key}"] = _with_interval(claim, row)
            numbers[f"{claim.key}/{row.key}/paper"] = _printed(claim, row)
    for name, records in found.items():
        numbers |= {f"{name}/{key}": text for key, text in _counts(records).items()}
    return numbers


def _counts(records: Records | None) -> dict[str, str]:
    about = {} if records is None else records.about
    runs = () if records is None else records.runs
    told = {name: str(about.get(name, 0)) for name in ("done", "planned", "last_run")}
    return told | {
        "pixels": " and ".join(map(str, sizes_of(records))) if records else NOTHING,
        "seeds": str(len({run.seed for run in runs})),
        "images": str(max((run.images for run in runs), default=0)),
        "sizes": ", ".join(map(str, sorted({run.samples for run in runs}))) or NOTHING,
        "findings": str(len(records.images.findings) if records and records.images else 0),
    }


def sizes_of(records: Records) -> list[int]:
    """Returns the rows of the images that there are, in order."""
    return sorted({run.size for run in records.runs})


def _with_interval(claim: Claim, row: Row) -> str:
    if row.estimate is None:
        return claim.judge(row).value
    return f"{claim.show(row.estimate.value)} ({_interval(claim, row.estimate.drawn)})"


def _interval(claim: Claim, interval: Interval | None) -> str:
    return NOTHING if interval is None else " to ".join(map(claim.show, interval))


def _printed(claim: Claim, row: Row) -> str:
    told = [f"{claim.show(value)} ({where})" for value, where in row.printed]
    return "; ".join(told) or NOTHING


def _claim_table(claim: Claim) -> Table:
    def ours(row: Row) -> str:
        return NOTHING if row.estimate is None else claim.show(row.estimate.value)

    def count(row: Row, name: str) -> str:
        return NOTHING if row.estimate is None else f"{getattr(row.estimate, name)}"

    def reading(row: Row) -> str:
        words = claim.judge(row).value
        return f"{words}: {row.obstacle}" if row.obstacle else words

    columns = (
        Column("What", lambda row: row.label),
        Column("Ours", ours),
        Column("95 % interval", lambda row: _interval(claim, row.estimate and row.estimate.drawn)),
        Column(
            "95 % over repetitions",
            lambda row: _interval(claim, row.estimate and row.estimate.over_repeats),
        ),
        Column("Images", lambda row: count(row, "images")),
        Column("Runs", lambda row: count(row, "runs")),
        Column("Repetitions", lambda row: count(row, "repeats")),
        Column("The paper's", lambda row: _printed(claim, row)),
        Column("Decides", lambda row: "yes" if row.decides else "no"),
        Column("Reading", reading),
    )
    return tabulate(claim.measure, columns, claim.rows)


def _verdict(claim: Claim, found: Mapping[str, Records | None]) -> str:
    """Returns a claim's verdict, which may change while evaluations of its study are to come."""
    records, verdict = found[claim.paper.lower()], claim.verdict
    is_whole = records is not None and not records.about["not_run_yet"]
    final = is_whole or verdict in (Verdict.NOT_RUN, Verdict.NOT_TESTABLE)
    return verdict.value if final else f"{verdict.value} so far"


def _verdicts(claims: Sequence[Claim], found: Mapping[str, Records | None]) -> Table:
    def ours(claim: Claim) -> str:
        rows = [row for row in claim.rows if row.decides]
        return "; ".join(f"{row.label}: {_with_interval(claim, row)}" for row in rows)

    def theirs(claim: Claim) -> str:
        told = [_printed(claim, row) for row in claim.rows if row.decides]
        return "; ".join(dict.fromkeys(each for each in told if each != NOTHING)) or NOTHING

    columns = (
        Column("Paper", lambda claim: claim.paper),
        Column("Claim", lambda claim: claim.words),
        Column("Ours", ours),
        Column("The paper's", theirs),
        Column("Verdict", lambda claim: _verdict(claim, found)),
    )
    return tabulate("The claims at a glance", columns, claims)


def _standing(found: Mapping[str, Records | None]) -> Table:
    def told(name: str) -> Mapping[str, object]:
        records = found[name]
        return {} if records is None else records.about

    def versions(name: str) -> str:
        of_study = told(name).get("versions")
        named = of_study.items() if isinstance(of_study, Mapping) else ()
        return ", ".join(f"{package} {version}" for package, version in named) or NOTHING

    def pixels(name: str) -> str:
        records = found[name]
        return ", ".join(map(str, sizes_of(records))) if records else NOTHING

    columns = (
        Column("Study", lambda name: STUDIES[name]),
        Column("Evaluations done", lambda name: str(told(name).get("done", 0))),
        Column("planned", lambda name: str(told(name).get("planned", "not collected yet"))),
        Column("Pixels", pixels),
        Column("Last run", lambda name: str(told(name).get("last_run", NOTHING))),
        Column("Collected at", lambda name: str(told(name).get("commit", NOTHING))),
        Column("Machine", lambda name: str(told(name).get("machine", NOTHING))),
        Column("Versions", versions),
    )
    return tabulate("What these figures rest on", columns, found)


def _missing(found: Mapping[str, Records | None]) -> str:
    """Lists what is planned and not there, by study."""
    parts = []
    for name, records in found.items():
        if records is None:
            parts.append(f"- {STUDIES[name]}: no evaluation is collected yet.")
            continue
        names = sorted(each.removeprefix("tests/") for each in records.about["not_run_yet"])
        more = len(names) - _MOST_NAMED
        listed = ", ".join(f"`{each}`" for each in names[:_MOST_NAMED])
        rest = f" and {more} more, in `about.json`" if more > 0 else ""
        parts.append(f"- {STUDIES[name]}: not run yet: {listed or 'nothing'}{rest}.")
        parts += [f"- left out: {each}" for each in records.about["left_out"]]
    return "\n".join(parts)


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
        Column("Role", lambda alike: _warned(alike[0].role, alike)),
        Column("Network", lambda alike: alike[0].network),
        Column("From", lambda alike: alike[0].start),
        Column("Teacher from", lambda alike: alike[0].teacher_start or NOTHING),
        Column("Transferal", lambda alike: alike[0].transferal or NOTHING),
        Column("Exclusion", lambda alike: alike[0].rule or NOTHING),
        Column("Kept %", _kept),
        Column("Changed", lambda alike: change_of(alike[0]) or NOTHING),
        Column("Pixels", lambda alike: str(alike[0].size)),
        Column("Steps", lambda alike: f"{alike[0].steps:,}"),
        Column("Tested on", lambda alike: alike[0].tested_on),
        Column("Dice %", lambda alike: f"{dice(alike).mean():.1f} ± {dice(alike).std():.1f}"),
        Column("95 % interval", interval),
        Column("Images", lambda alike: str(len(dice(alike)))),
        Column("Runs", lambda alike: str(len(alike))),
    )
    return tabulate("Dice over all folds and seeds", columns, groups.values())


def _kept(alike: Sequence[Run]) -> str:
    if not alike[0].transferal:
        return NOTHING
    shares = [100 * run.samples / run.before for run in alike if run.before and run.rule]
    return f"{np.mean(shares):.0f}" if shares else NOTHING


def _warned(text: str, alike: Iterable[Run]) -> str:
    return f"{text} {WARNING}" if any(run.met for run in alike) else text


def _classifiers_table(records: Records | None) -> Table:
    """Shows mean AUROC over seeds, after paper B's tables."""
    runs = () if records is None else records.runs
    groups = grouped(
        runs, lambda r: (r.role, r.network, r.start, r.samples, method_of(r), r.teacher_learnt)
    )

    def auroc(alike: Sequence[Run]) -> str:
        means = [run.mean for run in alike]
        half_width = confidence_over_runs(means)
        return f"{np.mean(means):.2f}" + ("" if half_width is None else f" ± {half_width:.2f}")

    columns = (
        Column("Role", lambda alike: _warned(alike[0].role, alike)),
        Column("Network", lambda alike: alike[0].network),
        Column("From", lambda alike: alike[0].start),
        Column("Images", lambda alike: f"{alike[0].samples:,}"),
        Column("Method", lambda alike: method_of(alike[0])),
        Column("Teacher", lambda alike: alike[0].teacher_learnt or NOTHING),
        Column("AUROC %", auroc),
        Column("Seeds", lambda alike: str(len(alike))),
    )
    order = sorted(groups, key=lambda key: (key[0] != "student", *map(str, key[1:3]), *key[3:]))
    return tabulate("Mean AUROC, ± 1.96 s / √n over seeds", columns, map(groups.get, order))
