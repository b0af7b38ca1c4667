"""Tables and numbers of the page, from records and the claims on them."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.reproduction.claims import Claim, Row, Verdict
from benchmarks.reproduction.contrasts import RESAMPLES
from benchmarks.reproduction.figures import method_of
from benchmarks.reproduction.records import Records, Run
from benchmarks.reproduction.repetitions import Interval
from benchmarks.reproduction.tables_a import numbers_of_a, tables_of_a, warn_of, warned
from nakt_dist.evaluation.summary import confidence_over_runs
from nakt_dist.report.document import NOTHING, WARNING, Column, Table, tabulate
from nakt_dist.report.markdown import table_to_markdown
from nakt_dist.report.wording import grouped

STUDIES = {"a": "A, segmentation", "b": "B, chest X-rays"}
_MOST_NAMED = 12


def all_tables(claims: Sequence[Claim], found: Mapping[str, Records | None]) -> dict[str, str]:
    """Returns the page's tables as Markdown, by name."""
    tables = {f"claim-{claim.key}": _claim_table(claim) for claim in claims}
    tables |= {"verdicts": _verdicts(claims, found), "standing": _standing(found)}
    tables |= tables_of_a(found["a"])
    tables["classifiers"] = _classifiers_table(found["b"])
    shown = {name: table_to_markdown(table) for name, table in tables.items()}
    return shown | {"missing": _missing(found)}


def all_numbers(claims: Sequence[Claim], found: Mapping[str, Records | None]) -> dict[str, str]:
    """Returns the numbers, and the words, that the page's prose may hold, by name."""
    numbers = {"resamples": f"{RESAMPLES:,}"} | numbers_of_a(found["a"])
    for claim in claims:
        numbers[f"{claim.key}/verdict"] = verdict_of(claim, found)
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
    told = f"{_interval(claim, row.estimate.drawn)} over {claim.drawn}"
    if (over_repeats := row.estimate.over_repeats) is not None:
        told += f"; {_interval(claim, over_repeats)} over {row.estimate.repeats} repetitions"
    return f"{claim.show(row.estimate.value)} ({told})"


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

    def runs(row: Row) -> str:
        waiting = row.estimate.waiting if row.estimate else 0
        return f"{count(row, 'runs')}, {waiting} wait" if waiting else count(row, "runs")

    def reading(row: Row) -> str:
        verdict, by_t = claim.judge(row), claim.judge_by_student_t(row)
        words = (
            verdict.value if by_t == verdict else f"{verdict.value}, by Student's t {by_t.value}"
        )
        return f"{words}: {row.obstacle}" if row.obstacle else words

    def label(row: Row) -> str:
        return f"{row.label} {WARNING}" if row.estimate and row.estimate.met else row.label

    columns = (
        Column("What", label),
        Column("Ours", ours),
        Column(f"95 % over {claim.drawn}",
               lambda row: _interval(claim, row.estimate and row.estimate.drawn)),
        Column("95 % over repetitions",
               lambda row: _interval(claim, row.estimate and row.estimate.over_repeats)),
        Column(claim.counted.capitalize(), lambda row: count(row, "images")),
        Column("Runs", runs),
        Column("Repetitions", lambda row: count(row, "repeats")),
        Column("The paper's", lambda row: _printed(claim, row)),
        Column("Decides", lambda row: "yes" if row.decides else "no"),
        Column("Reading", reading),
    )  # fmt: skip
    met = [words for row in claim.rows if row.estimate for words in row.estimate.met]
    return tabulate(claim.measure, columns, claim.rows, warn_of(met))


def verdict_of(claim: Claim, found: Mapping[str, Records | None]) -> str:
    """Returns a claim's verdict, which may change while evaluations of its study are to come."""
    records, verdict = found[claim.paper.lower()], claim.verdict
    is_whole = records is not None and not records.about["not_run_yet"]
    final = is_whole or verdict in (Verdict.NOT_RUN, Verdict.NOT_TESTABLE)
    told = verdict.value if final else f"{verdict.value} so far"
    by_t = claim.verdict_by_student_t
    return told if by_t == verdict else f"{told} (by Student's t {by_t.value})"


def _verdicts(claims: Sequence[Claim], found: Mapping[str, Records | None]) -> Table:
    def ours(claim: Claim) -> str:
        rows = [row for row in claim.rows if row.decides]
        return "; ".join(f"{row.label}: {_with_interval(claim, row)}" for row in rows)

    def theirs(claim: Claim) -> str:
        rows = [row for row in claim.rows if row.decides and row.printed]
        told = [(row.label, _printed(claim, row)) for row in rows]
        if len(told) < 2 or len({text for _, text in told}) == 1:
            return told[0][1] if told else NOTHING
        return "; ".join(f"{label}: {text}" for label, text in told)

    columns = (
        Column("Paper", lambda claim: claim.paper),
        Column("Claim", lambda claim: claim.words),
        Column("Ours", ours),
        Column("The paper's", theirs),
        Column("Verdict", lambda claim: verdict_of(claim, found)),
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

    def findings(alike: Sequence[Run]) -> str:
        assert records is not None
        told = [records.values[run.name].values for run in alike]
        return ", ".join(sorted({str((~np.isnan(each).all(0)).sum()) for each in told}))

    columns = (
        Column("Role", lambda alike: warned(alike[0].role, alike)),
        Column("Network", lambda alike: alike[0].network),
        Column("From", lambda alike: alike[0].start),
        Column("Images", lambda alike: f"{alike[0].samples:,}"),
        Column("Method", lambda alike: method_of(alike[0])),
        Column("Teacher", lambda alike: alike[0].teacher_learnt or NOTHING),
        Column("AUROC %", auroc),
        Column("Seeds", lambda alike: str(len(alike))),
        Column("Findings", findings),
    )
    remarks = [
        "AUROC is compared in rows of as many findings alone: it is the mean over those that a "
        "network names.",
        *warn_of(run.met for run in runs),
    ]
    order = sorted(groups, key=lambda key: (key[0] != "student", *map(str, key[1:3]), *key[3:]))
    title = "Mean AUROC, ± 1.96 s / √n over seeds"
    return tabulate(title, columns, map(groups.get, order), remarks)
