"""A study's graph: axes, edges from paths, choices by validation images, and what is done."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.cli import parse_config
from nakt_dist.config import StudyConfig, as_plain
from nakt_dist.config.axes import combinations
from nakt_dist.config.placeholders import fill_in
from nakt_dist.config.repeated import RepeatedReader
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.records.run_record import RunRecord
from nakt_dist.stages.study import read_study
from nakt_dist.studies.dry_run import lines_of
from nakt_dist.studies.estimates import with_estimates
from nakt_dist.studies.folder import RunState, StudyFolder, count_words, statuses
from nakt_dist.studies.one_run import prepare, reason_of
from nakt_dist.studies.paths import Paths, edges_of
from nakt_dist.studies.standing import stand

CONFIGS = Path(__file__).parents[2] / "configs" / "study"


ROUNDS = {"count": 3, "first": "${first}", "next": "${root}/runs/${seed}-${round}"}


def test_zipped_values_go_together_and_cross_with_the_grid() -> None:
    step = {"matrix": {"seed": [0, 1]}, "zip": {"size": [10, 20], "epochs": [8, 4]}}
    assert combinations(step, {}) == [
        {"seed": 0, "size": 10, "epochs": 8},
        {"seed": 0, "size": 20, "epochs": 4},
        {"seed": 1, "size": 10, "epochs": 8},
        {"seed": 1, "size": 20, "epochs": 4},
    ]


def test_named_groups_of_settings_are_values_with_a_name() -> None:
    step = {"matrix": {"method": {"plain": {"teacher": None}, "both": {"teacher": "t"}}}}
    found = combinations({**step, "exclude": [{"method": "plain"}]}, {})
    assert found == [{"method": {"name": "both", "teacher": "t"}}]
    assert fill_in("runs/${method}-${method.teacher}", found[0]) == "runs/both-t"


def test_a_value_of_an_axis_may_be_a_definition_whose_own_names_are_filled_in_later() -> None:
    names = {"few": {"name": "few", "images": "${least}"}, "least": 64}
    found = combinations({"matrix": {"size": ["${few}", 8]}}, names)
    assert found == [{"size": names["few"]}, {"size": 8}]
    assert fill_in("${size.images}", {**names, **found[0]}) == 64


def test_random_values_lie_within_their_limits_and_more_of_them_are_the_same_ones() -> None:
    values = {
        "rate": {"log_uniform": [1e-5, 1e-1]}, "share": {"uniform": [0, 1]},
        "layers": {"integers": [1, 3]}, "kind": {"choice": ["a", "b"]},
    }  # fmt: skip
    few, many = (
        combinations({"random": {"count": count, "seed": 3, "values": values}}, {})
        for count in (5, 200)
    )
    assert many[:5] == few
    assert [each["sample"] for each in many] == list(range(200))
    assert all(1e-5 <= each["rate"] <= 1e-1 and 0 <= each["share"] <= 1 for each in many)
    assert {each["layers"] for each in many} == {1, 2, 3}
    assert {each["kind"] for each in many} == {"a", "b"}
    below = sum(each["rate"] < 1e-3 for each in many)
    assert 70 < below < 130  # half of the decades, half of the draws
    other = combinations({"random": {"count": 5, "seed": 4, "values": values}}, {})
    assert other != few


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"zip": {"a": [1], "b": [1, 2]}}, "different lengths: a 1, b 2"),
        ({"matrix": {"a": [1]}, "zip": {"a": [1]}}, "the axis 'a' is there twice"),
        ({"random": {"count": 2}}, "expected {count, seed, values"),
        ({"random": {"count": 0, "values": {"a": {"uniform": [0, 1]}}}}, "random.count is 0"),
        ({"random": {"count": 1, "values": {"a": {"unifrom": [0, 1]}}}}, "mean 'uniform'"),
        ({"random": {"count": 1, "values": {"a": {"log_uniform": [0, 1]}}}}, "both positive"),
        ({"random": {"count": 1, "values": {"a": {"integers": [0.5, 1]}}}}, r"expected \[low, hi"),
        ({"random": {"count": 1, "values": {"sample": {"choice": [1]}}}}, "'sample' a second time"),
        ({"random": {"count": 1, "sede": 1, "values": {}}}, "did you mean 'seed'"),
        ({"matrix": {"a": {"x": {"name": "y"}}}}, "matrix.a.x holds 'name'"),
        ({"rounds": 3}, "rounds is 3, expected {count, first, next}"),
        ({"rounds": {"count": 3, "first": "t", "nxt": "s"}}, "expected {count, first, next}"),
        ({"rounds": {"count": 0, "first": "t", "next": "s"}}, "rounds.count is 0, expected 1 to"),
        ({"rounds": ROUNDS, "matrix": {"round": [1]}}, "the axis 'round' is there twice"),
        ({"rounds": ROUNDS, "matrix": {"previous": [1]}}, "the axis 'previous' is there twice"),
    ],
)
def test_an_axis_that_is_none_is_refused(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        combinations(step, {})


def test_who_waits_for_whom_follows_from_paths() -> None:
    runs = [
        Paths("/r/published/a", (), ()),
        Paths("/r/shards/a", ("/r/published",), ()),  # a folder that holds what another writes
        Paths("/r/runs/t", ("/r/shards/a",), ()),
        Paths("/r/tests/t", ("/r/runs/t/best.safetensors", "/r/shards/a", "/elsewhere"), ()),
        Paths("/r/page", (), ("/r",)),
        Paths("/r/runs/tt", ("/r/runs/t-other",), ()),  # no part of a name is a folder
        Paths("/r/page2", (), ("/r/runs", "/r/page")),
        Paths("s3://bucket/x", ("s3://bucket/y",), ()),
        Paths(None, ("s3://bucket/x/z",), ()),
    ]
    edges = edges_of(runs)
    assert [each.needs for each in edges] == [
        (), (0,), (1,), (1, 2), (), (), (), (), (7,),
    ]  # fmt: skip
    assert edges[4].after == (0, 1, 2, 3, 5)
    assert edges[6].after == (2, 5)


def rounds_of(tmp_path: Path, *more: dict[str, Any], **changes: Any) -> Any:
    """Students of two seeds, each the teacher of the next round's."""
    repeated = {"rounds": "${rounds}", "matrix": {"seed": [0, 1]}}
    teach = {
        "dataset": "${root}/d", "output": "${root}/pseudo/${seed}-${round}",
        "teachers": [{"weights": "${previous}"}],
    }  # fmt: skip
    train = {
        "output": "${root}/runs/${seed}-${round}",
        "model": {"name": "unet"}, "recipe": {"steps": 5},
        "data": {"dataset": "${root}/d", "pseudo_labels": "${root}/pseudo/${seed}-${round}"},
        "validation": {"dataset": "${root}/d"}, "seed": "${seed}",
    }  # fmt: skip
    steps = [
        {"stage": "teach", **repeated, "config": teach},
        {"stage": "train", "name": "students", **repeated, "config": train},
        *more,
    ]
    given = {"rounds": ROUNDS, "first": "${root}/runs/teacher", **changes}
    return read_study(StudyConfig(steps=steps, root=str(tmp_path), definitions=given))


