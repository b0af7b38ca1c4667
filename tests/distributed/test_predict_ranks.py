"""Predicting in several processes: the same files for any number, and after a kill."""

from dataclasses import replace
from pathlib import Path

import pytest

from nakt_dist.stages import predict
from tests.datasets import make_weights, publish_images
from tests.launching import Death, finish, run_ranks
from tests.recipes import file_hashes, predict_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]

_OF_A_RUN = {"record.json", "config.yaml"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A piece of work and a rest, one image of which is set aside."""
    root = publish_images(tmp_path_factory.mktemp("images") / "in", 80, 16, 24, with_masks=False)
    path = root / "image_070.png"
    path.write_bytes(path.read_bytes()[:60])
    return root


def files(output: Path) -> dict[str, str]:
    return {name: sha for name, sha in file_hashes(output).items() if name not in _OF_A_RUN}


def test_two_processes_of_which_one_is_killed_leave_what_one_leaves(
    images: Path, weights: Path, tmp_path: Path
) -> None:
    kinds = ["masks", "probabilities"]
    one, two = (
        predict_config(tmp_path / name, weights, images, batch_size=16, files=kinds)
        for name in ("one", "two")
    )
    predict.run(one)
    expected = files(tmp_path / "one")
    assert len(expected) == 4 + 2 * 79

    for attempt in range(3):  # on a busy machine one may find that the other did it all
        two = replace(two, output=str(tmp_path / f"two-{attempt}"))
        outcomes = run_ranks(two, 2, death=Death(20, 1))
        assert outcomes[0].exitcode == 0
        if outcomes[1].exitcode != 0:
            break
    assert outcomes[1].exitcode != 0
    records = finish(two, 2)

    assert files(Path(two.output)) == expected
    assert any(record.counts.get("predicted") == 79 for record in records)
