"""What stages are hit at: a dataset and a teacher."""

from pathlib import Path

import pytest

from tests.datasets import make_packed_dataset, make_weights


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards of four images; not to be damaged."""
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 2 / 3, "validation": 1 / 3})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)
