"""Two nodes under plain torchrun: an agent on each of two addresses of this machine."""

import contextlib
import socket
import sys
from pathlib import Path

import pytest

from tests.datasets import make_packed_dataset
from tests.launching import finish, program
from tests.recipes import logged_losses, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]


def agent(node: int, port: int) -> tuple[str, ...]:
    """Words that start the agent of a node with one process; node 0 is where they meet."""
    return (
        sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={node}",
        "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}",
        f"--local_addr=127.0.0.{node + 1}", "-m", "nakt_dist",
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_agents_train_like_one_process(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=24, splits={"train": 1.0})
    finish(train_config(tmp_path / "one", dataset))
    output, port = tmp_path / "two", free_port()
    words = (
        "train", f"--output={output}", f"--data.dataset={dataset}", "--recipe.steps=6",
        "--recipe.global_batch_size=8", "--recipe.precision=no",
        "--recipe.learning_rate=0.01", "--model.name=unet",
        '--model.options={"base_channels": 4, "normalisation": "none"}',
        "--checkpoint.every_steps=2", "--device=cpu", "--threads=1", "--log_keys=true",
    )  # fmt: skip

    with contextlib.ExitStack() as nodes:
        started = [
            nodes.enter_context(
                program(*agent(node, port), *words, log=tmp_path / f"node-{node}.log")
            )
            for node in (0, 1)
        ]
        for rank, node in enumerate(started):
            node.wait_until(node.ranks)
            assert node.ranks().keys() == {rank}
        for node in started:
            node.succeed(120)

    found, wanted = logged_losses(output), logged_losses(tmp_path / "one")
    assert [step for step, _ in found] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in wanted], abs=1e-4)
    batches = [(tmp_path / name / "batches.jsonl").read_bytes() for name in ("one", "two")]
    assert batches[0] == batches[1]
