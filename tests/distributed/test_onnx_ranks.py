"""A teacher in an ONNX file teaches in several processes: the same bytes, whoever dies."""

from pathlib import Path

import pytest

from nakt_dist.stages import teach
from tests.datasets import make_packed_dataset, make_weights
from tests.launching import Death, finish, run_ranks
from tests.onnx_files import export_onnx
from tests.recipes import file_hashes, teach_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]


def test_two_processes_one_of_which_is_killed_write_what_one_writes(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=24, splits={"train": 1.0})
    make_weights(tmp_path / "w.safetensors", seed=7)
    path = export_onnx(tmp_path / "w.safetensors", tmp_path / "w.onnx")
    teach.run(teach_config(tmp_path / "one", dataset, path))
    run_ranks(teach_config(tmp_path / "out", dataset, path), 2, death=Death(2, rank=1))
    finish(teach_config(tmp_path / "out", dataset, path), 2)
    assert file_hashes(tmp_path / "out") == file_hashes(tmp_path / "one")
