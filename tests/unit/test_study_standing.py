"""What a study takes for done after a kill between any two files, and while others work."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from nakt_dist.config import StudyConfig
from nakt_dist.runtime.work import WorkLedger, ledger_folder
from nakt_dist.stages.study import read_study
from nakt_dist.studies import one_run
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.one_run import ELSEWHERE_EXIT_CODE, prepare, work_of
from nakt_dist.studies.standing import stand
from nakt_dist.studies.together import do_together
from tests.unit.test_study_plan import chosen_study, note_done, small_study, write_record


def prepare_killed(run: Any, folder: StudyFolder, after: int) -> bool:
    """Begins a run, killed after some of its files; says whether there were more."""
    named = 0
    rename = Path.replace

    def rename_or_die(path: Path, target: Path) -> Path:
        nonlocal named
        named += 1
        if named > after:
            raise KeyboardInterrupt
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Path, "replace", rename_or_die)
        prepare(run, folder, 1, None)
    return named > after


def test_a_run_killed_while_it_begins_with_other_settings_is_not_done_with_them(
    tmp_path: Path,
) -> None:
    study, folder = small_study(tmp_path), StudyFolder(tmp_path)
    (packing,) = study.by_name(["s-0"])
    steps = [dict(step) for step in study.config.steps]
    steps[1]["config"] = {**steps[1]["config"], "samples_per_shard": 7}
    changed = read_study(StudyConfig(steps=steps, root=str(tmp_path)))
    note_done(folder, study.by_name(["p-0"])[0])
    after, more = 0, True
    while more:
        note_done(folder, packing)
        assert stand(study, folder)["s-0"].done and not stand(changed, folder)["s-0"].done
        more = prepare_killed(changed.by_name(["s-0"])[0], folder, after)
        assert not stand(changed, folder)["s-0"].done, f"killed after {after} files"
        after += 1
    assert after > 3


@pytest.mark.parametrize("then", ["running", "failed", "interrupted", "queued", "taken back"])
def test_a_record_of_before_is_not_that_of_a_run_begun_anew(tmp_path: Path, then: str) -> None:
    study, folder = chosen_study(tmp_path), StudyFolder(tmp_path / "r")
    (final,) = study.by_name(["runs/final-0"])
    for run in study.runs:
        if "final" not in run.name:
            write_record(run.config.output, run.config, best_validation_dice=0.5)
            folder.end(run.name, "done", 0, None, run.config.output)
    prepare(final, folder, 1, None)
    write_record(final.config.output, final.decided()[0])
    folder.end(final.name, "done", 0, None, final.config.output)
    assert stand(study, folder)[final.name].done
    needed = study.by_name(["runs/0.1-0"])[0].config
    write_record(needed.output, needed, best_validation_dice=0.5, steps_now=3)  # made again
    assert not stand(study, folder)[final.name].done

    if then in ("queued", "taken back"):
        folder.note_queued(final.name, "7_1")
    else:
        prepare(final, folder, 1, None)  # and its stage did not come to an end, or refused
    if then in ("failed", "interrupted"):
        folder.end(final.name, then, 1)
    if then == "taken back":
        folder.forget_queued(final.name)
        state = folder.read_state(final.name)
        assert state is not None and state.status == "done"

    assert not stand(study, folder)[final.name].done


def test_a_run_is_done_when_its_pieces_are_put_together_not_when_the_first_process_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = small_study(tmp_path), StudyFolder(tmp_path)
    note_done(folder, study.by_name(["p-0"])[0])
    (packing,) = study.by_name(["s-0"])
    output = Path(packing.config.output)
    pieces = WorkLedger(ledger_folder(output, "pack"), {"dataset": "squares"}, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def status() -> str | None:
        state = folder.read_state("s-0")
        return state and state.status

    monkeypatch.setenv("RANK", "0")
    do_together(packing, study, folder, lambda config: pieces.open())
    assert status() == "running" and not stand(study, folder)["s-0"].done  # if all is killed now

    def put_together(config: Any) -> None:
        (output / "manifest.json").write_text("whole")
        pieces.close()

    monkeypatch.setenv("RANK", "1")
    do_together(packing, study, folder, put_together)
    assert status() == "done" and stand(study, folder)["s-0"].done
    pieces.folder.mkdir()  # as NFS leaves it for a while
    assert stand(study, folder)["s-0"].done
    pieces.open()  # it is made anew
    assert not stand(study, folder)["s-0"].done


def test_a_run_whose_last_pieces_others_do_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, folder = small_study(tmp_path), StudyFolder(tmp_path)
    (packing,) = study.by_name(["s-0"])
    place = ledger_folder(Path(packing.config.output), "pack")
    pieces = WorkLedger(place, {"dataset": "squares"}, 2)
    monkeypatch.setattr(one_run, "_PAUSE_SECONDS", 0.0)

    pieces.open()
    assert work_of(packing, folder, 1, None, lambda words: 0)() == ELSEWHERE_EXIT_CODE
    pieces.close()
    assert work_of(packing, folder, 1, None, lambda words: 0)() == 0
