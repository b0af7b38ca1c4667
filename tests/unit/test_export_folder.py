"""The folder of an export belongs to one process at a time."""

import errno
import shutil
from pathlib import Path

import pytest

from nakt_dist.config import ExportConfig
from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.exporting.description import describe_network
from nakt_dist.exporting.folder import whole_folder
from nakt_dist.exporting.writing import write_weights
from nakt_dist.models.network_file import describe_for_file, open_network
from nakt_dist.models.spec import PreprocessingConfig
from tests.datasets import make_weights


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


def test_an_empty_folder_that_cannot_be_replaced_is_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "export").symlink_to("elsewhere")
    told = "export: cannot be replaced by the finished export .* that is not there yet"
    with pytest.raises(DatasetError, match=told), whole_folder(tmp_path / "export"):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == ["elsewhere", "export"]


def test_a_full_disk_names_the_file_of_the_export_and_not_the_weights_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(path))

    seen = describe_for_file(PreprocessingConfig(32, 32, 0.0, 1.0), {})
    weights = make_weights(tmp_path / "best.safetensors", **seen)
    trained = open_network(weights)
    told = describe_network(ExportConfig(str(weights)), trained)
    monkeypatch.setattr(shutil, "copyfile", full)
    (tmp_path / "out").mkdir()
    with pytest.raises(NaktError, match=r"out/model.safetensors: cannot be written: No space left"):
        write_weights(tmp_path / "out", weights, trained, told, as_is=True)
