"""The examples of docs/extending.md: taken from the page, registered as it says, and run."""

import re
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

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCKS = {
    match["path"]: match["content"]
    for match in re.finditer(
        r"^```\w+\n# (?P<path>\S+)\n(?P<content>.*?)^```$",
        PAGE.read_text(),
        re.DOTALL | re.MULTILINE,
    )
}

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
