"""Every experiment of the papers is a file of `configs/study`, with as many runs as they print."""

import re
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nakt_dist.cli import parse_config
from nakt_dist.report import paper
from nakt_dist.stages.study import read_study
from nakt_dist.studies.plan import Study

FILES = {path.stem: path for path in (Path(__file__).parents[2] / "configs/study").glob("*.yaml")}
SEEDS = 3

# Counted by hand from the papers' tables; packs, teaching and reports as the files need them.
COUNTS = {
    # 5 sets × 4 students × 2 and their teacher; each on two test sets
    "table2_3_a": {"pack": 6, "train": 1 + 40, "teach": 5, "evaluate": 2 + 80, "report": 1},
    # for each of 2 targets the 40 students and the teacher tuned, and 4 networks from scratch
    "table4_5_a": {
        "pack": 6, "train": 1 + 40 + 2 * (40 + 1 + 4), "teach": 5, "evaluate": 90, "report": 1,
    },
    # 4 teachers and one student, on two test sets
    "table6_a": {"pack": 2, "train": 4 + 1, "teach": 1, "evaluate": 10, "report": 1},
    "table7_a": {"pack": 6, "train": 1, "teach": 5, "inspect": 5, "evaluate": 2, "report": 1},
    # teacher and start; 11 β for 2 networks; 5 columns × 4 sizes × 2 starts × 3 seeds
    "table2_b": {"pack": 3, "train": 2 + 22 + 120, "evaluate": 120, "report": 1},
    # 11 β for 2 networks and 2 teachers; 4 columns × 4 sizes × 2 starts × 3 seeds
    "table3_b": {"pack": 3, "train": 2 + 44 + 96, "evaluate": 96, "report": 1},
    # the teacher; 7 columns × 3 seeds
    "table5_b": {"pack": 2, "train": 1 + 44 + 21, "evaluate": 21, "report": 1},
    # 4 panels of 2 curves × 3 seeds; β for each panel
    "figure3_b": {"pack": 3, "train": 1 + 44 + 24, "evaluate": 24, "report": 1},
    # 2 networks × 2 methods × 3 seeds behind the grid
    "beta_b": {"pack": 2, "train": 1 + 22 + 12, "evaluate": 12, "report": 1},
}  # fmt: skip


@cache
def study_of(name: str) -> Study:
    # At the papers' scale, a file holds definitions alone: the steps are those of another.
    files = [FILES[each] for each in dict.fromkeys([name.removesuffix("_paper"), name])]
    return read_study(parse_config("study", [f"--config={each}" for each in files]))


def outputs(name: str, folder: str) -> list[str]:
    """The names of the runs below a folder of the study, without it."""
    names = [run.name for run in study_of(name).runs]
    return [each.removeprefix(f"{folder}/") for each in names if each.startswith(f"{folder}/")]


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_study(name: str) -> None:
    assert len(study_of(name).runs) >= len(study_of(name).config.steps) - 1


def test_the_papers_scale_of_open_data_has_the_same_runs() -> None:
    small, papers = study_of("open_data_a"), study_of("open_data_a_paper")
    assert [run.name for run in small.runs] == [run.name for run in papers.runs]
    teacher = next(run.config for run in papers.runs if run.name == "runs/random-teacher-1")
    assert (teacher.model.name, teacher.recipe.epochs) == ("deeplabv3plus", 500)
    assert (teacher.recipe.global_batch_size, teacher.recipe.learning_rate) == (4, 1e-4)
    assert str(papers.config.root) != str(small.config.root)


def test_folds_of_open_data_test_every_image_once_and_never_one_that_was_learnt_from() -> None:
    tested = []
    for fold in study_of("open_data_a").config.definitions["folds"]:
        own = [*fold["train"], *fold["held"], *fold["test"]]
        assert sorted(own) == [f"p{number:02d}" for number in range(1, 21)]
        assert set(fold["few"]) < set(fold["held"])
        tested += fold["test"]
    assert sorted(tested) == sorted(own)


