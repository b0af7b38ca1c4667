"""Files of other libraries, written here in their formats, opened without being described."""

from types import SimpleNamespace

import pytest
import torch

from nakt_dist.config import PreprocessingConfig
from nakt_dist.config.teaching import LearntImagesConfig, NetworkCardConfig
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec, build_model
from nakt_dist.models.densenet import at_operating_points
from nakt_dist.models.initialise import read_initial_weights
from nakt_dist.models.network_file import open_network
from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.sources.findings import TORCHXRAYVISION_FINDINGS
from nakt_dist.stages.network_card import with_card

SMALL = PreprocessingConfig(32, 32)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_operating_points_come_to_a_half():
    points = torch.tensor([0.2, 0.2, 0.2, 0.002])
    logits = torch.tensor([[0.1, 0.2, 0.6, 0.001]]).logit()
    expected = torch.tensor([[0.25, 0.5, 0.75, 0.25]])
    assert torch.allclose(at_operating_points(logits, points).sigmoid(), expected)
    far = torch.tensor([[-80.0, 80.0, 0.0, -1e4]], requires_grad=True)
    moved = at_operating_points(far, points)
    moved.sum().backward()
    assert moved.isfinite().all() and far.grad.isfinite().all()


@pytest.fixture(scope="module")
def xray(tmp_path_factory):
    """A state dict as torchxrayvision's DenseNet has it, of which two outputs never learnt."""
    state = build_model("densenet121", 1, 18, calibrated=True).state_dict()
    state["op_threshs"] = torch.linspace(0.01, 0.9, 18)
    state["op_threshs"][[2, 5]] = torch.nan
    state["classifier.bias"] = torch.linspace(-4, 4, 18)
    path = tmp_path_factory.mktemp("xrv") / "nih.pt"
    torch.save(state, path)
    return path, state


def test_a_densenet_of_torchxrayvision_brings_its_input_and_calibration(xray):
    path, state = xray
    opened = open_network(path)
    assert opened.spec == ModelSpec("densenet121", 1, 16, {"calibrated": True})
    seen = opened.preprocessing
    assert (seen.height, seen.width, seen.mean, seen.std) == (224, 224, 0.5, 1 / 2048)
    assert opened.prepare(torch.tensor([0, 1.0])[:, None, None, None])[:, 0, 0, 0].tolist() == [
        -1024,
        1024,
    ]
    names = list(TORCHXRAYVISION_FINDINGS)
    assert opened.lineage == {"labels": [*names[:2], *names[3:5], *names[6:]]}
    assert "torchxrayvision" in opened.notices[0] and "2 outputs" in opened.notices[0]

    plain = build_model("densenet121", 1, 18).eval()
    plain.load_state_dict({k: v for k, v in state.items() if k != "op_threshs"})
    kept = [number for number in range(18) if number not in (2, 5)]
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        p = plain((images - 0.5) * 2048).sigmoid()[:, kept]
    t = state["op_threshs"][kept]
    expected = torch.where(p < t, p / (2 * t), 1 - (1 - p) / (2 * (1 - t)))
    found = open_network(path, ModelSpec("densenet121"), SMALL).logits(images).sigmoid()
    assert torch.allclose(found, expected, atol=1e-5)
    assert read_initial_weights(path).spec == opened.spec


def test_what_outputs_mean_says_nothing_of_what_was_learnt(xray):
    opened = open_network(xray[0])
    assert read_lineage(opened.lineage, lenient=True) == Lineage()
    card = NetworkCardConfig("apache-2.0", [LearntImagesConfig("chestxray14")])
    carded, _ = with_card(opened, SimpleNamespace(weights=str(xray[0]), card=card))
    assert carded.lineage["labels"] == opened.lineage["labels"]
    assert read_lineage(carded.lineage, lenient=True).learnt.dataset == "chestxray14"


@pytest.mark.parametrize("wrong", [1.5, 0.0, float("inf"), None])
def test_operating_points_that_are_none_are_refused(tmp_path, xray, wrong):
    points = torch.full((18,), torch.nan) if wrong is None else torch.full((18,), wrong)
    torch.save({**xray[1], "op_threshs": points}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="operating points of torchxrayvision"):
        open_network(tmp_path / "net.pt")


def test_calibration_is_on_or_off():
    with pytest.raises(ConfigurationError, match="'calibrated' is 'yes', expected true or false"):
        build_model("densenet121", 1, 2, calibrated="yes")
