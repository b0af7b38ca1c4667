"""Every claim of `docs/reproduction.md` finds its rows in the studies that are to fill them.

The evaluations are those of the studies' files; what they would give is made up.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reproduction import __main__ as reproduction
from benchmarks.reproduction.claims import Verdict
from benchmarks.reproduction.claims_a import claims_of_a
from benchmarks.reproduction.claims_b import claims_of_b
from benchmarks.reproduction.collecting import AS_PRINTED, CALIBRATED, EXPECTED_DICE
from benchmarks.reproduction.records import Curve, Images, Records, Run, Values
from benchmarks.reproduction.tables import verdict_of
from benchmarks.reproduction.tables_a import numbers_of_a, tables_of_a
from nakt_dist.cli import STAGES, parse_config
from nakt_dist.config import StudyConfig, as_plain
from nakt_dist.report.roles import Role
from nakt_dist.signals import SIGNALS
from nakt_dist.signals.kind import Kind
from nakt_dist.stages.study import read_study
from nakt_dist.studies.plan import StudyRun, make_study

STUDIES = Path(__file__).parents[2] / "configs" / "study"
FINDINGS = ("Edema", "Mass")
IMAGES = 12


def runs_of(config: StudyConfig) -> tuple[StudyRun, ...]:
    """Returns the runs of a study with plain settings; checked only where a choice needs it."""
    if any("choose" in step for step in config.steps):
        return tuple(replace(r, config=as_plain(r.config)) for r in read_study(config).runs)
    return make_study(config, lambda _, values: dict(values), list(STAGES)).runs


class MadeUp:
    """What a study's evaluations would say of their networks, from its settings alone."""

    def __init__(self, name: str) -> None:
        words = [f"--config={STUDIES / name}.yaml", "--data=/data", "--root=/root"]
        config = parse_config("study", words)
        self.runs = runs_of(config)
        self.by_output = {str(run.config.get("output")): run for run in self.runs}
        taught = [run.config for run in self.runs if run.planned.stage == "teach"]
        self.masters = {each["weights"] for config in taught for each in config["teachers"]}

    def evaluations(self) -> Iterator[Run]:
        """Describes every one."""
        planned = (run for run in self.runs if run.planned.stage == "evaluate")
        return (self.describe(run, 50.0 + number % 7) for number, run in enumerate(planned))

    def describe(self, run: StudyRun, mean: float) -> Run:
        """Returns the line of an evaluation, as if its record were there."""
        weights = run.config["weights"]
        config = self.by_output[weights].config
        sources, taught = self.sources(config), self.transferal(config)
        follows = config.get("teacher") or {}
        masters = [each["weights"] for source in taught for each in self.teachers(source)]
        masters = list(dict.fromkeys([*masters, *filter(None, [follows.get("weights")])]))
        rules = [each["exclusion"] for each in taught if each.get("exclusion")]
        findings = taught and config.get("task") == "classification"
        return Run(
            name=run.config["output"].removeprefix("/root/"),
            tested_on=self.dataset(run.config),
            role=self.role(weights, config),
            network=self.network(config),
            parameters=len(self.network(config)),
            start=self.start(config),
            learnt=self.joined(Path(each["dataset"]).name for each in sources),
            samples=sources[0].get("count") or 400,
            before=400,
            rule="" if not rules else kind_of(rules[0]),
            exclusion="",
            transferal="" if findings else self.joined(map(self.dataset, taught)),
            teachers=len(masters),
            teacher_start=self.joined(map(self.start_of, masters)),
            teacher_learnt=self.joined(map(self.learnt_by, masters)),
            method=Kind(tuple(name for name in SIGNALS if follows.get(name))).value,
            parts="all layers" + ", findings of one" * bool(findings),
            settings=str(follows),
            steps=100,
            weights=weights,
            taught_by=self.joined(masters),
            size=64,
            seed=config.get("seed", 0),
            images=IMAGES,
            mean=mean,
            low=mean - 5,
            high=mean + 5,
            met="",
            axes=dict(run.planned.axes),
        )

    @staticmethod
    def dataset(config: Mapping[str, Any]) -> str:
        """Names a dataset; at another size it is the same."""
        return Path(config["dataset"]).name.removesuffix("-larger")

    @staticmethod
    def joined(words: Iterable[str]) -> str:
        """Joins different words as the records do."""
        return " + ".join(dict.fromkeys(words))

    @staticmethod
    def sources(config: Mapping[str, Any]) -> list[Any]:
        """Returns the sources of a training."""
        data = config["data"]
        return data if isinstance(data, list) else [data]

    def transferal(self, config: Mapping[str, Any]) -> list[Any]:
        """Returns the sources of pseudo-labels behind a network."""
        own = [each for each in self.sources(config) if each.get("pseudo_labels")]
        parent = self.by_output.get(str(config.get("init")))
        return own or ([] if parent is None else self.transferal(parent.config))

    def teachers(self, source: Mapping[str, Any]) -> list[Any]:
        """Returns who wrote a source's pseudo-labels."""
        return list(self.by_output[source["pseudo_labels"]].config["teachers"])

    def role(self, weights: str, config: Mapping[str, Any]) -> str:
        """Returns the part that a network plays."""
        if config.get("task") == "classification":
            return "other" if weights.endswith("/teacher") else "student"
        if any(each.get("pseudo_labels") for each in self.sources(config)):
            return Role.STUDENT.value
        if self.transferal(config):
            return Role.FINE_TUNED_STUDENT.value
        return (Role.TEACHER if weights in self.masters else Role.FROM_SCRATCH).value

    def network(self, config: Mapping[str, Any]) -> str:
        """Names a network; one that goes on is its parent's."""
        parent = self.by_output.get(str(config.get("init")))
        if parent is not None:
            return self.network(parent.config)
        return f"{config['model']['name']} {config['model'].get('options', '')}"

    def start(self, config: Mapping[str, Any]) -> str:
        """Names the first weights."""
        return Path(config["init"]).name if config.get("init") else "random"

    def start_of(self, weights: str) -> str:
        """Names the first weights of a teacher."""
        run = self.by_output.get(weights)
        return "" if run is None else self.start(run.config)

    def learnt_by(self, weights: str) -> str:
        """Names what a teacher learnt from."""
        run = self.by_output.get(weights)
        return weights if run is None else Path(self.sources(run.config)[0]["dataset"]).name

    def kept(self) -> list[dict[str, Any]]:
        """Returns what rules leave, as far as the study looks."""
        looked = [run for run in self.runs if run.planned.stage == "inspect"]
        return [
            {"rule": kind_of(run.config["exclusion"]), "before": 100, "after": 3,
             "entropy_by_size": 0.5,
             "transferal": Path(run.config["pseudo_labels"]).name.rsplit("-", 1)[0]}
            for run in looked
        ]  # fmt: skip

    def judged(self) -> list[dict[str, Any]]:
        """Returns what the measures of two sets of pseudo masks tell of their Dice."""
        told = {
            "dataset": "ddti",
            "images": 7,
            "dice": 21.25,
            "entropy": 0.456,
            "target_pixels": 0.7,
        }
        told |= {"mean_confidence": -0.5, "expected_dice": 0.655}
        return [told, {**told, "images": 9, "entropy": -0.1}, {**told, "dataset": "busi"}]


