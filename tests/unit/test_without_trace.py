"""Foreign weights fit whatever leaves no trace in them: it is said what was assumed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights

TINY = {"encoder_name": "tu-test_resnet", "encoder_depth": 4, "decoder_channels": 16}
RATES = {"decoder_atrous_rates": [12, 24, 36]}
PRESET = ModelSpec("deeplabv3plus", options=TINY)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DeepLabv3+ of others, with segmentation-models-pytorch's rates."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("theirs") / "theirs.safetensors"
    save_file(ModelSpec("deeplabv3plus", options={**TINY, **RATES}).build().state_dict(), path)
    return path


def test_assumed_rates_and_stride_are_said_and_can_be_set(theirs: Path) -> None:
    assumed = open_network(theirs, PRESET)
    (line,) = assumed.notices
    assert "decoder_atrous_rates [6, 12, 18]" in line and "encoder_output_stride 16" in line
    assert "ReLU" in line and "epsilon 1e-05" in line and "\n" not in line
    stated = open_network(theirs, ModelSpec("deeplabv3plus", options={**TINY, **RATES}))
    assert "decoder_atrous_rates" not in stated.notices[0]
    rates = {m.dilation[0] for m in stated.network.modules() if isinstance(m, torch.nn.Conv2d)}
    assert {12, 24, 36} <= rates
    image = torch.rand(1, 1, 160, 160)  # of 10 × 10 places after the encoder
    assert not torch.equal(assumed.network(image), stated.network(image))


def test_smp_s_own_rates_are_said_of_a_network_named_as_smp_s(theirs: Path) -> None:
    options = {name: value for name, value in TINY.items() if name != "encoder_name"}
    opened = open_network(theirs, ModelSpec("smp:DeepLabV3Plus/tu-test_resnet", options=options))
    assert "decoder_atrous_rates [12, 24, 36]" in opened.notices[0]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ModelSpec("smp:FPN/tu-test_resnet", options={"encoder_depth": 4}), "upsampling 4"),
        (ModelSpec("sdu_net", options={"base_channels": 16}), "dilations 3, 6, 9, 12"),
        (ModelSpec("timm:test_resnet", 3), "ReLU"),
    ],
)
def test_what_other_networks_do_not_show_is_said(
    tmp_path: Path, spec: ModelSpec, words: str
) -> None:
    save_file(spec.build().state_dict(), tmp_path / "w.safetensors")
    assert words in open_network(tmp_path / "w.safetensors", spec).notices[0]


def test_a_file_of_ours_states_its_design_which_settings_replace_one_by_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ours.safetensors"
    spec = ModelSpec("deeplabv3plus", options={**TINY, **RATES})
    save_weights(path, spec.build().state_dict(), spec, {})
    assert open_network(path).notices == ()
    named = open_network(path, ModelSpec("deeplabv3plus"))
    assert (named.spec, named.notices) == (spec, ())  # the rates stay the file's
    other = open_network(path, ModelSpec("deeplabv3plus", options={"encoder_output_stride": 8}))
    assert other.spec.options == {**spec.options, "encoder_output_stride": 8}
    changed = open_network(
        path, ModelSpec("deeplabv3plus", options={"decoder_atrous_rates": [6, 12, 18]})
    )
    assert "[12, 24, 36]" in changed.notices[0]