def test_in_each_round_the_students_of_the_one_before_teach(tmp_path: Path) -> None:
    study = rounds_of(tmp_path)
    runs = {run.name: run for run in study.runs}
    assert len(runs) == 2 * 2 * 3
    for seed in (0, 1):
        before = "runs/teacher"
        for number in (1, 2, 3):
            student, pseudo = runs[f"runs/{seed}-{number}"], runs[f"pseudo/{seed}-{number}"]
            assert pseudo.config.teachers[0].weights == str(tmp_path / before)
            assert pseudo.planned.needs == ((before,) if number > 1 else ())
            assert student.planned.needs == (f"pseudo/{seed}-{number}",)
            assert student.planned.axes == {"round": str(number), "seed": str(seed)}
            before = student.name
    assert len(study.with_needs([runs["runs/0-3"]])) == 6


def test_several_students_of_a_round_teach_together(tmp_path: Path) -> None:
    both = [{"weights": "${root}/runs/0-${round}"}, {"weights": "${root}/runs/1-${round}"}]
    rounds = {"count": 2, "first": [{"weights": "${first}"}], "next": both}
    teach = {"dataset": "${root}/d", "output": "${root}/all-${round}", "teachers": "${previous}"}
    step = {"stage": "teach", "rounds": rounds, "config": teach}
    runs = {run.name: run for run in rounds_of(tmp_path, step).runs}
    assert runs["all-1"].planned.needs == ()
    assert sorted(runs["all-2"].planned.needs) == ["runs/0-1", "runs/1-1"]


def test_the_first_teacher_and_the_last_student_may_be_chosen(tmp_path: Path) -> None:
    teacher = {**CHOOSE, "choose": "teacher"}
    choose = {**CHOOSE, "choose": "student", "of": "students", "over": ["round", "seed"]}
    config = TRAIN | {"output": "${root}/final", "seed": 0, "init": "${student.output}"}
    more = [{**GRID, "matrix": {"beta": [0.1, 0.5]}, "config": TRAIN | {
        "output": "${root}/grid/${beta}", "seed": 0}}, teacher, choose,
        {"stage": "train", "config": config}]  # fmt: skip
    study = rounds_of(tmp_path, *more, first="${teacher.output}")
    runs = {run.name: run for run in study.runs}
    assert runs["pseudo/0-1"].planned.needs == ("grid/0.1", "grid/0.5")
    assert len(runs["final"].planned.needs) == 6
    for run in study.runs:
        best = run.name in ("grid/0.5", "runs/1-2")
        write_record(str(run.config.output), best_validation_dice=50.0 + best)
    assert runs["pseudo/0-1"].decided()[0].teachers[0].weights == str(tmp_path / "grid/0.5")
    assert runs["final"].decided()[0].init == str(tmp_path / "runs/1-2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": {**ROUNDS, "next": "${previous}/x"}}, r"round=2.*no \$\{previous\}"),
        ({"rounds": {**ROUNDS, "first": "${previous}"}}, r"\$\{previous\} stands for itself"),
        ({"rounds": {**ROUNDS, "next": "${root}/${sed}"}}, r"no \$\{sed\}, did you mean 'seed'"),
        ({"round": 1}, "rounds defines 'round' a second time"),
        ({"previous": 1}, "rounds defines 'previous' a second time"),
    ],
)
def test_rounds_that_cannot_be_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        rounds_of(tmp_path, **changes)


