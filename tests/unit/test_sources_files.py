"""Walking a folder: links, odd names, and files that are none."""

import os
from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError, valid_unicode
from nakt_dist.sources import scan_source
from nakt_dist.sources.files import FoundFile, walk


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def test_links(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").touch()
    (outside / "table.csv").touch()
    (root / "inside").mkdir()
    (root / "inside" / "real.png").touch()
    (root / "good.png").symlink_to(root / "inside" / "real.png")
    (root / "bad.png").symlink_to(outside / "secret.png")
    (root / "bad.csv").symlink_to(outside / "table.csv")
    (root / "broken.png").symlink_to(root / "nowhere.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "folder").symlink_to(outside)
    (root / "around").symlink_to(root)
    contents = walk(root)
    problems = {file.name: file.problem and file.problem[0] for file in contents.images}
    assert problems == {
        "bad.png": "link_outside_root",
        "broken.png": "broken_link",
        "good.png": None,
        "inside/real.png": None,
        "loop.png": "broken_link",
    }
    assert [link.name for link in contents.refused_links] == ["folder"]
    assert contents.ignored == {".csv": 1, "link to a folder inside the dataset": 1}
    listing = scan_source("image_folder", root, {})
    assert {r.name for r in listing.records if r.problem} == {
        "bad.png",
        "broken.png",
        "folder",
        "loop.png",
    }


def test_a_mask_behind_a_refused_link_spoils_its_image(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    (root / "a.png").touch()
    (root / "a_mask.png").touch()
    (root / "a_mask_1.png").symlink_to(tmp_path / "secret.png")
    (record,) = scan_source("image_folder", root, {}).records
    assert record.problem is not None
    assert record.problem[0] == "mask_link_outside_root"


def test_a_linked_root_is_a_root(root: Path, tmp_path: Path) -> None:
    (root / "a.png").touch()
    (tmp_path / "link").symlink_to(root)
    assert [file.problem for file in walk(tmp_path / "link").images] == [None]


def test_a_pipe_is_no_image(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (file,) = walk(root).images
    assert file.problem is not None
    assert file.problem[0] == "not_a_file"


def test_names_that_are_not_utf8(root: Path) -> None:
    try:
        (root / os.fsdecode(b"caf\xe9 1.png")).touch()
    except OSError:
        pytest.skip("this file system takes no names that are not UTF-8")
    (file,) = walk(root).images
    assert file.name == "caf\\udce9 1.png"
    assert file.path.exists()
    (root / "caf\\udce9 1.png").touch()
    with pytest.raises(DatasetError, match="rename one"):
        scan_source("image_folder", root, {})


def test_a_folder_that_cannot_be_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DatasetError, match="Permission denied"):
        walk(root)


def test_parts_of_a_name() -> None:
    file = FoundFile("a/b.c/d e.f.PNG", Path("unused"))
    assert (file.folder, file.file_name, file.stem) == ("a/b.c", "d e.f.PNG", "d e.f")
    assert file.suffix == ".png"
    assert file.path_below("a") == "b.c/d e.f"
    assert FoundFile("png", Path("unused")).suffix == ""
    assert valid_unicode("é\udcff") == "é\\udcff"
