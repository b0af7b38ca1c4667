"""Which device a stage computes on."""

import pytest
import torch
from accelerate import PartialState

from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.devices import choose_device, explain_full_memory, gpu_is_wanted
from nakt_dist.runtime.distributed import make_accelerator


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


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 20 GiB",
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
def test_every_library_of_cuda_says_in_its_own_words_that_the_memory_is_full(said):
    with (
        pytest.raises(NaktError, match=r"^here: the GPU's memory is full \(.+\)\. Lower it$"),
        explain_full_memory("here", "Lower it"),
    ):
        raise RuntimeError(f"{said}\nand more lines")


def test_another_error_of_a_gpu_is_no_full_memory():
    with pytest.raises(RuntimeError, match="illegal memory access"), explain_full_memory("a", "b"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_stage_computes_on_its_own_device_and_not_on_that_of_the_stage_before():
    """A notebook is one process, and Accelerate remembers where it computed first."""
    make_accelerator("no", "cpu")
    PartialState().device = torch.device("meta")  # as if that one had been told otherwise
    assert make_accelerator("no", "cpu").device.type == "cpu"