def test_a_choice_cannot_be_called_as_what_rounds_name(tmp_path: Path) -> None:
    choose = {**CHOOSE, "of": "students", "over": ["seed"], "choose": "previous"}
    with pytest.raises(ConfigurationError, match="'previous' is an axis and a choice"):
        rounds_of(tmp_path, choose)


def test_paths_are_compared_by_the_place_that_they_mean(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("a")
    made = {"layout": "busi", "source": "~nobody-here/x", "output": f"{tmp_path}/a"}
    looks = {"pseudo_labels": "loop/x", "against": [f"file://{tmp_path}/link/../a"]}
    steps = [{"stage": "inspect", "config": looks}, {"stage": "pack", "config": made}]
    study = read_study(StudyConfig(steps=steps, root=str(tmp_path)))
    assert [run.planned.needs for run in study.runs] == [(), ("a",)]


TRAIN = {
    "output": "${root}/runs/${beta}-${seed}", "data": {"dataset": "${root}/d"},
    "validation": {"dataset": "${root}/d", "splits": ["validation"]}, "model": {"name": "unet"},
    "recipe": {"steps": 5}, "seed": "${seed}",
}  # fmt: skip
GRID = {
    "stage": "train", "name": "grid", "matrix": {"beta": [0.1, 0.5, 2.5], "seed": [0, 1]},
    "config": TRAIN | {"augmentation": {"largest_rotation": "${beta}"}},
}  # fmt: skip
CHOOSE = {"choose": "best", "of": "grid", "over": ["beta"], "by": "best_validation_dice"}
FINAL = {
    "stage": "train", "matrix": {"seed": [0, 1]},
    "config": TRAIN | {
        "output": "${root}/runs/final-${seed}",
        "augmentation": {"largest_rotation": "${best.beta}"},
    },
}  # fmt: skip


def write_record(output: str, config: Any = None, **metrics: float) -> None:
    Path(output).mkdir(parents=True, exist_ok=True)
    RunRecord("train", "r", as_plain(config) if config else {}, metrics=metrics).write(Path(output))


def chosen_study(tmp_path: Path, *more: dict[str, Any], **changes: Any) -> Any:
    steps = [FINAL, {**CHOOSE, **changes}, GRID, *more]  # the order of the file does not matter
    return read_study(StudyConfig(steps=steps, root=str(tmp_path / "r")))


def test_the_right_value_is_chosen_for_each_seed(tmp_path: Path) -> None:
    study = chosen_study(tmp_path)
    dice = {"0.1-0": 0.7, "0.5-0": 0.9, "2.5-0": 0.8, "0.1-1": 0.3, "0.5-1": 0.1, "2.5-1": 0.2}
    finals = [run for run in study.runs if "final" in run.name]
    for number, run in enumerate(finals):  # its candidates share its seed
        assert set(run.planned.needs) == {f"runs/{beta}-{number}" for beta in (0.1, 0.5, 2.5)}
    with pytest.raises(DatasetError, match="no run record"):
        finals[0].decided()
    for name, value in dice.items():
        write_record(str(tmp_path / "r" / "runs" / name), best_validation_dice=value)

    taken = [run.decided() for run in finals]

    assert [config.augmentation.largest_rotation for config, _ in taken] == [0.5, 0.1]
    told = taken[0][1]["best"]
    assert told["taken"]["output"].endswith("runs/0.5-0")
    assert list(told["compared"].values()) == [0.7, 0.9, 0.8]


def test_without_a_common_axis_the_mean_over_the_others_decides(tmp_path: Path) -> None:
    final = {"stage": "train", "config": TRAIN | {
        "output": "${root}/final", "seed": 0, "augmentation": {"largest_rotation": "${best.beta}"},
    }}  # fmt: skip
    study = read_study(StudyConfig(steps=[GRID, CHOOSE, final], root=str(tmp_path)))
    dice = {"0.1-0": 0.9, "0.1-1": 0.1, "0.5-0": 0.6, "0.5-1": 0.6, "2.5-0": 0.2, "2.5-1": 0.7}
    for name, value in dice.items():
        write_record(str(tmp_path / "runs" / name), best_validation_dice=value)
    config, _ = study.runs[-1].decided()
    assert config.augmentation.largest_rotation == 0.5


@pytest.mark.parametrize("value", [float("nan"), None, True])
def test_a_run_without_the_metric_is_never_left_out_silently(tmp_path: Path, value: Any) -> None:
    study = chosen_study(tmp_path)
    for name in ("0.1-0", "0.5-0", "2.5-0"):
        write_record(str(tmp_path / "r" / "runs" / name), best_validation_dice=value)
    with pytest.raises(DatasetError, match="best_validation_dice is"):
        study.by_name(["runs/final-0"])[0].decided()


EVALUATE = {"weights": "w", "dataset": "${root}/d", "output": "${root}/tests/${beta}"}
TESTED = {"stage": "evaluate", "name": "tested", "matrix": {"beta": [1, 2]}, "config": EVALUATE}


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"of": "tested", "by": "mean_dice"}, TESTED, "is tested on splits test. What is chosen"),
        ({"by": "mean_dice"}, TESTED, "of trainings expected best_validation_auroc or"),
        ({"of": "gird"}, TESTED, "no step 'gird', did you mean 'grid'"),
        ({"over": ["bta"]}, TESTED, "over names 'bta', which is no axis of 'grid'"),
        ({"choose": "root"}, TESTED, "'root' is a definition already"),
        ({"choose": "seed"}, TESTED, "'seed' is an axis and a choice"),
        ({"by": 3}, TESTED, "expected choose, of and by as texts"),
        ({"best": 3}, TESTED, "a step has no 'best'"),
    ],
)
def test_no_choice_is_made_by_test_images_or_of_nothing(
    tmp_path: Path, changes: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        chosen_study(tmp_path, more, **changes)


def test_validation_images_that_the_study_tests_on_are_refused(tmp_path: Path) -> None:
    validation = {"dataset": "${root}/d", "splits": ["test"]}
    grid = {**GRID, "config": {**GRID["config"], "validation": validation}}
    steps = [grid, CHOOSE, FINAL, TESTED]
    with pytest.raises(ConfigurationError, match="Keep validation and test images apart"):
        read_study(StudyConfig(steps=steps, root=str(tmp_path)))
    read_study(StudyConfig(steps=steps[:3], root=str(tmp_path)))  # another split of that name
    other = {**TESTED, "config": {**EVALUATE, "dataset": "${root}/./d/"}}
    with pytest.raises(ConfigurationError, match="Keep validation and test images apart"):
        read_study(StudyConfig(steps=[*steps[:3], other], root=str(tmp_path)))


@pytest.mark.parametrize("splits", [None, ["validation", "test"]])
def test_a_test_that_holds_validation_images_among_others_is_refused(
    tmp_path: Path, splits: list[str] | None
) -> None:
    validation = {"dataset": "${root}/d", "splits": ["validation"]}
    grid = {**GRID, "config": {**GRID["config"], "validation": validation}}
    tested = {**TESTED, "config": {**EVALUATE, "splits": splits}}
    with pytest.raises(ConfigurationError, match="Keep validation and test images apart"):
        read_study(StudyConfig(steps=[grid, CHOOSE, FINAL, tested], root=str(tmp_path)))
    alone = {**TESTED, "config": {**EVALUATE, "splits": ["validation"]}}
    read_study(StudyConfig(steps=[grid, CHOOSE, FINAL, alone], root=str(tmp_path)))


VALIDATED = {**TESTED, "config": {**EVALUATE, "splits": ["validation"]}}


@pytest.mark.parametrize(
    "by", ["calibration_error_mean", "brier_score_mean", "hd95_pixels_mean", "dice_std", "images"]
)
def test_nothing_is_chosen_by_the_highest_of_what_is_no_gain(tmp_path: Path, by: str) -> None:
    choose = {**CHOOSE, "of": "tested"}
    with pytest.raises(ConfigurationError, match="of which more is better"):
        read_study(StudyConfig(steps=[VALIDATED, {**choose, "by": by}], root=str(tmp_path)))
    read_study(StudyConfig(steps=[VALIDATED, {**choose, "by": "dice_mean"}], root=str(tmp_path)))


@pytest.mark.parametrize(
    ("unlike", "named"),
    [
        ({"splits": ["${beta}"]}, "splits"),
        ({"pseudo_labels": "${root}/pseudo/${beta}"}, "pseudo_labels"),
        ({"dataset": "${root}/d-${beta}", "pseudo_labels": "${root}/pseudo/${beta}"}, None),
        ({"splits": ["part-${seed}"]}, None),  # each value is judged by all of them
    ],
)
def test_runs_that_are_judged_by_unlike_images_are_not_compared(
    tmp_path: Path, unlike: dict[str, Any], named: str | None
) -> None:
    validation = {"dataset": "${root}/d", "splits": ["validation"], **unlike}
    config = {**GRID["config"], "validation": validation, "augmentation": {}}
    grid = {**GRID, "matrix": {"beta": ["1", "2"], "seed": [0, 1]}, "config": config}
    own = {"output": "${root}/final", "seed": 0, "init": "${root}/first-${best.beta}"}
    final = {"stage": "train", "config": TRAIN | own}
    config = StudyConfig(steps=[grid, CHOOSE, final], root=str(tmp_path))
    if named is None:
        read_study(config)
        return
    with pytest.raises(ConfigurationError, match=f"are judged by other {named}, so that"):
        read_study(config)


def trained_on(validated: list[str], edema: str = "zero") -> dict[str, Any]:
    policy = {"uncertain": {"default": "zero", "Edema": edema}, "blank": "zero"}
    return {"validated_findings": validated, "lineage": {"label_policy": policy}}


def with_tests(names: list[str]) -> dict[str, Any]:
    labels = [{"name": name, "auroc": 80.0} for name in names]
    return {"labels": [*labels, {"name": "Fracture", "auroc": None}]}


@pytest.mark.parametrize(
    ("step", "stage", "metric", "first", "second", "message"),
    [
        ({**GRID, "matrix": {"beta": [1, 2]}}, "train", "best_validation_auroc",
         trained_on(["Edema", "Mass"]), trained_on(["Edema"]), "2 findings for .*1 and of 1 for"),
        ({**GRID, "matrix": {"beta": [1, 2]}}, "train", "best_validation_auroc",
         trained_on(["Edema"]), trained_on(["Edema"], "one"), r"\(apart: Edema\)"),
        (VALIDATED, "evaluate", "auroc_mean",
         with_tests(["Edema", "Mass"]), with_tests(["Edema"]), r"\(apart: Mass\)"),
    ],
)  # fmt: skip
def test_means_over_unlike_findings_are_not_compared(
    tmp_path: Path, step: dict[str, Any], stage: str, metric: str,
    first: dict[str, Any], second: dict[str, Any], message: str,
) -> None:  # fmt: skip
    if stage == "train":
        output = {"output": "${root}/tests/${beta}", "seed": 0}
        step = {**step, "config": {**step["config"], **output}}
    choose = {**CHOOSE, "of": step["name"], "by": metric}
    own = {
        "output": "${root}/final",
        "seed": 0,
        "augmentation": {"largest_rotation": "${best.beta}"},
    }
    steps = [step, choose, {"stage": "train", "config": TRAIN | own}]
    final = read_study(StudyConfig(steps=steps, root=str(tmp_path))).by_name(["final"])[0]

    def write(name: str, details: dict[str, Any]) -> None:
        output = tmp_path / "tests" / name
        output.mkdir(parents=True, exist_ok=True)
        value = 0.9 if name == "1" else 0.8
        RunRecord(stage, "r", {}, metrics={metric: value}, details=details).write(output)

    write("1", first)
    write("2", second)
    with pytest.raises(DatasetError, match=message):
        final.decided()
    write("2", first)
    assert final.decided()[0].augmentation.largest_rotation == 1


def test_means_over_runs_of_which_some_values_lack_some_are_not_compared(tmp_path: Path) -> None:
    grid = {**GRID, "exclude": [{"beta": 0.1, "seed": 1}]}
    final = {"stage": "train", "config": TRAIN | {
        "output": "${root}/final", "seed": 0, "augmentation": {"largest_rotation": "${best.beta}"},
    }}  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"exclude leaves 1 of .*/0.1-0, and 2 with .*0.5"):
        read_study(StudyConfig(steps=[grid, CHOOSE, final], root=str(tmp_path)))
    alike = {**GRID, "exclude": [{"seed": 1}]}
    read_study(StudyConfig(steps=[alike, CHOOSE, final], root=str(tmp_path)))
    both = {**CHOOSE, "over": ["beta", "seed"]}
    read_study(StudyConfig(steps=[grid, both, final], root=str(tmp_path)))


