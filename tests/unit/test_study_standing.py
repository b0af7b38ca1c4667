"""What a study takes for done after a kill between any two files, and while others work."""

import contextlib
from pathlib import Path
from typing import Any

import pytest

from nakt_dist.config import StudyConfig
from nakt_dist.stages.study import read_study
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.one_run import prepare
from nakt_dist.studies.standing import stand
from tests.unit.test_study_plan import note_done, small_study


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