def kind_of(rule: Mapping[str, Any]) -> str:
    if asked := rule.get("calibration"):
        return EXPECTED_DICE if asked.get("measure") == "expected_dice" else CALIBRATED
    return AS_PRINTED


@cache
def made_up(name: str) -> Records:
    study = MadeUp(name)
    runs = tuple(study.evaluations())
    planned = [run.config for run in study.runs if run.planned.stage == "evaluate"]
    tests: dict[Any, int] = {}
    values = {}
    for run, config in zip(runs, planned, strict=True):
        test = MadeUp.dataset(config), tuple(config.get("splits") or ())
        first = tests.setdefault(test, IMAGES * len(tests))
        rows = np.arange(first, first + IMAGES)
        values[run.name] = Values(rows, np.full((IMAGES, 1), run.mean))
    about: Mapping[str, Any] = {
        "planned": len(runs), "done": len(runs), "not_run_yet": {}, "kept": study.kept(),
        "left_out": [], "judged_masks": study.judged(),
        "last_run": "2026-12-01", "commit": "abc", "versions": {}, "phantom": False,
        "machine": "2 cores",
    }  # fmt: skip
    if "_b" not in name:
        return Records(about, runs, values)
    targets = np.random.default_rng(0).integers(0, 2, (IMAGES, len(FINDINGS))).astype(float)
    draw = np.random.default_rng(1).permutation
    values = {
        r.name: Values(np.arange(IMAGES), np.stack([draw(IMAGES), draw(IMAGES)], 1)) for r in runs
    }
    curves = {r.name: Curve(np.arange(1.0, 4), np.array([3.0, 1, 2]), np.ones(3)) for r in runs}
    patients = tuple(map(str, range(IMAGES)))
    return Records(about, runs, values, Images(FINDINGS, patients, targets), curves)


def begun(name: str, done: int) -> Records:
    """Returns the records of a study of which the first evaluations are there."""
    whole = made_up(name)
    runs, rest = whole.runs[:done], whole.runs[done:]
    names = {run.name for run in runs}
    return replace(
        whole,
        about={**whole.about, "done": done, "not_run_yet": {r.name: dict(r.axes) for r in rest}},
        runs=runs,
        values={name: whole.values[name] for name in names},
        curves={name: curve for name, curve in whole.curves.items() if name in names},
    )