def test_several_runs_of_equal_values_have_no_output_to_choose(tmp_path: Path) -> None:
    config = TRAIN | {"output": "${root}/final", "seed": 0, "init": "${best.output}"}
    final = {"stage": "train", "config": config}
    told = r"\$\{best.output\}.*; 2 runs have these values, .*name the axes .* in over, beside beta"
    with pytest.raises(ConfigurationError, match=told):
        read_study(StudyConfig(steps=[GRID, CHOOSE, final], root=str(tmp_path)))


def test_an_output_cannot_depend_on_what_is_not_known_yet(tmp_path: Path) -> None:
    final = {**FINAL, "config": {**FINAL["config"], "output": "${root}/${best.beta}-${seed}"}}
    with pytest.raises(ConfigurationError, match=r"output holds \$\{best…\}, which is known only"):
        read_study(StudyConfig(steps=[GRID, CHOOSE, final], root=str(tmp_path)))


def test_nor_where_a_definition_holds_the_settings(tmp_path: Path) -> None:
    config = {**FINAL["config"], "output": "${root}/${best.beta}-${seed}"}
    steps = [GRID, CHOOSE, {**FINAL, "config": "${all}"}]
    with pytest.raises(ConfigurationError, match="output holds"):
        read_study(StudyConfig(steps=steps, root=str(tmp_path), definitions={"all": config}))


