"""Launches that could not train are refused in one line, before anybody waits for anybody."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from nakt_dist import cli
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime import distributed
from nakt_dist.runtime.distributed import make_accelerator
from nakt_dist.runtime.launch_check import check_launch

TWO = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
HERE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU, and not under a launcher of its own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    of_launchers = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "PMI_", "OMPI_", "MV2_")
    for name in list(os.environ):
        if name.startswith((*of_launchers, "ACCELERATE_")):
            monkeypatch.delenv(name)


def launched(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({**TWO, "MASTER_PORT": "29500"}, "MASTER_ADDR absent; expected the host of process 0"),
        ({**TWO, "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT ''; expected 1 to 65535"),
        ({**TWO, **HERE, "MASTER_PORT": "abc"}, "MASTER_PORT 'abc'"),
        ({**TWO, **HERE, "MASTER_PORT": "99999"}, "MASTER_PORT '99999'"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "MPI started 2 processes (OMPI_COMM_WORLD_SIZE)"),
        ({"ACCELERATE_USE_PARALLELISM_CONFIG": "true"}, "parallelism within a network"),
    ],
)
def test_variables_with_which_processes_cannot_train_are_named(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(monkeypatch, variables)
    with pytest.raises(ConfigurationError) as refusal:
        check_launch("no", "cpu")
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {**TWO, **HERE},
        {**TWO, **HERE, "PMI_SIZE": "3"},  # srun counts its tasks, each an agent of torchrun
        {**TWO, **HERE, "MASTER_ADDR": "no.such.host.invalid"},  # it may come to be known
        {"PMI_SIZE": ""},
    ],
)
def test_what_launchers_set_is_fine(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(monkeypatch, variables)
    assert check_launch("no", "cpu") is None


@pytest.mark.parametrize(
    "variables",
    [
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": "0"},
        {"RANK": "5", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "x"},
        {"LOCAL_RANK": "-3"},
    ],
)
@pytest.mark.parametrize("stage", ["train", "teach"])
def test_a_place_that_is_none_is_one_line(
    stage: str,
    variables: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    launched(monkeypatch, variables)
    words = {
        "train": [f"--data.dataset={tmp_path}", "--recipe.steps=1"],
        "teach": [f"--dataset={tmp_path}", '--teachers=[{"weights": "x"}]'],
    }
    status = cli.main([stage, *words[stage], f"--output={tmp_path / 'out'}"])
    assert status == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nakt: error: ") and "RANK" in line


def test_what_accelerate_itself_refuses_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_: object) -> None:
        raise ValueError("what it\nsays")

    monkeypatch.setattr(distributed, "Accelerator", refuse)
    with pytest.raises(ConfigurationError, match="accelerate refuses this launch: what it says"):
        make_accelerator("no", "cpu")


def test_variables_do_not_decide_what_the_stage_does(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto", "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
        "ACCELERATE_MIXED_PRECISION": "fp16",
    }  # fmt: skip
    launched(monkeypatch, variables)
    accelerator = make_accelerator("no", "cpu", accumulation=3)
    assert accelerator.gradient_accumulation_steps == 3
    assert accelerator.mixed_precision == "no"
    assert accelerator.state.dynamo_plugin.backend == "NO"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"optimizer": {"type": "Adam"}}, "hold 'optimizer', which the recipe decides"),
        ({"scheduler": {"type": "WarmupLR"}}, "hold 'scheduler'"),
        ({"fp16": {"enabled": True}}, "hold 'fp16.enabled'"),
        ({"bf16": {"enabled": True}}, "hold 'bf16.enabled'"),
        (
            {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}},
            "offload to cpu (offload_optimizer)",
        ),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
            "offload to nvme (offload_param)",
        ),
    ],
)
def test_parts_of_a_deepspeed_file_that_the_stage_decides_are_refused(
    part: dict[str, Any], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}} | part))
    variables = {
        "RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file),
    }  # fmt: skip
    launched(monkeypatch, variables)
    with pytest.raises(ConfigurationError) as refusal:
        check_launch("no", "auto")
    assert told in str(refusal.value)
