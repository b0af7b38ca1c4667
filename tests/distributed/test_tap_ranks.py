"""Taps under DDP: two processes with half of a batch each learn what one learns of it all."""

import copy
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import DenseNet

from nakt_dist.models.taps import TappedNetwork, TeacherTap
from nakt_dist.models.trainable import keep_frozen_statistics
from tests.launching import fork

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

WORLD_SIZE = 2
PATHS = ("features.norm0", "features.denseblock2.denselayer1")


def networks() -> tuple[TappedNetwork, TeacherTap]:
    """The same student and teacher in every process; BatchNorm couples no images."""
    torch.manual_seed(0)
    # A head of more than a megabyte: torch.compile then splits the graph between DDP's buckets.
    student = DenseNet(4, (1, 2), 8, num_classes=20_000)
    teacher = DenseNet(4, (1, 2), 8, num_classes=2)
    student.train()
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    keep_frozen_statistics(student)
    return TappedNetwork(student, PATHS), TeacherTap(teacher, PATHS)


def images() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def learn(
    student: nn.Module, bare: nn.Module, teacher: TeacherTap, batch: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Two accumulated backward passes; returns the gradients."""
    bare.zero_grad()
    for _ in range(2):
        output, maps = student(batch)
        pairs = zip(maps, teacher.activations(batch), strict=True)
        (output.square().mean() + sum((s - t).square().mean() for s, t in pairs)).backward()
    return {name: each.grad.clone() for name, each in bare.named_parameters() if each.requires_grad}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD_SIZE)
    student, teacher = networks()
    before = copy.deepcopy(teacher.network.state_dict())
    wrapped = DistributedDataParallel(student, bucket_cap_mb=1)
    share = images()[rank::WORLD_SIZE]
    eager = learn(wrapped, student.network, teacher, share)
    compiled = learn(torch.compile(wrapped, backend="eager"), student.network, teacher, share)
    after = teacher.network.state_dict()
    results = {
        "eager": eager,
        "compiled": compiled,
        "same_teacher": all(torch.equal(before[name], after[name]) for name in before),
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    ranks = [fork(work, rank, str(tmp_path)) for rank in range(WORLD_SIZE)]
    for rank in ranks:
        rank.join(120)
    assert [rank.exitcode for rank in ranks] == [0, 0]

    student, teacher = networks()
    alone = learn(student, student.network, teacher, images())
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD_SIZE)]
    for found in results:
        assert found["same_teacher"]
        for way in ("eager", "compiled"):
            assert found[way].keys() == alone.keys()
            for name, gradient in alone.items():
                torch.testing.assert_close(found[way][name], gradient, rtol=1e-3, atol=1e-5)
    for name in alone:
        assert torch.equal(results[0]["eager"][name], results[1]["eager"][name])