def test_a_choice_is_among_runs_of_equal_values_not_of_those_that_hold_more(tmp_path: Path) -> None:
    kinds = [{"rate": 0.1}, {"rate": 0.1, "gamma": 2}]
    config = TRAIN | {"output": "${root}/${kind.rate}-${beta}-${kinds}", "seed": 0}
    grid = {**GRID, "zip": {"kind": kinds, "kinds": [0, 1]}, "matrix": {"beta": [1, 2]}}
    final = TRAIN | {
        "output": "${root}/final",
        "seed": 0,
        "teacher": None,
        "init": "${best.output}",
    }
    steps = [
        {**grid, "config": config}, CHOOSE,
        {"stage": "train", "matrix": {"kind": kinds[:1]}, "config": final},
    ]  # fmt: skip
    (run,) = [
        run for run in read_study(StudyConfig(steps=steps, root=str(tmp_path))).runs
        if run.name == "final"
    ]  # fmt: skip
    assert set(run.planned.needs) == {"0.1-1-0", "0.1-2-0"}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"stage": "verify", "config": {"folder": "d"}, "processes": 2}, "verify runs as one proc"),
        (FINAL | {"accelerate_config": "no.yaml"}, "accelerate_config is no.yaml: no such file"),
    ],
)
def test_a_launch_that_cannot_be_is_refused_before_the_first_run(
    tmp_path: Path, step: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_study(StudyConfig(steps=[GRID, CHOOSE, step], root=str(tmp_path)))


def test_each_run_has_a_folder_of_its_own_whatever_its_name(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    names = ["a/b", "a--b", "a/-/b", "ü" * 200, "ü" * 201, "x" * 300]
    assert len({folder.of_run(name) for name in names}) == len(names)
    for name in names:
        folder.write_state(name, RunState("done"))


def test_a_reason_is_of_the_last_try(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    folder.of_run("a").mkdir(parents=True)
    folder.log_path("a").write_text("nakt: error: of before\n")
    start = folder.log_path("a").stat().st_size
    assert reason_of(folder, "a", -9, start) == "signal 9: it said nothing"
    assert reason_of(folder, "a", 1) == "exit code 1: nakt: error: of before"


def test_runs_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    def evaluate(output: str, weights: str) -> dict[str, Any]:
        config = {
            "weights": f"${{root}}/{weights}",
            "dataset": "d",
            "output": f"${{root}}/{output}",
        }
        return {"stage": "evaluate", "config": config}

    with pytest.raises(ConfigurationError, match="in a circle: steps"):
        read_study(StudyConfig(steps=[evaluate("a", "b"), evaluate("b", "a")], root=str(tmp_path)))


def test_settings_read_from_their_like_are_those_of_the_parser() -> None:
    study = read_study(parse_config("study", [str(CONFIGS / "demo_chest.yaml")]))
    for run in study.runs:
        assert run.config == parse_config(run.planned.stage, [], as_plain(run.config))


@settings(deadline=None, max_examples=8)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "count": st.one_of(st.integers(-1, 5), st.none(), st.just("3")),
                "steps": st.one_of(st.integers(0, 3), st.floats(0, 3)),
                "rate": st.one_of(st.integers(0, 1), st.floats(1e-5, 1), st.just("1e-3")),
                "mode": st.sampled_from(["divide", "multiply", "minus"]),
                "output": st.sampled_from(["a", "b", "~/x", "null", "1", "x y"]),
                "splits": st.lists(st.sampled_from(["train", "on"]), max_size=2),
            }
        ),
        min_size=2,
        max_size=4,
    )
)
def test_whatever_the_values_the_repeated_reader_says_what_the_parser_says(
    several: list[dict[str, Any]],
) -> None:
    reader = RepeatedReader(lambda values: parse_config("train", [], values))
    for each in several:
        values = {
            "output": each["output"],
            "data": {"dataset": "d", "count": each["count"], "splits": each["splits"]},
            "recipe": {"steps": each["steps"], "learning_rate": each["rate"]},
            "teacher": {"weights": "w", "attention": {"weight_mode": each["mode"]}},
            "task": "classification",
        }
        found: list[Any] = []
        for read in (reader.read, lambda given: parse_config("train", [], given)):
            try:
                found.append(as_plain(read(values)))
            except ConfigurationError as error:
                found.append(str(error))
        assert repr(found[0]) == repr(found[1])


