"""Which training run an output holds, before it has anything to lose."""

from pathlib import Path
from typing import Any

import pytest

from nakt_dist.runtime.wandb_run import RUN_ID_NAME
from nakt_dist.stages.train_identity import Training
from tests.recipes import train_config

LINEAGE: dict[str, Any] = {
    "parent": None, "transfer": None, "trained_on": {"fingerprint": "f"}, "validated_on": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "fingerprint", "stays"),
    [({}, "f", True), ({"epochs": None, "steps": 9}, "f", True),
     ({"learning_rate": 1.0}, "f", False), ({}, "g", False)],
)  # fmt: skip
def test_a_mended_run_does_not_go_on_with_the_wandb_run_of_the_mistaken_one(
    tmp_path: Path, recipe: dict[str, Any], fingerprint: str, stays: bool
) -> None:
    Training(train_config(tmp_path, tmp_path / "data"), LINEAGE).begin()
    (tmp_path / RUN_ID_NAME).write_text("abc")  # killed before its first checkpoint
    mended = {**LINEAGE, "trained_on": {"fingerprint": fingerprint}}
    Training(train_config(tmp_path, tmp_path / "data", recipe), mended).begin()
    assert (tmp_path / RUN_ID_NAME).exists() == stays
