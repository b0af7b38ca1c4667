"""What every stage says of a GPU whose memory is full; ``tests/gpu`` really fills one."""

from pathlib import Path

import pytest
import torch

from nakt_dist.config import AttentionConfig, ShownNetworkConfig, TapConfig
from nakt_dist.errors import NaktError
from nakt_dist.models.unet import UNet
from nakt_dist.stages import attention, evaluate, teach, train
from tests.datasets import make_packed_dataset, make_weights
from tests.recipes import evaluate_config, teach_config, train_config

CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"), splits={"train": 1.0})


@pytest.fixture(scope="module")
def weights(dataset: Path) -> Path:
    return make_weights(dataset.parent / "teacher.safetensors")


@pytest.fixture
def memory_for_two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = UNet.forward

    def forward(network: UNet, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 2:
            raise RuntimeError(f"{CUBLAS}\nand where")
        return plenty(network, images)

    monkeypatch.setattr(UNet, "forward", forward)


@pytest.mark.usefixtures("memory_for_two_images")
@pytest.mark.parametrize("stage", ["teach", "evaluate", "attention"])
def test_a_batch_too_many_for_the_memory_is_one_line_that_says_what_to_lower(
    stage: str, dataset: Path, weights: Path, tmp_path: Path
) -> None:
    shown = ShownNetworkConfig(weights=str(weights))
    taps = [TapConfig("head", "head")]
    config = {
        "teach": teach_config(tmp_path / "out", dataset, weights, batch_size=3),
        "evaluate": evaluate_config(tmp_path / "out", dataset, weights, batch_size=3),
        "attention": AttentionConfig(
            shown, shown, str(dataset), str(tmp_path / "out"), taps=taps, splits=None,
            batch_size=3, device="cpu",
        ),
    }[stage]  # fmt: skip
    with pytest.raises(NaktError) as refusal:
        {"teach": teach, "evaluate": evaluate, "attention": attention}[stage].run(config)
    message = str(refusal.value)
    assert f"the GPU's memory is full ({CUBLAS}). Lower batch_size (now 3)" in message
    assert "\n" not in message


@pytest.mark.usefixtures("memory_for_two_images")
def test_what_a_library_of_cuda_could_not_allocate_halves_the_micro_batches_as_well(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"steps": 1, "halve_when_out_of_memory": True}
    record = train.run(train_config(tmp_path / "out", dataset, recipe))
    assert record.config["recipe"]["micro_batch_size"] == 2


def test_a_network_that_does_not_fit_is_told_whatever_the_batch(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(UNet, "to", full)
    recipe = {"halve_when_out_of_memory": True}
    with pytest.raises(NaktError, match="The network itself does not fit, whatever the batch"):
        train.run(train_config(tmp_path / "out", dataset, recipe))