def small_study(tmp_path: Path) -> Any:
    phantoms = {"kind": "dermoscopy", "output": "${root}/p-${seed}", "seed": "${seed}", "count": 3}
    pack = {"layout": "isic2019", "source": "${root}/p-${seed}", "output": "${root}/s-${seed}"}
    steps = [
        {"stage": "phantoms", "matrix": {"seed": [0, 1]}, "config": phantoms},
        {"stage": "pack", "matrix": {"seed": [0, 1]}, "config": pack},
        {"stage": "report", "config": {"runs": ["${root}"], "output": "${root}/page"}},
    ]
    return read_study(StudyConfig(steps=steps, root=str(tmp_path)))


def note_done(folder: StudyFolder, run: Any, content: str = "first") -> None:
    """Does a run that leaves a manifest."""
    prepare(run, folder, 1, None)
    Path(run.planned.output).mkdir(parents=True, exist_ok=True)
    (Path(run.planned.output) / "manifest.json").write_text(content)
    folder.end(run.name, "done", 0, None, run.planned.output)


def done_names(study: Any, folder: StudyFolder) -> list[str]:
    return [name for name, standing in stand(study, folder).items() if standing.done]


def test_done_is_what_ended_with_these_settings_behind_all_that_it_needs(tmp_path: Path) -> None:
    study, folder = small_study(tmp_path), StudyFolder(tmp_path)
    assert not any(standing.done for standing in stand(study, folder).values())
    for run in study.runs[:4]:
        note_done(folder, run)
    assert done_names(study, folder) == ["p-0", "p-1", "s-0", "s-1"]

    note_done(folder, study.runs[0])  # made again, alike
    assert done_names(study, folder) == ["p-0", "p-1", "s-0", "s-1"]
    note_done(folder, study.runs[0], "again")  # what reads it is looked at again
    assert not stand(study, folder)["s-0"].done
    (tmp_path / "p-1" / "manifest.json").rename(tmp_path / "p-1" / "other")  # but not as it was
    assert done_names(study, folder) == ["p-0"]


