"""How the runs of a study become job arrays that wait for each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.studies.arrays import JobArray, make_arrays
from nakt_dist.studies.folder import PlannedRun
from nakt_dist.studies.plan import StudyRun
from nakt_dist.studies.steps import Launch


def a_run(name: str, step: int, needs: Sequence[str] = (), after: Sequence[str] = ()) -> StudyRun:
    planned = PlannedRun(name, "train", step, f"train {step}", needs=(*needs,), after=(*after,))
    return StudyRun(planned, name, None, (), Launch(), lambda _: None)


def told(arrays: Sequence[JobArray]) -> list[str]:
    """Each array as its indices and what it waits for, array N as job ``N``."""
    jobs = {array.number: str(array.number) for array in arrays}
    return [f"{array.indices} {','.join(wait.told(jobs) for wait in array.waits)}".strip()
            for array in arrays]  # fmt: skip


def arrays_of(
    runs: Sequence[StudyRun], most: int = 1000, per_task: int = 1, queued: Mapping[str, str] = {}
) -> list[JobArray]:
    return make_arrays(runs, queued, most, lambda _: per_task)


PACK = a_run("pack", 1)
TRAIN = [a_run(f"train-{n}", 2, ["pack"]) for n in range(6)]
TEST = [a_run(f"test-{n}", 3, ["pack", f"train-{n}"]) for n in range(6)]
CHOSEN = [a_run(f"chosen-{n}", 4, [f"test-{m}" for m in range(6)]) for n in range(2)]
REPORT = a_run("report", 5, (), [run.name for run in (PACK, *TRAIN, *TEST, *CHOSEN)])
STUDY = [PACK, *TRAIN, *TEST, *CHOSEN, REPORT]


def test_arrays_wait_for_their_own_task_for_all_well_or_for_the_end() -> None:
    assert told(arrays_of(STUDY)) == [
        "1",
        "1-6 afterok:1",
        "1-6 afterok:1,aftercorr:2",
        "1-2 afterok:3",
        "1 afterany:1,afterany:2,afterany:3,afterany:4",
    ]
    assert [array.kills for array in arrays_of(STUDY)] == [False, True, True, True, False]


def test_a_step_that_is_larger_than_an_array_is_split_and_its_followers_with_it() -> None:
    assert told(arrays_of(STUDY[:-1], most=4)) == [
        "1",
        "1-4 afterok:1",
        "1-2 afterok:1",
        "1-4 afterok:1,aftercorr:2",
        "1-2 afterok:1,aftercorr:3",
        "1-2 afterok:4,afterok:5",
    ]


def test_short_runs_share_a_task_which_then_waits_for_no_single_one() -> None:
    packed = arrays_of(STUDY[:-1], per_task=4)
    assert told(packed) == [
        "1", "1-2 afterok:1", "1-2 afterok:1,afterany:2", "1 afterok:3",
    ]  # fmt: skip
    assert packed[1].lists == [[f"train-{n}" for n in range(4)], ["train-4", "train-5"]]


def test_where_a_run_needs_some_of_an_array_it_begins_when_all_have_ended() -> None:
    methods = [a_run(f"{m}-{n}", 3, [f"train-{n}"]) for n in range(2) for m in "ab"]
    assert told(arrays_of([PACK, *TRAIN, *methods]))[2] == "1-4 afterany:2"


def test_what_is_queued_already_is_waited_for_by_its_tasks() -> None:
    queued = {"train-1": "77_2", "train-4": "77_5"}
    rest = [run for run in (*TEST, *CHOSEN) if run.name in ("test-1", "test-2", "test-4")]
    assert told(arrays_of(rest, queued=queued)) == ["2,5 aftercorr:77", "1"]
    assert arrays_of(rest, queued=queued)[0].lists == [[], ["test-1"], [], [], ["test-4"]]

    everything = {f"test-{n}": f"78_{n + 1}" for n in range(2, 6)}
    assert told(arrays_of(CHOSEN, queued=everything)) == ["1-2 afterok:78_3:78_4:78_5:78_6"]
    packed = dict.fromkeys(everything, "79_1")  # which may fail for another run's sake
    assert told(arrays_of(CHOSEN, queued=packed)) == ["1-2 afterany:79_1"]


def test_runs_of_one_step_that_need_each_other_are_apart() -> None:
    chain = [a_run(f"generation-{n}", 1, [f"generation-{n - 1}"] if n else []) for n in range(3)]
    assert told(arrays_of(chain)) == ["1", "1 afterok:1", "1 afterok:2"]


@st.composite
def graphs(draw: Any) -> list[StudyRun]:
    runs: list[StudyRun] = []
    for number in range(draw(st.integers(1, 14))):
        before = [run.name for run in runs]
        picks = (
            st.lists(st.sampled_from(before), max_size=3, unique=True) if before else st.just([])
        )
        step, needs, after = draw(st.integers(1, 3)), draw(picks), draw(picks)
        runs.append(
            a_run(f"run-{number}", step, needs, [each for each in after if each not in needs])
        )
    return runs


@settings(max_examples=50)
@given(graphs(), st.integers(1, 4), st.integers(1, 3))
def test_each_run_is_in_one_task_and_no_wait_is_missing_nor_too_strong(
    runs: list[StudyRun], most: int, per_task: int
) -> None:
    arrays = arrays_of(runs, most, per_task)

    place = {name: (array, task) for array in arrays for task, names in array.tasks.items()
             for name in names}  # fmt: skip
    assert sorted(name for array in arrays for names in array.tasks.values() for name in names) == (
        sorted(run.name for run in runs)
    )
    assert all(1 <= task <= most for _, task in place.values())
    for run in runs:
        mine, task = place[run.name]
        kinds = {(wait.kind, wait.array) for wait in mine.waits}
        for name in (*run.planned.needs, *run.planned.after):
            other, its_task = place[name]
            assert other.number < mine.number
            waited = {kind for kind, number in kinds if number == other.number}
            assert waited & {"afterok", "afterany"} or (waited and its_task == task)
        for kind, number in kinds - {("afterany", array.number) for array in arrays}:
            # What would take the run out of the queue is the failure of what it needs.
            other = arrays[number - 1]
            names = [name for names in other.tasks.values() for name in names]
            needed = names if kind == "afterok" else other.tasks[task]
            assert set(needed) <= set(run.planned.needs)


@pytest.mark.parametrize(
    ("tasks", "indices"), [((1,), "1"), ((1, 2, 3), "1-3"), ((2, 4, 5, 9), "2,4-5,9")]
)
def test_the_numbers_of_tasks_are_written_as_sbatch_reads_them(
    tasks: tuple[int, ...], indices: str
) -> None:
    assert JobArray(1, (), {task: ("a",) for task in tasks}, ()).indices == indices
