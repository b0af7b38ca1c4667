"""Checks of training: precisions against the CPU, full memory, a process group, DeepSpeed."""

import importlib.metadata
import json
import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import distributed

from benchmarks.gpu_check.parts import (
    Findings,
    Place,
    empty_gpu,
    need,
    task_config,
    tf32,
)
from nakt_dist.config import PreprocessingConfig, TrainConfig
from nakt_dist.stages import train
from nakt_dist.training.learner import Learner

_GIB = 2**30


class Precision(NamedTuple):
    """A way to compute, and how far from the CPU's float32 it may lie.

    Attributes:
        recipe: of ``RecipeConfig``.
        tf32: whether convolutions may take TF32 for float32.
        loss: largest relative difference of the loss.
        norm: the same of the gradient's norm.
        cosine: smallest cosine between the gradients.
    """

    recipe: dict[str, Any]
    tf32: bool
    loss: float
    norm: float
    cosine: float


BF16 = {"precision": "bf16"}
# On a CPU the worst gradient in bf16 had a cosine of 0.943, that of a student after its teacher.
PRECISIONS = {
    "float32": Precision({}, False, 1e-4, 2e-3, 0.9999),
    "TF32": Precision({}, True, 5e-3, 3e-2, 0.998),
    "bf16": Precision(BF16, True, 3e-2, 0.15, 0.9),
    "bf16 channels_last": Precision({**BF16, "channels_last": True}, True, 3e-2, 0.15, 0.9),
    "fp16": Precision({"precision": "fp16"}, True, 5e-3, 3e-2, 0.998),
}
COMPILED = {
    "float32 compiled": Precision({"compile": True}, False, 1e-4, 2e-3, 0.9999),
    "bf16 compiled": Precision({**BF16, "compile": True}, True, 3e-2, 0.15, 0.9),
}


class Step(NamedTuple):
    """The first optimiser step of a run: its loss, and the gradient of all parameters, float64."""

    loss: float
    gradient: torch.Tensor


def first_step(config: TrainConfig) -> Step:
    """Runs ``train`` for one step and looks at the gradient before the weights move."""
    gradients: list[torch.Tensor] = []
    end_step = Learner.end_step

    def recorded(learner: Learner, done: int) -> None:
        scaler = learner._accelerator.scaler
        scale = 1.0 if scaler is None else scaler.get_scale()
        of_each = [
            torch.zeros_like(each) if each.grad is None else each.grad
            for each in learner.trained.values()
        ]
        gradients.append(torch.cat([each.detach().cpu().double().flatten() for each in of_each]))
        gradients[-1] /= scale
        end_step(learner, done)

    with mock.patch.object(Learner, "end_step", recorded):
        train.run(config)
    return Step(losses_of(config)[0], gradients[0])


