"""Checkpoints with more in them than a network: what is left is said, what is unclear refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec

UNET = ModelSpec("unet", options={"base_channels": 4})
CLASSIFIER = ModelSpec("timm:test_resnet", 3, 2)
SPECS = {"segmentation": UNET, "classification": CLASSIFIER}


def state_of(spec: ModelSpec, factor: float = 1.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = spec.build().state_dict()
    return {n: t * factor if t.is_floating_point() else t for n, t in state.items()}


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": each for name, each in state.items()}


LEFT = {
    "an_epoch_among_the_weights": (lambda s: {**s, "epoch": 3}, ["epoch"]),
    "an_optimiser_among_them": (lambda s: {**s, "optimizer": {"state": {}}}, ["optimizer"]),
    "nothing_of_value": (lambda s: {**s, "extra": None, "arch": "net"}, ["extra", "arch"]),
    "beside_a_container": (
        lambda s: {"state_dict": s, "optimizer": {"lr": 0.1}, "epoch": 1},
        ["'state_dict'", "optimizer", "epoch"],
    ),
    "an_average_of_the_weights": (
        lambda s: {"model": s, "model_ema": {n: 2 * t for n, t in s.items()}},
        ["'model'", "model_ema (weights, too)"],
    ),
    "the_average_alone": (lambda s: {"ema_state_dict": s, "step": 4}, ["'ema_state_dict'", "step"]),
    "counters": (
        lambda s: {**under("module", s), "n_averaged": torch.tensor(3)},
        ["n_averaged"],
    ),
    "counted_operations": (
        lambda s: {**s, "total_ops": torch.zeros(1), "x.total_params": torch.zeros(1)},
        ["total_ops", "x.total_params"],
    ),
    "a_loss_beside_the_network": (
        lambda s: {"state_dict": {**under("net", s), "criterion.weight": torch.ones(2)}},
        ["criterion.weight"],
    ),
    "itself": (lambda s: _with_itself(s), ["self"]),
}


def _with_itself(state: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"state_dict": state}
    content["self"] = content
    return content


@pytest.mark.parametrize("task", SPECS)
@pytest.mark.parametrize("case", LEFT)
def test_what_is_beside_the_network_is_left_and_said(tmp_path: Path, task: str, case: str) -> None:
    content, words = LEFT[case]
    state, path = state_of(SPECS[task]), tmp_path / "theirs.pt"
    torch.save(content(state), path)
    opened = open_network(path, SPECS[task])
    assert all(torch.equal(each, state[n]) for n, each in opened.network.state_dict().items())
    assert all(word in opened.notices[0] for word in words)
    assert "\n" not in opened.notices[0]


REFUSED = {
    "two_networks": (
        lambda s: {**under("teacher", s), **under("student", s)},
        "2 networks that fit, under student., teacher.",
    ),
    "a_branch": (lambda s: {**s, "aux.weight": torch.ones(3, 3)}, "save the file without what is"),
    "a_slope_of_an_activation": (lambda s: {**s, "act.weight": torch.ones(1)}, "unexpected"),
    "whole_numbers": (lambda s: _with_first(s, torch.Tensor.long), "int64.*not quantised"),
    "bytes": (lambda s: _with_first(s, torch.Tensor.char), "int8.*not quantised"),
    "complex_numbers": (lambda s: _with_first(s, lambda t: t + 1j), "complex64"),
    "text_for_a_tensor": (lambda s: _with_first(s, lambda t: "lost"), "1 missing"),
    "a_number_for_a_head": (
        lambda s: {n: torch.tensor(1.0) if _is_head(n) else t for n, t in s.items()},
        "of another shape",
    ),
}


def _with_first(state: dict[str, Any], change: Any) -> dict[str, Any]:
    first = next(iter(state))
    return {**state, first: change(state[first])}


def _is_head(name: str) -> bool:
    return name.startswith(("head.", "fc."))


@pytest.mark.parametrize("task", SPECS)
@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_another_network_is_refused_in_one_line(
    tmp_path: Path, task: str, case: str
) -> None:
    content, message = REFUSED[case]
    path = tmp_path / "theirs.pt"
    torch.save(content(state_of(SPECS[task])), path)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_network(path, SPECS[task])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["two_networks", "bytes", "complex_numbers"])
def test_nothing_is_started_from_these_either(tmp_path: Path, case: str) -> None:
    content, message = REFUSED[case]
    path = tmp_path / "theirs.pt"
    torch.save(content(state_of(CLASSIFIER)), path)
    with pytest.raises(CheckpointError, match=message):
        initialise(CLASSIFIER.build(), read_initial_weights(path))
