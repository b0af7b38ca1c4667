"""Which checks there are, the most valuable first. Imports nothing but the standard library."""

from dataclasses import dataclass

FIRST = ("machine", "prepare")
_NETWORKS = (
    "unet", "attention_unet", "sdu_net", "deeplabv3plus", "panoptic_fpn", "densenet121",
    "densenet40",
)  # fmt: skip
_TASKS = ("masks", "pseudo", "segmentation-attention", "findings", "findings-attention")
_COMPILED_FIRST = ("masks", "findings-attention")


@dataclass(frozen=True)
class Check:
    """One process that looks at one thing.

    Attributes:
        name: also of its files.
        function: ``module.function`` in this package.
        argument: its second argument, if any.
        seconds: it may take so long.
        alone: nothing else runs beside it on a GPU, because it measures time or fills the memory.
        why_gpu: why it cannot be tried without a GPU; empty where it can.
    """

    name: str
    function: str
    argument: str | None = None
    seconds: int = 90
    alone: bool = False
    why_gpu: str = ""


def _compiled(task: str) -> Check:
    return Check(f"compiled step: {task}", "training.compiled_step_against_cpu", task, 150)


CHECKS = (
    Check("machine", "stages.machine", seconds=90),
    Check("prepare", "parts.prepare", seconds=120),
    *(Check(f"step: {task}", "training.step_against_cpu", task) for task in _TASKS),
    Check("tests marked gpu", "stages.tests_marked_gpu", seconds=180),
    Check("chain", "stages.chain", seconds=150),
    Check("process group", "training.process_group"),
    Check("DeepSpeed ZeRO 2", "training.zero2", seconds=150),
    Check("networks", "stages.networks", why_gpu="it compares one with the CPU"),
    *(_compiled(task) for task in _TASKS if task in _COMPILED_FIRST),
    Check(
        "full memory", "training.full_memory", alone=True,
        why_gpu="a CPU has no memory of its own to fill",
    ),
    *(Check(f"speed: {name}", "speed.throughput", name, 60, alone=True) for name in _NETWORKS),
    *(_compiled(task) for task in _TASKS if task not in _COMPILED_FIRST),
)  # fmt: skip
"""In the order in which they start; those beside each other run side by side unless ``alone``."""
