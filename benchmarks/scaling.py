"""What do two processes give over one, launched by torchrun, with gloo between them?

Whole commands on the CPU, their start included; one process has all cores, two have half of them
each. On two cores that shows what it costs to divide the work, and not how it scales.
"""

from dataclasses import replace

from benchmarks.comparing import Scale, Table, Way, in_turns
from benchmarks.packing import command, published
from benchmarks.teaching import answering, learnt
from nakt_dist.runtime.processes import own_cores

NAMES = {1: "one process", 2: "two processes"}
_LAUNCHER = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
_NOTE = "Two processes begin by starting torchrun and load torch twice, on the same cores."


def measure(scale: Scale) -> list[Table]:
    """Trains and teaches by a U-Net, and packs small JPEGs."""
    scale = replace(scale, gpu=False, rounds=min(scale.rounds, 3))  # a round takes a minute
    case, packed = answering(scale)[0], scale.pick(5000, 6)
    shards, steps, batch = case.shards(scale), scale.pick(16, 2), scale.pick(8, 2)
    train = [
        f"--data.dataset={shards}", f"--model.name={case.spec.name}",
        f"--model.options={dict(case.spec.options)}", f"--recipe.steps={steps}",
        f"--recipe.global_batch_size={batch}",
    ]  # fmt: skip
    teach = [f"--dataset={shards}", f"--teachers=[{{weights: {learnt(case.training(scale))}}}]"]
    pack = ["--layout=image_folder", f"--source={published(scale, 256, 'jpg', packed)}"]
    return [
        _compared("train", train, steps * batch, scale),
        _compared("teach", teach, case.images, scale),
        _compared("pack", [*pack, "--image.height=256", "--image.width=256"], packed, scale),
    ]


def _compared(stage: str, words: list[str], images: int, scale: Scale) -> Table:
    ways = {
        f"nakt {stage}, {name}": _way(stage, words, processes, images, scale)
        for processes, name in NAMES.items()
    }
    title = f"{stage} {images} images, {own_cores()} cores in all"
    return in_turns(title, ways, f"nakt {stage}, {NAMES[1]}", scale, note=_NOTE)


def _way(stage: str, words: list[str], processes: int, images: int, scale: Scale) -> Way:
    output = scale.folder / f"scaling-{stage}-{processes}"
    cores = max(own_cores() // processes, 1)
    share = [f"--workers={cores}"] if stage == "pack" else [f"--threads={cores}", "--device=cpu"]
    launcher = _LAUNCHER if processes > 1 else []
    all_words = [*launcher, "nakt_dist", stage, f"--output={output}", *share, *words]
    return lambda: command(all_words, output, images)
