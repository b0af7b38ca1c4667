"""Checks of the machine, of the tests marked ``gpu``, and of the stages against the CPU's."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.gpu_check.parts import (
    SMP_NETWORKS,
    Absent,
    Findings,
    Place,
    need,
    task_config,
    tf32,
)
from nakt_dist.config import CheckpointConfig, EvaluateConfig, TeachConfig, TeacherConfig
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.models.registry import MODEL_NAMES, is_classifier
from nakt_dist.models.spec import ModelSpec
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import evaluate, teach, train

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "accelerate", "deepspeed", "fsspec", "jsonargparse", "matplotlib", "numpy", "nvidia-nccl-cu13",
    "onnxruntime", "pillow", "pyarrow", "pytest", "safetensors", "segmentation-models-pytorch",
    "timm", "torch", "torchmetrics", "torchvision", "transformers", "triton", "wandb", "webdataset",
)  # fmt: skip
_TESTS_MARKED = "mark.gpu"
_NO_TESTS = 5


def machine(place: Place) -> Findings:
    """What this machine is, and whether its GPU computes at all."""
    found = Findings()
    found.numbers |= {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": "cpu",
        "packages": {name: _version(name) for name in PACKAGES},
    }
    values = torch.rand(256, 256, generator=torch.Generator().manual_seed(0))
    if place.on_gpu:
        properties = torch.cuda.get_device_properties(0)
        found.numbers |= {
            "device": properties.name,
            "devices": torch.cuda.device_count(),
            "capability": f"{properties.major}.{properties.minor}",
            "memory GiB": properties.total_memory / 2**30,
            "free GiB": torch.cuda.mem_get_info()[0] / 2**30,
            "driver": _driver(),
            "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())),
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
            "TF32 for matrix products": torch.backends.cuda.matmul.allow_tf32,
            "TF32 for convolutions": torch.backends.cudnn.allow_tf32,
        }
    product = (values.to(place.device) @ values.to(place.device)).cpu()
    found.expect("product against the CPU", float((product - values @ values).abs().max()), 1e-2)
    found.headline = f"{found.numbers['device']}, torch {torch.__version__}"
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ended.stdout.split("\n")[0].strip() or None


def tests_marked_gpu(place: Place) -> Findings:
    """Runs every test that is marked ``gpu``."""
    need("pytest", "pytest_timeout", "psutil", "jsonargparse")
    files = [str(p) for p in sorted((ROOT / "tests").rglob("test_*.py")) if _is_marked(p)]
    report = place.work / "tests.xml"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider",
         f"--junitxml={report}", f"--basetemp={place.work / 'tests'}", *files],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    print(ended.stdout, ended.stderr, sep="\n", file=sys.stderr)
    found = Findings()
    if ended.returncode == _NO_TESTS or not report.exists():
        found.failures.append(f"pytest ran no test and ended with {ended.returncode}")
        return found
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    for case in suite.iter("testcase"):
        for kind in ("failure", "error"):
            for each in case.iter(kind):
                first = " ".join((each.get("message") or "").split())[:300]
                found.failures.append(f"{case.get('classname')}.{case.get('name')}: {first}")
    ran = counts["tests"] - counts["skipped"]
    found.numbers |= {**counts, "files": [str(Path(each).relative_to(ROOT)) for each in files]}
    if not ran and not place.on_gpu and not found.failures:
        raise Absent(f"needs a GPU: {counts['skipped']} tests are skipped without one")
    found.expect("ran", ran, at_least=1)
    found.headline = f"{ran} tests, {counts['failures'] + counts['errors']} failed"
    return found


def _is_marked(path: Path) -> bool:
    return _TESTS_MARKED in path.read_text()


def chain(place: Place) -> Findings:
    """Train, evaluate, teach, train, evaluate; what they give is what a CPU gives."""
    found = Findings()
    folder, shards = place.work / "chain", place.work / "shards"
    steps, rate = (300, 1e-3) if place.on_gpu else (24, 3e-3)
    recipe = {"steps": steps, "learning_rate": rate}
    seldom = CheckpointConfig(every_epochs=25)
    teacher = task_config(
        place, "masks", folder / "teacher", place.setting, recipe, checkpoint=seldom
    )
    train.run(teacher)
    pseudo = TeachConfig(
        str(shards / "thyroid"), str(folder / "pseudo"),
        [TeacherConfig(weights=teacher.output)], device=place.setting,
    )  # fmt: skip
    taught = teach.run(pseudo)
    found.expect_that(
        "pseudo masks", taught.counts["pseudo_labels"], len(IndexedShards(shards / "thyroid"))
    )
    student = task_config(
        place, "pseudo", folder / "student", place.setting, recipe, checkpoint=seldom
    )
    student = replace(student, data=replace(student.data, pseudo_labels=pseudo.output))
    train.run(student)
    dice = {name: _evaluate(place, folder, name, place.setting) for name in ("teacher", "student")}
    # After one step it is about 8 %; 300 steps gave a narrower network 65 % on a CPU.
    least = {"teacher": 40.0, "student": 10.0} if place.on_gpu else dict.fromkeys(dice, 1.0)
    for name, value in dice.items():
        found.expect(f"Dice of the {name}, %", value, at_least=least[name])
    found.numbers["knowledge-transfer capability, %"] = (
        100 * dice["student"] / max(dice["teacher"], 1e-9)
    )
    if place.on_gpu:
        _compare_stages(place, found, folder, pseudo, dice["teacher"])
    words = [f"{name} {value:.1f} %" for name, value in dice.items()]
    found.headline = f"Dice of {', '.join(words)}"
    return found


def _evaluate(place: Place, folder: Path, name: str, device: str, suffix: str = "") -> float:
    record = evaluate.run(
        EvaluateConfig(
            weights=str(folder / name), dataset=str(place.work / "shards" / "breast"),
            output=str(folder / f"test-{name}{suffix}"), bootstrap_samples=100, device=device,
        )
    )  # fmt: skip
    return record.metrics["dice_mean"]


def _compare_stages(
    place: Place, found: Findings, folder: Path, pseudo: TeachConfig, dice: float
) -> None:
    """Teaches and evaluates on the CPU too, with and without TF32 and bf16 on the GPU."""
    runs = {"cpu": replace(pseudo, device="cpu"), "TF32": pseudo, "float32": pseudo}
    runs["bfloat16"] = replace(pseudo, precision="bfloat16")
    masks, statistics = {}, {}
    for name, config in runs.items():
        config = replace(config, output=str(folder / f"pseudo-{name}"))
        with tf32(name != "float32"):
            teach.run(config)
        masks[name] = _masks(config)
        table = pq.read_table(Path(config.output) / "index.parquet")
        statistics[name] = np.asarray(table["entropy"])
    # Mean and largest difference in grey levels of 255, and the entropies' in bits.
    for name, (mean, most, bits) in {
        "float32": (0.01, 1, 0.02), "TF32": (1.0, 255, 0.5), "bfloat16": (6.0, 255, 1.0),
    }.items():  # fmt: skip
        off = np.abs(masks[name] - masks["cpu"])
        found.expect(f"teach in {name}: grey levels, mean", float(off.mean()), at_most=mean)
        found.expect(f"teach in {name}: grey levels, most", float(off.max()), at_most=most)
        entropy = np.abs(statistics[name] - statistics["cpu"]).max()
        found.expect(f"teach in {name}: entropy, bits", float(entropy), at_most=bits)
    on_cpu = _evaluate(place, folder, "teacher", "cpu", "-cpu")
    with tf32(False):
        plain = _evaluate(place, folder, "teacher", place.setting, "-float32")
    found.expect("evaluate in float32: Dice, points", abs(plain - on_cpu), at_most=0.05)
    found.expect("evaluate in TF32: Dice, points", abs(dice - on_cpu), at_most=0.5)


def _masks(config: TeachConfig) -> np.ndarray:
    """Returns all pseudo masks, int16 (N, H, W)."""
    images = IndexedShards(config.dataset)
    pseudo = PseudoLabels(config.output, images)
    size = (images.manifest.height, images.manifest.width)
    masks = [decode_pixels(pseudo.soft_mask_bytes(n), size)[0] for n in range(len(images))]
    return np.stack(masks).astype(np.int16)


@torch.inference_mode()
def networks(place: Place) -> Findings:
    """Logits of every network of the papers, on the GPU against the CPU, in eval mode."""
    found = Findings()
    names = MODEL_NAMES
    if find_spec("segmentation_models_pytorch") is None:
        names = tuple(name for name in names if name not in SMP_NETWORKS)
    for name in names:
        torch.manual_seed(0)
        channels = 3 if is_classifier(name) else 1
        network = ModelSpec(name, in_channels=channels).build().train()
        images = torch.rand(4, channels, 128, 128)
        for _ in range(3):  # statistics of BatchNorm that keep the signal's scale
            network(images)
        network.eval()
        expected = network(images)
        network.to(place.device)
        for precision, most in (("float32", 1e-4), ("TF32", 2e-2), ("bf16", 0.1)):
            with (
                tf32(precision != "float32"),
                torch.autocast(place.device, torch.bfloat16, enabled=precision == "bf16"),
            ):
                logits = network(images.to(place.device)).float().cpu()
            off = (logits - expected).norm() / expected.norm()
            found.expect(f"{name}: {precision}, relative", float(off), at_most=most)
    found.headline = f"logits of {', '.join(names)}"
    return found