JUDGED = pytest.mark.parametrize(
    ("name", "claims"), [("open_data_a", claims_of_a), ("open_data_b", claims_of_b)]
)


@JUDGED
def test_every_row_of_the_whole_study_has_its_figure(name, claims):
    for claim in claims(made_up(name)):
        for row in claim.rows:
            where = claim.key, row.label
            if claim.key == "domain" and row.label in ("128 images", "256 images"):
                continue  # not planned: the claim is of few labels, and of all
            assert claim.judge(row) != Verdict.NOT_RUN, where
            if row.estimate is not None:
                assert row.estimate.waiting == 0, where
                assert row.estimate.repeats in (3, 5) and row.estimate.over_repeats, where
                low, high = row.estimate.over_repeats
                assert (low + high) / 2 == pytest.approx(row.estimate.value), where


@JUDGED
def test_a_study_that_stopped_anywhere_can_be_judged(name, claims):
    count = len(made_up(name).runs)
    for done in range(1, count, 17):
        records = begun(name, done)
        for claim in claims(records):
            told = verdict_of(claim, {name[-1]: records})
            assert told.startswith((Verdict.NOT_RUN, Verdict.NOT_TESTABLE)) or " so far" in told


def test_a_dataset_that_is_planned_has_its_row():
    names = [run.name for run in made_up("open_data_a").runs]
    records = begun("open_data_a", names.index("tests/isic-none-1"))
    close = claims_of_a(records)[0]
    waiting = {row.label: row.decides for row in close.rows if close.judge(row) == Verdict.NOT_RUN}
    assert waiting == {
        "all sets together, teacher from imagenet": True,
        "chest, teacher from imagenet": True,
        "photographs, teacher from imagenet": True,
        "isic, teacher from imagenet": False,
    }
    assert close.verdict == Verdict.UNDECIDED


def test_what_one_change_gives_stands_beside_the_main_student_of_the_same_images():
    shown = {
        row[0].text: [cell.text for cell in row]
        for row in tables_of_a(made_up("open_data_a"))["causes"].rows
    }
    assert len(shown) == 9
    aside = shown.pop("own_organ, beside fewer")
    assert (aside[1], aside[2]) == (shown["own_organ"][1], shown["fewer"][1])
    for told in shown.values():
        assert told[6:] == [str(3 * IMAGES), "3"]
        gain = float(told[3].replace("−", "-"))
        assert float(told[1]) - float(told[2]) == pytest.approx(gain, abs=0.11)
    assert len({told[2] for told in shown.values()}) == 1


def test_the_main_student_is_of_the_images_that_those_with_a_change_saw():
    made = made_up("open_data_a")
    early = [run for run in made.runs if "-seed" not in run.name]  # all sets have as many runs
    records = replace(made, runs=tuple(sorted(early, key=lambda run: run.name)))
    unlike = ("ddti", "varied", "teacher")
    fewer = {run.name: run for run in records.runs if not run.name.split("/")[1].startswith(unlike)}
    values = {
        name: replace(told, values=told.values / 2) if name in fewer else told
        for name, told in records.values.items()
    }
    halved = numbers_of_a(replace(records, values=values))["causes/longer"]
    assert halved == numbers_of_a(records)["causes/longer"]


def test_what_each_rule_keeps_stands_beside_what_it_gives():
    rows = [[c.text for c in row] for row in tables_of_a(made_up("open_data_a"))["rule"].rows]
    assert [row[0] for row in rows] == ["chest", "ddti", "isic", "photographs", "all sets together"]
    assert all(row[1:4] == ["100", "100", "3"] for row in rows)
    assert all("over 5 repetitions" in each for row in rows for each in row[6:8])
    assert [row[8] != "–" for row in rows] == [False, True, False, False, False]
    early = numbers_of_a(begun("open_data_a", 1))
    whole = numbers_of_a(made_up("open_data_a"))
    assert (early["causes/longer"], early["kept/isic/calibrated"]) == ("not run yet",) * 2
    assert whole["kept/isic/calibrated"] == "100" and "over images" in whole["causes/longer"]


def test_what_measures_of_pseudo_masks_tell_stands_by_dataset():
    row, other = tables_of_a(made_up("open_data_a"))["measures"].rows
    assert [other[0].text, other[1].text] == ["busi", "1"]
    assert [c.text for c in row] == [
        "ddti", "2", "9", "21.2 to 21.2", "−0.10 to +0.46", "+0.66 to +0.66", "−0.50 to −0.50",
        "+0.70 to +0.70",
    ]  # fmt: skip


def test_the_whole_page_can_be_made():
    found = {"a": made_up("open_data_a"), "b": made_up("open_data_b")}
    text = reproduction.PAGE.read_text(encoding="utf-8")
    page = reproduction.make_page(text, found, ())
    for each in (*found["a"].runs, *found["b"].runs):
        if each.role in (Role.TEACHER, Role.FROM_SCRATCH):
            assert each.network in page
