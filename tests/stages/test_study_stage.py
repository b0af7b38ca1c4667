"""``nakt study``: a mistake costs nothing, and what is done is not done again."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.cli import main
from nakt_dist.config import StudyConfig
from nakt_dist.config.axes import combinations
from nakt_dist.config.placeholders import fill_in
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.files import read_json
from nakt_dist.stages import study
from tests.recipes import file_hashes

PHANTOMS = {
    "stage": "phantoms",
    "config": {
        "kind": "breast_ultrasound", "output": "${root}/published", "count": 8, "image_size": 32,
    },
}  # fmt: skip
PACK = {
    "stage": "pack",
    "config": {
        "layout": "busi", "source": "${root}/published", "output": "${root}/shards",
        "image": {"height": 32, "width": 32}, "workers": 1,
    },
}  # fmt: skip


def changed(step: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {**step, "config": {**step["config"], **settings}}


def test_two_steps_run_and_a_second_run_writes_nothing(tmp_path: Path) -> None:
    config = StudyConfig(steps=[PHANTOMS, PACK], root=str(tmp_path / "runs"))

    record = study.run(config)

    assert record.counts["runs"] == record.counts["done_now"] == 2
    before = file_hashes(tmp_path / "runs")
    assert {"published/PHANTOM.json", "shards/manifest.json"} <= before.keys()
    files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    times = {path: path.stat().st_mtime_ns for path in files}
    again = study.run(config)
    assert again.counts["done_now"] == 0
    after = file_hashes(tmp_path / "runs")
    for files in (before, after):
        del files[".study/plan.json"]  # which now tells how long the runs took
    assert after == before
    assert all(
        path.stat().st_mtime_ns == time for path, time in times.items() if path.name != "plan.json"
    )


def test_a_file_and_another_root_are_taken_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"root": "nowhere", "steps": [PHANTOMS, PACK]}))

    assert main(["study", str(file), f"--root={tmp_path / 'runs'}"]) == 0

    assert (tmp_path / "runs" / "shards" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (changed(PACK, sampels_per_shard=4), r"steps\[2\], pack: .*sampels_per_shard"),
        (changed(PACK, samples_per_shard="four"), r"steps\[2\], pack: .*samples_per_shard"),
        (changed(PACK, samples_per_shard=0), r"steps\[2\], pack: .*samples_per_shard"),
        (changed(PACK, image={"hieght": 32}), r"steps\[2\], pack: .*hieght"),
        ({"stage": "pakc", "config": PACK["config"]}, r"steps\[2\]"),
        ({"stage": "pack"}, r"steps\[2\]"),
        ({"stage": "study", "config": {"steps": []}}, r"steps\[2\]"),
    ],
)
def test_a_mistake_in_the_last_step_is_found_before_the_first_begins(
    tmp_path: Path, last: dict[str, Any], message: str
) -> None:
    config = StudyConfig(steps=[PHANTOMS, last], root=str(tmp_path / "runs"))

    with pytest.raises(ConfigurationError, match=message):
        study.run(config)

    assert not (tmp_path / "runs").exists()


def test_a_misspelt_setting_names_the_nearest(tmp_path: Path) -> None:
    config = StudyConfig(
        steps=[PHANTOMS, changed(PACK, sampels_per_shard=4)], root=str(tmp_path / "runs")
    )
    with pytest.raises(ConfigurationError, match="did you mean 'samples_per_shard'"):
        study.run(config)


def test_a_failing_step_keeps_what_was_done_before_it(tmp_path: Path) -> None:
    wrong = changed(PACK, layout="voc2012")
    config = StudyConfig(steps=[PHANTOMS, wrong], root=str(tmp_path / "runs"))
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"root": config.root, "steps": config.steps}))

    assert main(["study", str(file)]) == 1

    assert (tmp_path / "runs" / "published" / "PHANTOM.json").exists()
    study.run(StudyConfig(steps=[PHANTOMS, PACK], root=config.root))
    assert (tmp_path / "runs" / "shards" / "manifest.json").exists()


def packed(**settings: Any) -> dict[str, Any]:
    """A step that packs the phantoms at two sizes with two seeds."""
    config = {**PACK["config"], "output": "${root}/${size.name}-${seed}", "seed": "${seed}"}
    return {
        "stage": "pack",
        "matrix": {
            "size": [{"name": "few", "count": 3}, {"name": "all", "count": None}],
            "seed": [0, 1],
        },
        "config": {**config, "count": "${size.count}", **settings},
    }


def test_a_matrix_runs_a_step_for_every_combination(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = packed() | {"exclude": [{"size": {"name": "all"}, "seed": 1}]}
    config = StudyConfig(steps=[PHANTOMS, step], root=str(tmp_path))

    record = study.run(config)

    assert record.counts["runs"] == 4
    counts = {
        path.parent.name: read_json(path, "manifest")["counts"]["packed"]
        for path in tmp_path.glob("*/manifest.json")
    }
    assert counts == {"few-0": 3, "few-1": 3, "all-0": 7}  # one of the eight has no lesion
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert lines == [
        "[1/4] phantoms published",
        "[2/4] pack size=few seed=0",
        "[3/4] pack size=few seed=1",
        "[4/4] pack size=all seed=0",
    ]


def test_a_file_with_definitions_and_a_matrix(tmp_path: Path) -> None:
    step = packed(image="${image}", workers="${workers}")
    step["matrix"] = {"size": "${sizes}", "seed": [7]}
    values = {
        "root": str(tmp_path / "runs"),
        "definitions": {
            "image": {"height": 32, "width": 48},
            "workers": 1,
            "sizes": [{"name": "s", "count": 2}],
        },
        "steps": [PHANTOMS, step],
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(values))

    assert main(["study", str(file)]) == 0

    manifest = read_json(tmp_path / "runs" / "s-7" / "manifest.json", "manifest")
    assert (manifest["height"], manifest["width"]) == (32, 48)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (packed(seed="${sede}"), r"\(size=few seed=0\): there is no \$\{sede\}.*mean 'seed'"),
        (packed(count="${size.cuont}"), r"has no part 'cuont', did you mean 'count'"),
        (packed(seed="x${seed}"), r"steps\[2\], pack \(size=few seed=0\): .*seed"),
        (
            packed(output="${root}/${sizes}"),
            r"\$\{sizes\} is \[1\].*cannot be part of the longer text",
        ),
        (packed(output="${root}/${seed}"), r"\(size=all seed=0\): its output .* is also that of"),
        (packed() | {"exlude": []}, r"steps\[2\], pack: a step has no 'exlude', did you mean 'ex"),
        (packed() | {"exclude": [{"sede": 1}]}, r"exclude names 'sede'.*did you mean 'seed'"),
        (
            packed() | {"exclude": [{"seed": 2}]},
            r"exclude has seed: 2, which the axis seed does not hold",
        ),
        (packed() | {"exclude": [{"seed": 0}, {"seed": 1}]}, r"every combination"),
        (packed() | {"exclude": {"seed": 0}}, r"exclude is \{'seed': 0\}, expected"),
        (packed() | {"matrix": {"size": []}}, r"matrix.size is \[\], expected a list"),
        (packed() | {"matrix": {"root": [1]}}, r"matrix defines 'root' a second time"),
        (packed() | {"matrix": {"a b": [1]}}, r"matrix has the name 'a b'"),
        (packed() | {"matrix": "${sises}"}, r"there is no \$\{sises\}, did you mean 'sizes'"),
        (packed() | {"matrix": [1]}, r"matrix is \[1\], expected"),
        (packed() | {"matrix": {"0x": [1]}}, r"matrix has the name '0x'"),
        (packed() | {"matrix": {f"x{n}": [1, 2] for n in range(20)}}, r"1048576 combinations"),
        ({**PACK, "exclude": []}, r"exclude without axes"),
        ({**PACK, "stage": ["pack"]}, r"steps\[2\] is"),
        (changed(PACK, name="${loop}"), r"\$\{loop\} stands for itself"),
        (changed(PACK, name="${roots}"), r"no \$\{roots\}, did you mean 'root'"),
    ],
)
def test_a_mistake_in_a_matrix_is_found_before_the_first_step(
    tmp_path: Path, step: dict[str, Any], message: str
) -> None:
    definitions = {"sizes": [1], "loop": "a ${pool}", "pool": "${loop}"}
    root = str(tmp_path / "runs")

    with pytest.raises(ConfigurationError, match=message):
        study.run(StudyConfig(steps=[PHANTOMS, step], root=root, definitions=definitions))

    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("output", ["${root}/shards", "${root}//./shards/", "${root}/x/../shards"])
def test_two_steps_may_not_write_to_one_folder(tmp_path: Path, output: str) -> None:
    for last in (PACK, changed(PACK, seed=1), changed(PHANTOMS, count=3)):
        steps = [PHANTOMS, PACK, changed(last, output=output)]
        with pytest.raises(
            ConfigurationError, match=r"steps\[3\], .* also that of steps\[2\], pack"
        ):
            study.run(StudyConfig(steps=steps, root=str(tmp_path / "runs")))
    assert not (tmp_path / "runs").exists()


def test_a_report_may_be_written_again_but_not_over_another_stage(tmp_path: Path) -> None:
    report = {"stage": "report", "config": {"runs": ["r"], "output": "${root}/page"}}
    runs = study.read_study(StudyConfig(steps=[report, PHANTOMS, report], root="runs")).runs
    assert [run.name for run in runs] == ["page", "published", "page-2"]
    with pytest.raises(ConfigurationError, match=r"steps\[2\], report: its output runs/published"):
        over = changed(report, output="${root}/published")
        study.read_study(StudyConfig(steps=[PHANTOMS, over], root="runs"))


def test_definitions_may_not_hide_the_folders(tmp_path: Path) -> None:
    config = StudyConfig(steps=[PHANTOMS], root=str(tmp_path), definitions={"data": 1})
    with pytest.raises(ConfigurationError, match="definitions defines 'data' a second time"):
        study.run(config)


def test_one_run_of_one_step_is_run_alone_and_one_step_with_all_its_runs(tmp_path: Path) -> None:
    steps = [PHANTOMS, packed()]
    study.run(StudyConfig(steps=steps, root=str(tmp_path), only=["published"]))
    assert not list(tmp_path.glob("*/manifest.json"))

    record = study.run(StudyConfig(steps=steps, root=str(tmp_path), only=["all-0"]))

    assert record.counts["done_now"] == 1
    assert [path.parent.name for path in tmp_path.glob("*/manifest.json")] == ["all-0"]
    names = ["few-0", "few-1", "all-0", "all-1"]
    study.run(StudyConfig(steps=steps, root=str(tmp_path), only=names))
    assert len(list(tmp_path.glob("*/manifest.json"))) == 4


def tasks(folder: Path, *lists: list[str]) -> str:
    path = folder / "tasks.json"
    path.write_text(json.dumps(lists))
    return str(path)


def test_a_task_of_an_array_does_its_list_of_runs(tmp_path: Path) -> None:
    steps, root = [PHANTOMS, packed()], str(tmp_path)
    file = tasks(tmp_path, ["published"], ["few-0", "all-1"])
    for task in (1, 2):
        study.run(StudyConfig(steps=steps, root=root, task_file=file, task=task))
    assert sorted(path.parent.name for path in tmp_path.glob("*/manifest.json")) == [
        "all-1", "few-0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"only": ["al-0"]}, r"no run 'al-0', did you mean 'all-0'"),
        ({"only": []}, r"only must be a list with a name"),
        ({"task": 3}, r"task and task_file belong together"),
        ({"task": 3, "task_file": "LIST"}, r"task is 3, expected 1 to 2"),
        ({"task": 1, "task_file": "nowhere.json"}, r"task_file nowhere.json cannot be read"),
        ({"task": 1, "task_file": "LIST", "only": ["all-0"]}, r"give one of them"),
    ],
)
def test_a_run_that_is_not_there_is_refused(
    tmp_path: Path, chosen: dict[str, Any], message: str
) -> None:
    file = tasks(tmp_path, ["published"], ["few-0"])
    chosen = {key: file if value == "LIST" else value for key, value in chosen.items()}
    with pytest.raises(ConfigurationError, match=message):
        study.run(StudyConfig(steps=[PHANTOMS, packed()], root=str(tmp_path / "r"), **chosen))
    assert not (tmp_path / "r").exists()


def test_a_mistake_in_another_step_is_found_though_it_would_not_run(tmp_path: Path) -> None:
    steps = [PHANTOMS, packed(seed="${sede}")]
    with pytest.raises(ConfigurationError, match="mean 'seed'"):
        study.run(StudyConfig(steps=steps, root=str(tmp_path / "r"), only=["published"]))


@pytest.mark.parametrize(
    ("only", "what"),
    [
        ([], "a study of 6 runs"),
        (["test-5", "test-6"], "a study of 2 runs"),
        (["published"], "phantoms"),
        (["test-7"], None),
        (["test-8"], "no run 'test-8'"),
    ],
)
def test_several_processes_may_share_one_run_of_a_stage_that_is_distributed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: list[str], what: str | None
) -> None:
    evaluate = {"weights": "w", "dataset": "d", "output": "${root}/test"}
    three = {**evaluate, "output": "${root}/test-${seed}"}
    steps = [
        PHANTOMS,
        {"stage": "evaluate", "matrix": {"seed": [5, 6, 7]}, "config": three},
        {"stage": "evaluate", "config": evaluate},
        PACK,
    ]
    config = StudyConfig(steps=steps, root=str(tmp_path / "r"), only=only or None)

    study.check_processes(config, 1)
    if what is None:
        study.check_processes(config, 2)
        return
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match=what):
        study.run(config)
    assert not (tmp_path / "r").exists()


def test_a_whole_matrix_may_be_a_definition_whose_values_use_others() -> None:
    definitions = {
        "teacher": {"weights": "${root}/teacher"},
        "grid": {
            "method": [
                {"name": "alone", "teacher": None},
                {"name": "both", "teacher": "${teacher}"},
            ],
            "size": [10, 20],
        },
    }
    exclude = [{"method": {"name": "alone"}, "size": 20}]

    found = combinations({"matrix": "${grid}", "exclude": exclude}, definitions)

    assert [(each["method"]["name"], each["size"]) for each in found] == [
        ("alone", 10), ("both", 10), ("both", 20),
    ]  # fmt: skip
    names = {"root": "r", **definitions, **found[1]}
    assert fill_in("${method.teacher}", names) == {"weights": "r/teacher"}
    assert fill_in("${method.name}-${size}", names) == "both-10"


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("${number}", 5e-05),
        ("${nothing}", None),
        ("${group}", {"deep": [1, "runs/x"]}),
        ("${group.deep}", [1, "runs/x"]),
        (["${flag}", {"key": "${number}"}], [True, {"key": 5e-05}]),
        ("a-${flag}-${whole}", "a-true-1000"),
        ("${path}/y", "runs/x/y"),
        ("$ {root} $root ${", "$ {root} $root ${"),
    ],
)
def test_values_keep_their_type_unless_they_are_part_of_a_text(value: Any, filled: Any) -> None:
    names = {
        "root": "runs", "path": "${root}/x", "number": 5e-05, "nothing": None, "flag": True,
        "whole": 1000, "group": {"deep": [1, "${path}"]},
    }  # fmt: skip
    assert fill_in(value, names) == filled
    assert type(fill_in(value, names)) is type(filled)


@pytest.mark.parametrize("as_list", [False, True])
def test_definitions_that_hold_each_other_many_times_are_refused(as_list: bool) -> None:
    def ten(name: str) -> Any:
        return [f"${{{name}}}"] * 10 if as_list else f"${{{name}}}" * 10

    names = {"a0": "x", **{f"a{n}": ten(f"a{n - 1}") for n in range(1, 13)}}
    assert fill_in("${a1}", names) == (["x"] * 10 if as_list else "x" * 10)
    with pytest.raises(ConfigurationError, match=r"\$\{a12\} → \$\{a11\} .* hold each other too"):
        fill_in("${a12}", names)
