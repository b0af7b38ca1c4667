"""Joules of a GPU, as a stand-in of NVIDIA's library tells them."""

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch

from nakt_dist.loading.sampler import Share
from nakt_dist.runtime.gpu_energy import joules_taken
from nakt_dist.training import pace
from nakt_dist.training.pace import Pace


class Driver:
    """Knows one GPU; counts who has opened it and not closed it."""

    def __init__(self, millijoules: int | None) -> None:
        self.millijoules, self.opened = millijoules, 0

    def nvmlInit_v2(self) -> int:
        self.opened += 1
        return 0

    def nvmlShutdown(self) -> int:
        self.opened -= 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, gpu: Any) -> int:
        gpu._obj.value = 7
        return 0 if uuid == b"GPU-1" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, gpu: Any, answer: Any) -> int:
        assert gpu.value == 7
        if self.millijoules is None:
            return 3  # an older GPU does not count
        answer._obj.value = self.millijoules
        return 0


@pytest.mark.parametrize(
    ("uuid", "counted", "joules"),
    [("GPU-1", 2**40, 2**40 / 1000), ("GPU-2", 5, None), ("GPU-1", None, None), ("", 5, None)],
)
def test_a_driver_is_asked_and_let_go(
    monkeypatch: pytest.MonkeyPatch, uuid: str, counted: int | None, joules: float | None
) -> None:
    driver = Driver(counted)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert joules_taken(uuid) == joules
    assert driver.opened == 0


def test_without_a_driver_nobody_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert joules_taken("GPU-1") is None


@pytest.mark.parametrize(("told", "joules"), [([100.0, 250.5], 150.5), ([None, None], None)])
def test_a_launch_took_what_was_counted_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[float | None], joules: float | None
) -> None:
    answers = iter(told)
    monkeypatch.setattr(pace, "joules_taken", lambda uuid: next(answers))
    measured = Pace(torch.device("cpu"), Share.of(4, 1, None), tmp_path, None, None)
    measured.add(1, 0.5, 0.0)
    assert measured.summary().get("joules") == joules
