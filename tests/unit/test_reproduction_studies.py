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
from benchmarks.reproduction.collecting import AS_PRINTED, CALIBRATED
from benchmarks.reproduction.records import Curve, Images, Records, Run, Values
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
            tested_on=Path(run.config["dataset"]).name,
            role=self.role(weights, config),
            network=self.network(config),
            parameters=len(self.network(config)),
            start=self.start(config),
            learnt=self.joined(Path(each["dataset"]).name for each in sources),
            samples=sources[0].get("count") or 400,
            before=400,
            rule="" if not rules else kind_of(rules[0]),
            exclusion="",
            transferal="" if findings else self.joined(Path(e["dataset"]).name for e in taught),
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
             "transferal": Path(run.config["pseudo_labels"]).name.rsplit("-", 1)[0]}
            for run in looked
        ]  # fmt: skip


def kind_of(rule: Mapping[str, Any]) -> str:
    return CALIBRATED if rule.get("calibration") else AS_PRINTED


@cache
def made_up(name: str) -> Records:
    study = MadeUp(name)
    runs = tuple(study.evaluations())
    planned = [run.config for run in study.runs if run.planned.stage == "evaluate"]
    tests: dict[Any, int] = {}
    values = {}
    for run, config in zip(runs, planned, strict=True):
        test = config["dataset"], tuple(config.get("splits") or ())
        first = tests.setdefault(test, IMAGES * len(tests))
        rows = np.arange(first, first + IMAGES)
        values[run.name] = Values(rows, np.full((IMAGES, 1), run.mean))
    about: Mapping[str, Any] = {
        "planned": len(runs), "done": len(runs), "not_run_yet": {}, "kept": study.kept(),
        "left_out": [],
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


@pytest.mark.parametrize(
    ("name", "claims"), [("open_data_a", claims_of_a), ("open_data_b", claims_of_b)]
)
def test_every_claim_is_judged_by_the_whole_study(name, claims):
    for claim in claims(made_up(name)):
        for row in claim.rows:
            if row.decides:
                assert claim.judge(row) != Verdict.NOT_RUN, (claim.key, row.label)


def test_the_whole_page_can_be_made():
    found = {"a": made_up("open_data_a"), "b": made_up("open_data_b")}
    text = reproduction.PAGE.read_text(encoding="utf-8")
    page = reproduction.make_page(text, found, ())
    for each in (*found["a"].runs, *found["b"].runs):
        if each.role in (Role.TEACHER, Role.FROM_SCRATCH):
            assert each.network in page