def losses_of(config: TrainConfig) -> list[float]:
    """Training losses of a run's steps, as it logged them."""
    lines = (Path(config.output) / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def step_against_cpu(place: Place, task: str) -> Findings:
    """One step of a task in each precision, against the CPU in float32."""
    if task.startswith("findings"):
        need("timm")
    return _compare(place, task, PRECISIONS, compiled=False)


def compiled_step_against_cpu(place: Place, task: str) -> Findings:
    """The same with ``recipe.compile``; float32 besides for the first task alone.

    Without a GPU the network is traced, differentiated and put together again, but not turned into
    C++, which takes minutes.
    """
    chosen = {name: each for name, each in COMPILED.items() if task == "masks" or "bf16" in name}
    if place.on_gpu:
        return _compare(place, task, chosen, compiled=True)
    with mock.patch.object(torch, "compile", partial(torch.compile, backend="aot_eager")):
        found = _compare(place, task, chosen, compiled=True)
    found.numbers["backend"] = "aot_eager"
    return found


def _compare(place: Place, task: str, precisions: dict[str, Precision], compiled: bool) -> Findings:
    folder = place.work / f"steps-{task}{'-compiled' * compiled}"
    config = task_config(place, task, folder / "cpu", "cpu", {"steps": 1}, compiled)
    expected = first_step(config)
    found = Findings()
    found.expect("cpu loss", expected.loss)
    found.expect("cpu gradient norm", float(expected.gradient.norm()), at_least=1e-6)
    said = []
    for name, precision in precisions.items():
        if not place.on_gpu and name in ("TF32", "fp16"):
            continue
        try:
            output = folder / name.replace(" ", "-")
            recipe = {"steps": 1, **precision.recipe}
            config = task_config(place, task, output, place.setting, recipe, compiled)
            with tf32(precision.tf32):
                step = first_step(config)
        except Exception as error:  # the other precisions are tried all the same
            first = " ".join(str(error).split())[:300]
            found.failures.append(f"{name}: {type(error).__name__}: {first}")
            continue
        said.append(f"{name} {_judge(found, name, precision, step, expected):.0e}")
        empty_gpu()
    found.headline = f"loss off by {', '.join(said) or 'nothing that ran'}"
    return found


def _judge(found: Findings, name: str, allowed: Precision, step: Step, expected: Step) -> float:
    """Notes how far a step lies from the expected one; returns the loss's relative difference."""
    loss = abs(step.loss - expected.loss) / abs(expected.loss)
    norms = float(step.gradient.norm()), float(expected.gradient.norm())
    found.expect(f"{name}: loss, relative", loss, at_most=allowed.loss)
    if name == "fp16" and not np.isfinite(norms[0]):
        # No fault: the scaler begins high, passes over such a step, and lowers itself.
        found.numbers["fp16: gradient"] = "not finite at the first scale"
        return loss
    found.expect(
        f"{name}: gradient norm, relative", abs(norms[0] - norms[1]) / norms[1],
        at_most=allowed.norm,
    )  # fmt: skip
    cosine = float(step.gradient @ expected.gradient) / max(norms[0] * norms[1], 1e-300)
    found.expect(f"{name}: cosine of the gradients", cosine, at_least=allowed.cosine)
    return loss


def full_memory(place: Place) -> Findings:
    """Fills the GPU and lets a run meet it: half the micro-batches, the same global batches."""
    found = Findings()
    batch = 64

    def config(name: str, **recipe: Any) -> TrainConfig:
        recipe = {"steps": 3, "global_batch_size": batch, **recipe}
        return task_config(
            place, "masks", place.work / "memory" / name, place.setting, recipe,
            # GroupNorm: statistics of an image alone, so that micro-batches change nothing.
            model=place.unet(base_channels=16, normalisation="group"),
            preprocessing=PreprocessingConfig(height=256, width=256),
        )  # fmt: skip

    empty_gpu()
    train.run(config("enough"))
    peak = torch.cuda.max_memory_allocated()
    empty_gpu()
    free = torch.cuda.mem_get_info()[0]
    left = max(peak // 2, _GIB // 4)
    filler = torch.empty(free - left, dtype=torch.uint8, device=place.device)
    found.numbers |= {
        "peak GiB": peak / _GIB,
        "left GiB": left / _GIB,
        "filled GiB": (free - left) / _GIB,
    }
    try:
        record = train.run(config("full", halve_when_out_of_memory=True))
    finally:
        del filler
        empty_gpu()
    micro = record.config["recipe"]["micro_batch_size"]
    found.expect("micro-batch", micro or batch, at_most=batch // 2)
    batches = [
        (place.work / "memory" / name / "batches.jsonl").read_bytes() for name in ("enough", "full")
    ]
    found.expect_that("same global batches", batches[0] == batches[1], True)
    _expect_losses(found, losses_of(config("full")), losses_of(config("enough")), 2e-2)
    found.headline = f"{left / _GIB:.1f} GiB left of {peak / _GIB:.1f}: micro-batches of {micro}"
    return found


def _expect_losses(
    found: Findings, losses: list[float], expected: list[float], tolerance: float
) -> None:
    """Compares the losses of all steps: the first closely, later ones to a tolerance."""
    found.numbers |= {"losses": losses, "expected losses": expected}
    found.expect_that("steps", len(losses), len(expected))
    off = [abs(one - other) / abs(other) for one, other in zip(losses, expected, strict=False)]
    found.expect("first loss, relative", off[0] if off else float("nan"), at_most=tolerance / 10)
    found.expect("losses, relative", max(off, default=float("nan")), at_most=tolerance)


def _launch(deepspeed: bool) -> None:
    """Sets what a launcher of one process would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    if deepspeed:
        os.environ |= {
            "ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
        }  # fmt: skip


def process_group(place: Place) -> Findings:
    """A group of one process, as torchrun starts it, and what the product sends over it."""
    found = Findings()
    recipe = {"steps": 4, "micro_batch_size": place.batch // 2}
    folder = place.work / "group"
    plain = task_config(place, "masks", folder / "plain", place.setting, recipe)
    grouped = task_config(place, "masks", folder / "grouped", place.setting, recipe)
    with tf32(False):
        train.run(plain)
        _launch(deepspeed=False)
        backends: list[str] = []
        make_accelerator = train.make_accelerator

        def noted(*arguments: Any) -> Any:
            accelerator = make_accelerator(*arguments)
            if distributed.is_initialized():
                backends.append(distributed.get_backend())
                backends.append(_talk(accelerator.device))
            return accelerator

        with mock.patch.object(train, "make_accelerator", noted):
            train.run(grouped)
    expected = ["nccl" if place.on_gpu else "gloo", "sums, copies and float64 rows"]
    found.expect_that("backend and collectives", backends, expected)
    _expect_losses(found, losses_of(grouped), losses_of(plain), 1e-2)
    found.headline = f"{' '.join(backends) or 'no group'}: the losses of a plain process"
    return found


def _talk(device: torch.device) -> str:
    """Does each kind of collective operation of the product once, and one on the CPU beside it."""
    row = torch.ones(3, dtype=torch.float64, device=device)
    distributed.all_reduce(row)
    gathered = [torch.empty_like(row)]
    distributed.all_gather(gathered, row)
    distributed.broadcast(torch.zeros((), dtype=torch.int64, device=device), src=0)
    beside = distributed.new_group(backend="gloo")
    distributed.all_reduce(torch.zeros((), dtype=torch.int64), group=beside)
    return "sums, copies and float64 rows"


def zero2(place: Place) -> Findings:
    """DeepSpeed's ZeRO 2 in one process: the losses of plain training, and a checkpoint."""
    need("deepspeed", "transformers")
    found = Findings()
    folder = place.work / "zero"
    recipe = {"steps": 4}
    configs = {
        name: task_config(place, "masks", folder / name, place.setting, {**recipe, **more})
        for name, more in (("plain", {}), ("zero", {}), ("zero-bf16", BF16))
    }
    with tf32(False):
        train.run(configs["plain"])
    longer = task_config(place, "masks", folder / "zero", place.setting, {"steps": 6})
    spawn = multiprocessing.get_context("spawn")
    # DeepSpeed joins one process group in the life of a process.
    with ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        for name, config in (("zero", configs["zero"]), ("longer", longer)):
            pool.submit(_train_with_deepspeed, config).result()
            if name == "zero":
                _expect_losses(found, losses_of(config), losses_of(configs["plain"]), 1e-2)
        found.expect_that("steps after going on", len(losses_of(longer)), 6)
        try:
            pool.submit(_train_with_deepspeed, configs["zero-bf16"]).result()
            bf16, expected = losses_of(configs["zero-bf16"])[0], losses_of(configs["plain"])[0]
            found.expect("bf16: loss, relative", abs(bf16 - expected) / expected, at_most=3e-2)
        except Exception as error:  # float32's result is kept
            found.failures.append(f"bf16: {type(error).__name__}: {' '.join(str(error).split())}")
    version = importlib.metadata.version("deepspeed")
    found.numbers["deepspeed"] = version
    found.headline = f"DeepSpeed {version}: the losses of plain training, and on from there"
    return found


def _train_with_deepspeed(config: TrainConfig) -> None:
    """Trains as the one process of a launch, without TF32."""
    _launch(deepspeed=True)
    with tf32(False):
        train.run(config)