@pytest.mark.parametrize("name", COUNTS)
def test_files_make_the_papers_runs_and_have_twins(name: str) -> None:
    assert Counter(run.planned.stage for run in study_of(name).runs) == COUNTS[name]
    twin = study_of(f"phantom_{name}")
    stages = [step.get("stage", "choose") for step in twin.config.steps if step]
    assert stages[0] == "phantoms" and set(stages[1:]) >= {"pack", "train", "evaluate", "report"}
    assert Path(twin.config.root).name.startswith("phantom")


def test_the_page_counts_their_trainings() -> None:
    page = (Path(__file__).parents[2] / "docs/papers.md").read_text()
    counted = {
        name: int(number) for name, number in re.findall(r"`(\w+)\.yaml`.* \| (\d+) \|", page)
    }
    assert set(counted) == {*COUNTS, "phantom_two_sets_a"}
    for name, number in counted.items():
        stages = Counter(run.planned.stage for run in study_of(name).runs)
        assert number == stages["train"], name


@pytest.mark.parametrize(
    ("name", "folder", "table"), [("table2_b", "runs", 2), ("table5_b", "runs", 5)]
)
def test_cells_of_paper_b_are_runs_of_three_seeds(name: str, folder: str, table: int) -> None:
    students = [each for each in outputs(name, folder) if each.startswith("densenet")]
    cells = [each for each in paper.all_auroc() if each.table == table]
    assert len(students) == SEEDS * len(cells)
    assert Counter(each.rsplit("-", 1)[1] for each in students) == {
        str(seed): len(cells) for seed in range(SEEDS)
    }


def test_table_3_takes_half_of_its_runs_from_table_2() -> None:
    two, three = (set(outputs(name, "runs")) for name in ("table2_b", "table3_b"))
    printed = [each for each in paper.all_auroc() if each.table == 3]
    shared = {each for each in two & three if each.startswith("densenet")}
    taught = [each for each in paper.all_auroc() if each.table == 2 and each.teacher]
    assert len(shared) == SEEDS * len(taught)
    assert len(three - two) == SEEDS * len(printed)
    curves = {each for each in outputs("figure3_b", "runs") if each.startswith("densenet")}
    assert curves <= two | set(outputs("table5_b", "runs"))


def test_every_dice_of_paper_a_has_its_test() -> None:
    printed = Counter(score.where for score in paper.all_dice())
    tested = {
        name: Counter(
            Path(run.config.dataset).name
            for run in study_of(name).runs
            if run.planned.stage == "evaluate"
        )
        for name in ("table2_3_a", "table4_5_a", "table6_a")
    }
    assert tested["table2_3_a"] == {
        "breast_lesion": printed["table 2"] + 1, "busi": printed["table 3"] + 1,
    }  # fmt: skip
    assert tested["table4_5_a"] == {
        "busi": printed["table 4"] + 1, "thyroid": printed["table 5"] + 1,
    }  # fmt: skip
    assert sum(tested["table6_a"].values()) == printed["table 6"]


def test_what_two_files_write_to_one_folder_is_the_same_run() -> None:
    """Files of one paper share a root: what one has done, the others take."""
    written: dict[str, dict[str, Any]] = defaultdict(dict)
    for name in [*COUNTS, *(f"phantom_{name}" for name in COUNTS)]:
        for run in study_of(name).runs:
            if run.planned.output is not None and run.planned.stage != "report":
                written[run.planned.output][name] = run.config
    shared = {output: found for output, found in written.items() if len(found) > 1}
    assert len(shared) > 100
    for output, found in shared.items():
        first, *others = found.values()
        assert all(each == first for each in others), f"{output}: {', '.join(found)}"


def test_beta_is_chosen_by_validation_for_each_network() -> None:
    for name in ("table2_b", "table3_b", "table5_b", "figure3_b", "beta_b"):
        (choice,) = (step for step in study_of(name).config.steps if "choose" in step)
        assert choice["by"] == "best_validation_auroc" and choice["over"] == ["beta"]
        betas = study_of(name).config.definitions["betas"]
        assert betas[0] == 1 and betas[-1] == 2000 and len(betas) == 11
