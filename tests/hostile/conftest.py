"""What hostile files are put into."""

import shutil
from pathlib import Path

import pytest

from tests.datasets import make_packed_dataset, make_pseudo_labels


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of four samples, and pseudo-labels for it; not to be damaged."""
    folder = tmp_path_factory.mktemp("whole")
    make_packed_dataset(folder, 4, splits={"train": 1.0}, name="images")
    make_pseudo_labels(folder, folder / "images")
    return folder


@pytest.fixture
def folders(whole: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of both, to damage."""
    for name in ("images", "pseudo"):
        shutil.copytree(whole / name, tmp_path / name)
    return tmp_path / "images", tmp_path / "pseudo"
