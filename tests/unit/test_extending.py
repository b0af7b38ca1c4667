"""The examples of docs/extending.md: taken from the page, added to a copy of ours, and run."""

import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from nakt_dist import sources
from nakt_dist.config import ImageConfig, PackConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.network_file import open_network
from nakt_dist.models.registry import NETWORKS, Network, build_model, is_classifier
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights
from nakt_dist.sources.cards import load_card
from nakt_dist.stages import pack

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
BLOCK = re.compile(r"^```(?P<kind>\w+)\n# (?P<path>\S+)\n(?P<content>.*?)^```$", re.S | re.M)
BLOCKS = {
    match["path"]: match["content"]
    for match in BLOCK.finditer(PAGE.read_text())
    if match["kind"] != "diff"
}
TESTS_OF_ALL = ("tests/unit/test_sources_cards.py",)
"""Of the repository, which hold for what is added as well."""

LoadModule = Callable[[str], types.ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> LoadModule:
    """Imports a block of the page as the module that it would be."""

    def load_block(path: str) -> types.ModuleType:
        module = types.ModuleType(path.removesuffix(".py").replace("/", "."))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(BLOCKS[path], path, "exec"), module.__dict__)
        return module

    return load_block


def run_tests(module: types.ModuleType, tmp_path: Path) -> None:
    """Runs the tests of a block, each in a folder of its own."""
    tests = [name for name in vars(module) if name.startswith("test_")]
    assert tests
    for name in tests:
        (tmp_path / name).mkdir()
        wanted = {"tmp_path": tmp_path / name}
        test = getattr(module, name)
        test(**{each: wanted[each] for each in test.__annotations__ if each in wanted})


def test_layout(tmp_path: Path, load: LoadModule, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = load("nakt_dist/sources/ph2.py").SOURCE
    monkeypatch.setitem(sources.SOURCES, layout.name, layout)
    run_tests(load("tests/unit/test_ph2.py"), tmp_path)
    card = tmp_path / "ph2.yaml"
    card.write_text(BLOCKS["shards/cards/ph2.yaml"])
    assert load_card(card, tmp_path).layout == layout.name
    (tmp_path / "in").mkdir()
    for number in range(10):
        for ending in ("", "_lesion"):
            picture = Image.new("L", (32, 32), 2 * number if not ending else 255)
            picture.save(tmp_path / "in" / f"IMD{number:03d}{ending}.bmp")
    config = PackConfig(
        layout="ph2", source=str(tmp_path / "in"), output=str(tmp_path / "out"), card=str(card),
        image=ImageConfig(height=16, width=16), workers=1,
    )  # fmt: skip
    record = pack.run(config)
    assert record.counts["packed"] == 10


def test_network(tmp_path: Path, load: LoadModule, monkeypatch: pytest.MonkeyPatch) -> None:
    load("nakt_dist/models/context_net.py")
    entry = Network("nakt_dist.models.context_net", "ContextNet")
    monkeypatch.setitem(NETWORKS, "context_net", entry)
    run_tests(load("tests/unit/test_context_net.py"), tmp_path)
    spec, path = ModelSpec("context_net", options={"channels": 4}), tmp_path / "best.safetensors"
    network = spec.build().eval()
    save_weights(path, network.state_dict(), spec, {})
    images = torch.rand(2, 1, 20, 30)
    assert torch.equal(open_network(path).logits(images), network(images))
    with pytest.raises(ConfigurationError, match="'chanels', did you mean 'channels'"):
        build_model("context_net", chanels=4)
    assert not is_classifier("context_net")
    monkeypatch.setitem(NETWORKS, "context_net", replace(entry, classifies=True))
    assert is_classifier("context_net")


def add_lines(path: Path, hunks: str) -> None:
    """Adds the lines marked ``+`` after and before those that must be there, once."""
    text = path.read_text()
    for hunk in hunks.strip("\n").split("\n\n"):
        lines = hunk.splitlines()
        before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
        after = "\n".join(line[1:] for line in lines)
        assert text.count(f"{before}\n") == 1, f"{path.name} does not hold {before!r} once"
        text = text.replace(f"{before}\n", f"{after}\n")
    path.write_text(text)


def test_examples_of_the_page(tmp_path: Path) -> None:
    for folder in ("nakt_dist", "shards/cards"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    (tmp_path / "tests" / "unit").mkdir(parents=True)
    for name in TESTS_OF_ALL:
        shutil.copy(ROOT / name, tmp_path / name)
    tests = list(TESTS_OF_ALL)
    for block in BLOCK.finditer(PAGE.read_text()):
        path = tmp_path / block["path"]
        if block["kind"] == "diff":
            add_lines(path, block["content"])
            continue
        assert not path.exists()
        path.write_text(block["content"])
        tests += [block["path"]] if block["path"].startswith("tests/") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
