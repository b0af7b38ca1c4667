"""The folder of an export belongs to one process at a time."""

from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.exporting.folder import whole_folder


def test_a_second_export_to_the_same_place_neither_disturbs_the_first_nor_mixes_with_it(
    tmp_path: Path,
) -> None:
    output = tmp_path / "of" / "export"
    with whole_folder(output) as folder:
        (folder / "model").write_text("first")
        with pytest.raises(DatasetError, match="another process writes"), whole_folder(output):
            raise AssertionError("both write")
        assert (folder / "model").read_text() == "first"
    with pytest.raises(DatasetError, match="has just written it"), whole_folder(output):
        raise AssertionError("it would be lost")
    assert [each.name for each in output.parent.iterdir()] == ["export"]
    assert (output / "model").read_text() == "first"


def test_what_a_kill_left_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ".export.unfinished").mkdir()
    (tmp_path / ".export.unfinished" / "half").touch()
    (tmp_path / ".export.lock").touch()
    with whole_folder(tmp_path / "export") as folder:
        assert not list(folder.iterdir())
    assert [each.name for each in tmp_path.iterdir()] == ["export"]
