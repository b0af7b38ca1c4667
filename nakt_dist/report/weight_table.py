"""How the weight of a teacher's attention does on the validation images (paper B's grid of β)."""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nakt_dist.records.lineage import Method
from nakt_dist.report.auroc_curves import AurocCurve, Curves
from nakt_dist.report.document import WARNING, Cell, Column, Table, tabulate
from nakt_dist.report.studies import Setting
from nakt_dist.report.wording import grouped

_BETA = "attention.beta"
_REMARKS = (
    "The highest mean AUROC over the findings that a validation reached, the mean over the seeds "
    "that all have; the test images played no part.",
    "Bold: the best of those that differ in β alone.",
)
_UNLIKE = (
    f"{WARNING} Trainings that differ in β here were validated on other images or findings, too: "
    "of these, the highest need not be the best."
)


@dataclass(frozen=True)
class _Weighted:
    setting: Setting
    method: Method
    beta: float
    best: float
    seeds: int
    chosen: bool
    is_at_end: bool
    alike: bool


def weight_table(curves: Curves) -> Table | None:
    """Shows trainings that differ in β alone; None where there are none."""
    rows = list(_rows(curves))
    columns = (
        Column("Network", lambda row: row.setting.network.label),
        Column("Training images", _learnt_from),
        Column("First weights", lambda row: row.setting.start.label),
        Column("Teacher", lambda row: row.method.teacher.label if row.method.teacher else ""),
        Column("β", lambda row: f"{row.beta:g}"),
        Column("Validation AUROC %", lambda row: Cell(f"{row.best:.2f}", strong=row.chosen)),
        Column("Seeds", lambda row: str(row.seeds)),
    )
    return tabulate("β on the validation images", columns, rows, _remarks(rows)) if rows else None


def _remarks(rows: Sequence[_Weighted]) -> tuple[str, ...]:
    ends = dict.fromkeys(f"{row.beta:g}" for row in rows if row.chosen and row.is_at_end)
    remarks = _REMARKS if all(row.alike for row in rows) else (_UNLIKE, *_REMARKS)
    if not ends:
        return remarks
    told = (
        f"The best β ({', '.join(ends)}) is the smallest or the largest tried beside it: a better "
        "one may lie beyond."
    )
    return (*remarks, told)


def _rows(curves: Curves) -> Iterator[_Weighted]:
    for setting, methods in curves.items():
        for together in grouped(methods, _without_weight).values():
            if len(together) < 2:
                continue
            seeds = set.intersection(*({c.repetition for c in methods[m]} for m in together))
            if not seeds:
                continue
            alike = len({c.judged_by for m in together for c in methods[m]}) == 1
            means = {method: _mean_of_best(methods[method], seeds) for method in together}
            ordered = sorted(together, key=_weight_of)
            for method in ordered:
                chosen = means[method] == max(means.values())
                is_at_end = method in (ordered[0], ordered[-1])
                yield _Weighted(
                    setting, method, _weight_of(method), means[method], len(seeds), chosen,
                    is_at_end, alike,
                )  # fmt: skip


def _without_weight(method: Method) -> tuple[object, ...]:
    """Returns all but β of a method; methods without β stand for themselves."""
    settings = json.loads(method.settings)
    beta = settings.pop(_BETA, None)
    rest = json.dumps(settings, sort_keys=True)
    return method.kind, method.parts, method.teacher, rest, beta is None and method


def _weight_of(method: Method) -> float:
    return float(json.loads(method.settings)[_BETA])


def _mean_of_best(curves: Sequence[AurocCurve], seeds: Container[tuple[int, int]]) -> float:
    return float(np.mean([each.auroc.max() for each in curves if each.repetition in seeds]))


def _learnt_from(row: _Weighted) -> str:
    return f"{row.setting.trained_on.samples:,} of {row.setting.trained_on.label}"
