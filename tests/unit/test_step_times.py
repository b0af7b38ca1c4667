"""How recorded time divides among phases, on traces written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nakt_dist.training.phases import Phase
from nakt_dist.training.step_times import operators, step_times


def event(category: str, name: str, begin: float, end: float, **facts: Any) -> dict[str, Any]:
    """An event of the main thread; times in microseconds."""
    times = {"ts": begin, "dur": end - begin, "tid": 1}
    return {"ph": "X", "cat": category, "name": name, **times, "args": facts}


def in_phase(name: str, begin: float, end: float, thread: int = 1) -> dict[str, Any]:
    return {**event("user_annotation", name, begin, end), "tid": thread}


STEPS = [in_phase("ProfilerStep#7", 1000, 1100), in_phase("ProfilerStep#8", 1100, 1200)]


def found(events: list[dict[str, Any]], steps: int = 2) -> dict[str, float]:
    """Microseconds of all steps together, by phase that has any."""
    times = step_times([*STEPS, *events], steps)
    assert times.step_seconds == pytest.approx(sum(times.seconds.values()))
    assert sum(map(times.share, Phase)) == pytest.approx(1)
    return {
        str(phase): pytest.approx(1e6 * times.steps * seconds)
        for phase, seconds in times.seconds.items()
        if seconds
    }


def test_the_innermost_phase_has_the_moment_and_what_is_left_is_idle() -> None:
    events = [
        in_phase("copy", 1010, 1020),
        in_phase("augmentation", 1000, 1050),
        in_phase("forward", 1060, 1160),
        in_phase("forward", 1060, 1160, thread=2),  # of a reader, say
        in_phase("Optimizer.step#Adam.step", 1160, 1200),
        event("cpu_op", "forward", 1170, 1180),
    ]
    assert found(events) == {"copy": 10, "augmentation": 40, "forward": 100, "idle": 50}


def test_only_what_lies_in_the_steps_counts() -> None:
    events = [in_phase("waiting for data", 900, 1030), in_phase("validation", 1150, 9000)]
    assert found(events) == {"waiting for data": 30, "idle": 120, "validation": 50}
    assert found(events, steps=1) == {"waiting for data": 30, "idle": 70}


def test_a_gpu_works_for_the_phase_that_launched_it_and_idles_for_what_the_process_does() -> None:
    events = [
        in_phase("waiting for data", 1000, 1040),
        in_phase("copy", 1040, 1050),
        in_phase("forward", 1050, 1060),
        in_phase("backward", 1060, 1070),
        in_phase("logging", 1180, 1200),
        event("cuda_runtime", "cudaMemcpyAsync", 1041, 1042, correlation=1),
        event("cuda_runtime", "cudaLaunchKernel", 1055, 1056, correlation=2),
        {**event("cuda_driver", "cuLaunchKernel", 1065, 1066, correlation=3), "tid": 9},
        event("cuda_runtime", "cudaMemcpyAsync", 1066, 1067, correlation=5),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 1045, 1055, correlation=1),
        event("kernel", "convolve", 1060, 1100, correlation=2),
        event("kernel", "convolve_backward", 1100, 1150, correlation=3),
        event("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 1150, 1155, correlation=5),
        event("kernel", "ncclDevKernel_AllReduce", 1120, 1170, correlation=4),
        event("gpu_user_annotation", "forward", 1000, 1200),
    ]
    assert found(events) == {
        "waiting for data": 40,
        "copy": 10,
        "forward": 40,
        "backward": 55,  # the exchange that it hides is not waited for
        "other processes": 15,
        "logging": 20,
        "idle": 20,  # launching: nothing was there to compute
    }


def test_a_kernel_of_an_unknown_launch_counts_for_the_phase_it_runs_in() -> None:
    events = [
        in_phase("optimiser", 1000, 1200),
        event("kernel", "adam", 1150, 1160, correlation=9),
    ]
    assert found(events) == {"optimiser": 10, "idle": 190}


OPERATORS = [
    event("cpu_op", "conv", 0, 100, **{"External id": 1}),
    event("cpu_op", "copy", 0, 30, **{"External id": 2}),
    event("cpu_op", "copy", 40, 60, **{"External id": 3}),
    event("cpu_op", "empty", 45, 50, **{"External id": 4}),
    event("cpu_op", "empty", 100, 110, **{"External id": 5}),
    {**event("cpu_op", "conv", 20, 90, **{"External id": 6}), "tid": 2},
    in_phase("forward", 0, 110),
]


def test_an_operators_time_is_its_own_without_those_it_calls() -> None:
    found = {each.name: (each.calls, each.seconds) for each in operators(OPERATORS, False, 2)}
    assert list(found) == ["conv", "copy", "empty"]
    assert found["conv"] == (1, pytest.approx((50 + 70) / 2e6))
    assert found["copy"] == (1, pytest.approx((30 + 15) / 2e6))
    assert found["empty"] == (1, pytest.approx((5 + 10) / 2e6))


def test_on_a_gpu_an_operators_time_is_that_of_what_it_launched() -> None:
    work = [
        event("kernel", "k1", 500, 540, **{"External id": 2}),
        event("gpu_memset", "k2", 540, 550, **{"External id": 3}),
        event("kernel", "k3", 550, 551, **{"External id": 1}),
        event("kernel", "k4", 551, 999, **{"External id": 77}),  # launched by no operator
        event("cuda_runtime", "cudaLaunchKernel", 0, 999, **{"External id": 1}),
    ]
    found = [(each.name, each.calls, each.seconds) for each in operators(OPERATORS + work, True, 1)]
    assert found == [("copy", 2, pytest.approx(50e-6)), ("conv", 2, pytest.approx(1e-6))]


def test_the_operators_of_a_real_trace_are_those_of_torchs_own_table(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        network(torch.rand(2, 1, 16, 16)).square().mean().backward()
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]

    found = {each.name: each.seconds for each in operators(events, False, 1)}
    assert "aten::convolution_backward" in found
    table = {each.key: each.self_cpu_time_total / 1e6 for each in profiler.key_averages()}
    assert found == pytest.approx({name: table[name] for name in found}, abs=1e-7)
