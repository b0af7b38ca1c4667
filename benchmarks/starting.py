"""How long does a command take to its first step, or for four images, beside ``import torch``?

Each way is a program of its own. It imports, reads settings, opens data and builds networks; there
is next to nothing to do besides. A training run ends before it saves anything.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparing import Scale, Table, Way, at_most, in_turns
from benchmarks.training import thyroid_shards

_TORCH = "import torch"
_UNET = "nakt train to its first step, U-Net of 4 channels"
_DEEPLAB = "nakt train to its first step, DeepLabv3+ with ResNet-18"
_SIDE = 64
_TARGETS = {
    "nakt --help": 0.25,
    "nakt pack": 0.36,
    _UNET: 1.25,
    _DEEPLAB: 1.75,
    "nakt doctor train": 1.25,
    "nakt teach": 1.25,
    "nakt evaluate": 1.25,
}
_NOTE = (
    "The targets are half of what commands once took where importing torch takes 2 s: packing "
    "1.4 s, training 5 s (U-Net) and 7 s (DeepLabv3+); of --help half a second. Less than 1 is "
    "possible: nakt has Python look for no garbage while torch is imported."
)
_TO_FIRST_STEP = """
import os
from nakt_dist import cli

load_stage = cli.load_stage

def load(name):
    stage = load_stage(name)
    from nakt_dist.training.milestones import Milestones
    assert Milestones.pass_step  # called after each step
    Milestones.pass_step = lambda *_: os._exit(0)
    return stage

cli.load_stage = load
cli.main()
"""


def measure(scale: Scale) -> list[Table]:
    """Starts each command; in a smoke test those without torch."""
    ways = {_TORCH: _python("-c", _TORCH), **_quick(scale)}
    if not scale.smoke:
        ways |= _others(scale)
    targets = {way: at_most(_TARGETS[way], by="cpu") for way in ways if way in _TARGETS}
    title = "starting a command"
    return [in_turns(title, ways, _TORCH, scale, targets, takes_time=True, note=_NOTE)]


def _quick(scale: Scale) -> dict[str, Way]:
    shards = thyroid_shards(scale.folder, 4, _SIDE)
    published, packed = shards.with_name(f"{shards.name}-published"), scale.folder / "started-pack"
    pack = [
        "pack", "--layout=paired_folders", f"--source={published}", f"--output={packed}",
        f"--image={{height: {_SIDE}, width: {_SIDE}}}", "--splits.fractions={train: 1.0}",
    ]  # fmt: skip
    return {
        "nakt --help": _nakt(["--help"]),
        "nakt pack": _nakt(pack, packed),
    }


def _others(scale: Scale) -> dict[str, Way]:
    shards, network = thyroid_shards(scale.folder, 4, _SIDE), scale.folder / "started-network"
    _nakt(_train_words(scale, "unet", "base_channels: 4", network))()
    data, device = f"--dataset={shards}", _device(scale)
    taught, judged = scale.folder / "started-teach", scale.folder / "started-evaluate"
    teach = ["teach", data, f"--teachers=[{{weights: '{network}'}}]", device]
    evaluate = ["evaluate", data, f"--weights={network}", "--splits=[train]", device]
    unseen = _train_words(scale, "unet", "base_channels: 4", scale.folder / "started-doctor")
    return {
        _UNET: _train(scale, "unet", "base_channels: 4"),
        _DEEPLAB: _train(scale, "deeplabv3plus", "encoder_name: resnet18"),
        "nakt doctor train": _nakt(["doctor", *unseen]),
        "nakt teach": _nakt([*teach, f"--output={taught}"], taught),
        "nakt evaluate": _nakt([*evaluate, f"--output={judged}"], judged),
    }


def _train(scale: Scale, network: str, options: str) -> Way:
    output = scale.folder / f"started-{network}"
    words = _train_words(scale, network, options, output)
    return _anew(_python("-c", _TO_FIRST_STEP, *words), output)


def _train_words(scale: Scale, network: str, options: str, output: Path) -> list[str]:
    return [
        "train", f"--data.dataset={thyroid_shards(scale.folder, 4, _SIDE)}", f"--output={output}",
        "--recipe.steps=1", "--recipe.global_batch_size=2", f"--model.name={network}",
        f"--model.options={{{options}}}", _device(scale),
    ]  # fmt: skip


def _device(scale: Scale) -> str:
    return f"--device={'cuda' if scale.gpu else 'cpu'}"


def _nakt(words: Sequence[str], output: Path | None = None) -> Way:
    return _anew(_python("-m", "nakt_dist", *words), output)


def _anew(start: Way, output: Path | None) -> Way:
    """Returns a way that removes the output folder of a command before it starts."""

    def run() -> int:
        if output is not None:
            shutil.rmtree(output, ignore_errors=True)
        return start()

    return run


def _python(*words: str) -> Way:
    # As installed: what is imported has been compiled to bytecode once.
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}

    def run() -> int:
        done = subprocess.run([sys.executable, *words], env=environment, capture_output=True)
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace")[-160:])
        return 1

    return run
