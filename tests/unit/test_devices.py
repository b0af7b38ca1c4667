"""Which device a stage computes on."""

import pytest
import torch

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.devices import choose_device, gpu_is_wanted


@pytest.mark.parametrize(
    ("device", "launched_for_cpu", "wanted"),
    [("auto", "", True), ("auto", "True", False), ("cpu", "", False)],
)
def test_a_gpu_is_taken_unless_setting_or_launcher_say_cpu(
    monkeypatch, device, launched_for_cpu, wanted
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", launched_for_cpu)
    assert gpu_is_wanted(device) is wanted


def test_without_a_gpu_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", None).type == "cpu"


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cpu;"])
def test_a_device_that_is_not_here_is_an_error_that_names_it(name):
    with pytest.raises(ConfigurationError, match=name):
        choose_device(name, None)