def test_a_page_is_made_again_when_a_run_below_its_folders_was(tmp_path: Path) -> None:
    study, folder = small_study(tmp_path), StudyFolder(tmp_path)
    for run in study.runs:
        note_done(folder, run)
    assert "page" in done_names(study, folder)
    failed = folder.end("s-1", "failed", 1)
    assert "page" not in done_names(study, folder)
    note_done(folder, study.by_name(["s-1"])[0], "again")  # the page is of before
    assert failed.left == () and done_names(study, folder) == ["p-0", "p-1", "s-0", "s-1"]


def test_what_was_made_again_by_hand_makes_what_reads_it_stale(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    for run in study.runs:
        if "final" not in run.name:
            write_record(run.config.output, run.config, best_validation_dice=0.5)
            folder.end(run.name, "done", 0, None, run.config.output)
    final = study.by_name(["runs/final-0"])[0]
    config, _ = final.decided()
    prepare(final, folder, 1, None)
    write_record(config.output, config)
    folder.end(final.name, "done", 0, None, config.output)
    assert final.name in done_names(study, folder)
    other = study.by_name(["runs/0.1-0"])[0].config
    write_record(other.output, other, best_validation_dice=0.5, steps_now=3)
    assert final.name not in done_names(study, folder)


@pytest.mark.parametrize("spelling", ["{}/", "{}/../{name}", "./{}", "{absolute}"])
def test_another_spelling_of_the_root_is_the_same_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    study, folder = small_study(Path("r")), StudyFolder("r")
    for run in study.runs:
        note_done(folder, run)
    root = spelling.format("r", name="r", absolute=tmp_path / "r")
    config = StudyConfig(steps=study.config.steps, root=root)
    standings = stand(read_study(config), StudyFolder(root))
    assert all(each.done and not each.changed for each in standings.values()), standings


def test_settings_left_open_are_not_told_as_changed(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    run = study.runs[0]
    filled = as_plain(run.config) | {"preprocessing": {"mean": 0.0}}
    Path(run.config.output).mkdir(parents=True)
    RunRecord("train", "r", filled).write(Path(run.config.output))
    standing = stand(study, folder)[run.name]
    assert not standing.done and standing.changed == ()  # its stage finds out at once


def test_a_run_of_before_a_setting_was_there_stays_done(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    run = study.runs[0]
    older = as_plain(run.config)
    assert older["recipe"].pop("ema_decay") is None and older.pop("teacher") is None
    Path(run.config.output).mkdir(parents=True)
    RunRecord("train", "r", older).write(Path(run.config.output))
    assert stand(study, folder)[run.name].done
    older["recipe"].pop("learning_rate")  # what it did then nobody knows
    RunRecord("train", "r", older).write(Path(run.config.output))
    assert not stand(study, folder)[run.name].done


@pytest.mark.parametrize("value", [{"status": 3}, {"status": "done", "ended": "x"}, {}, []])
def test_a_damaged_state_is_none(tmp_path: Path, value: Any) -> None:
    study, folder = small_study(tmp_path), StudyFolder(tmp_path)
    folder.of_run("p-0").mkdir(parents=True)
    (folder.of_run("p-0") / "state.json").write_text(json.dumps(value))
    assert folder.read_state("p-0") is None
    assert not stand(study, folder)["p-0"].done


def test_a_changed_setting_is_never_silently_the_old_run(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    run = study.runs[0]
    write_record(run.config.output, run.config)
    assert stand(study, folder)[run.name].done
    changed = as_plain(run.config)
    changed["recipe"]["learning_rate"] = 0.5
    path = Path(run.config.output) / "record.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "config": changed}))

    standing = stand(study, folder)[run.name]

    assert not standing.done
    assert standing.changed == ("recipe.learning_rate: found 0.5, expected 0.0001",)
    told = "\n".join(lines_of(study, stand(study, folder), study.runs))
    assert "CHANGED SETTINGS: recipe.learning_rate: found 0.5" in told
    assert "1 run ended with other settings" in told


def test_of_a_part_of_a_study_that_part_is_told_alone(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    (run,) = study.by_name(["runs/0.1-0"])
    write_record(run.config.output, run.config)
    standings = stand(study, folder)
    (final, *_) = (each for each in study.runs if "final" in each.name)
    told = lines_of(study, standings, study.with_needs([final]))
    assert told[0].startswith(f"study r: 4 of {len(study.runs)} runs below ")
    assert "1 done, 3 to do" in told
    assert not any("-1" in line.replace(str(tmp_path), "") for line in told)
    assert "0 done, 1 to do" in lines_of(study, standings, [final])


def test_a_run_that_went_on_has_taken_what_all_its_launches_took(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    run = study.by_name(["runs/0.1-0"])[0]
    for status in ("interrupted", "failed"):
        state = folder.read_state(run.name) or RunState("queued")
        folder.write_state(run.name, replace(state, status=status, started=100.0, ended=160.0))
        prepare(run, folder, 1, None)
    told = folder.read_state(run.name)
    assert told is not None and (told.seconds, told.earlier_seconds) == (None, 120.0)
    folder.write_state(run.name, replace(told, status="done", started=0.0, ended=30.0))
    estimates = with_estimates(study, folder, []).runs
    assert {each.planned.estimate_seconds for each in estimates} == {150.0}
    prepare(run, folder, 1, None)  # it is made again
    again = folder.read_state(run.name)
    assert again is not None and again.earlier_seconds == 0


def test_hours_come_from_runs_like_these(tmp_path: Path) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    assert all(run.planned.estimate_seconds is None for run in study.runs)
    run = study.runs[0]
    folder.write_state(run.name, RunState("done", started=100.0, ended=160.0))
    told = with_estimates(study, folder, [])
    assert {run.planned.estimate_seconds for run in told.runs} == {60.0}
    other = tmp_path / "other"
    config = as_plain(run.config)
    config["recipe"]["steps"] = 10
    other.mkdir()
    record = RunRecord(
        "train", "r", config, metrics={"steps_now": 5}, details={"total_steps": 10}, seconds=30.0
    )
    record.write(other)
    told = with_estimates(study, folder, [str(tmp_path / "other")])
    assert {run.planned.estimate_seconds for run in told.runs} == {45.0}  # 12 and 6 s a step


def test_the_word_of_each_run_follows_from_the_states(tmp_path: Path) -> None:
    plan = small_study(tmp_path).plan
    states: dict[str, RunState | None] = {"p-0": RunState("done"), "p-1": RunState("failed")}
    words = [status.word for status in statuses(plan, states)]
    assert words == ["done", "failed", "ready", "blocked", "waiting"]
    states["s-0"] = RunState("done")
    assert [each.word for each in statuses(plan, states)][-1] == "ready"  # it needs none of them
    states["s-0"] = RunState("running", job="7_1", started=1.0)
    for queue, word in (
        (None, "running"),
        ({"7_1": "RUNNING (None)"}, "running"),
        ({"7_1": "PENDING (BeginTime)"}, "requeued"),
        ({}, "failed"),
    ):
        assert statuses(plan, states, queue)[2].word == word
    states["s-0"] = RunState("queued", job="7_1")
    assert statuses(plan, states, {"7_1": "PENDING (Priority)"})[2].reason == "PENDING (Priority)"
    assert count_words(statuses(plan, states)) == {
        "waiting": 1, "queued": 1, "failed": 1, "blocked": 1, "done": 1,
    }  # fmt: skip


def test_a_plan_and_a_state_are_read_as_they_were_written(tmp_path: Path) -> None:
    plan, folder = small_study(tmp_path).plan, StudyFolder(tmp_path)
    folder.write_plan(plan)
    assert folder.read_plan() == plan
    state = RunState("failed", attempt=2, exit_code=1, reason="x")
    folder.write_state("a/b", state)
    assert folder.read_state("a/b") == state
    (folder.of_run("a/b") / "state.json").write_text("{")
    assert folder.read_state("a/b") is None
    (folder.plan_path).write_text('{"format": "nakt-study/1", "runs": [{}]}')
    with pytest.raises(DatasetError, match="not a plan of a study"):
        folder.read_plan()


def test_a_run_is_found_by_its_name_with_and_without_the_root_before_it(tmp_path: Path) -> None:
    step = {"stage": "report", "config": {"runs": [str(tmp_path)], "output": "${root}/page"}}
    study = read_study(StudyConfig(root=str(tmp_path), steps=[step]))
    assert [run.name for run in study.by_name(["page"])] == ["page"]
    assert study.by_name([f"{tmp_path.name}/page"]) == study.by_name(["page"])
    with pytest.raises(ConfigurationError, match="no run 'pag', did you mean 'page'"):
        study.by_name(["pag"])
