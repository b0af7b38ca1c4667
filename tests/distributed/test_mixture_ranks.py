"""Several sources in two processes: the batches and losses of one, also after a kill."""

from pathlib import Path

import pytest

from tests.launching import finish, run_ranks
from tests.mishaps import Killed
from tests.mixtures import make_sources, mixed_config
from tests.recipes import logged_losses, read_lines

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


def test_two_processes_one_of_them_killed_learn_from_a_mixture_like_one(tmp_path: Path) -> None:
    folder = make_sources(tmp_path)
    finish(mixed_config(tmp_path / "one", folder, steps=5))
    config = mixed_config(tmp_path / "two", folder, steps=5)

    outcomes = run_ranks(config, 2, death=Killed(4, 1))
    assert outcomes[1].exitcode == -9
    records = finish(config, 2)

    one, two = tmp_path / "one", tmp_path / "two"
    assert (two / "batches.jsonl").read_bytes() == (one / "batches.jsonl").read_bytes()
    losses = [[loss for _, loss in logged_losses(each)] for each in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    by_source = [
        [value for line in read_lines(each / "metrics.jsonl") for name, value in line.items()
         if name.startswith("loss_by_source/")]
        for each in (one, two)
    ]  # fmt: skip
    assert len(by_source[0]) == 3 * 5
    assert by_source[1] == pytest.approx(by_source[0], abs=1e-4)
    assert records[0].details["sources"]["taught"]["drawn"] == 20
