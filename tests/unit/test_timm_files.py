"""Files of timm's networks as others publish them: names, heads, sizes and input."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.initialise import initialise, read_initial_weights
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, PreprocessingConfig
from nakt_dist.models.timm_files import usual_input
from nakt_dist.models.weights import save_weights
from nakt_dist.stages.train_start import choose_start
from tests.recipes import train_config

TINY = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 56}
DINO = "vit_small_patch14_dinov2"
REGISTERS = "vit_small_patch14_reg4_dinov2"


def state_of(name: str = DINO, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = timm.create_model(name, **{**TINY, **options})
    return {name: each.clone() for name, each in network.state_dict().items()}


def spec_of(name: str = DINO, num_outputs: int = 1, **options: Any) -> ModelSpec:
    return ModelSpec(f"timm:{name}", 3, num_outputs, {**TINY, **options})


def write(folder: Path, state: dict[str, Tensor], name: str = "theirs.safetensors") -> Path:
    path = folder / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def features(trained: TrainedNetwork, height: int = 56, width: int = 56) -> Tensor:
    seen = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return trained.network.forward_features(seen)


def test_a_file_of_timm_without_a_head_gives_features(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    opened = open_network(write(tmp_path, state_of()), spec_of())
    assert opened.spec == spec_of(num_outputs=0)
    assert opened.network(torch.zeros(1, 3, 56, 56)).shape == (1, 32)
    assert "has no classifier head in its file" in capsys.readouterr().err
    assert opened.preprocessing == PreprocessingConfig(56, 56, IMAGENET_MEAN, IMAGENET_STD)
    (said,) = opened.seen.describe("dino", {}, ImageForm(32, 32))
    assert "at 56 × 56 pixels" in said
    assert f"(ImageNet's, as timm has it for {DINO})" in said
    assert "Assumed: mean, std, height and width" in said


def test_another_mean_than_imagenet_s_is_timm_s(tmp_path: Path) -> None:
    name = "vit_base_patch16_siglip_224"
    path = write(tmp_path, state_of(name, img_size=32))
    opened = open_network(path, spec_of(name, img_size=32))
    assert opened.preprocessing == PreprocessingConfig(32, 32, [0.5] * 3, [0.5] * 3)
    asked = open_network(path, spec_of(name, img_size=32), PreprocessingConfig(mean=0.4))
    assert (asked.preprocessing.mean, asked.preprocessing.std) == (0.4, 1.0)


def test_what_starts_from_timm_s_weights_sees_what_these_are_used_to(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    loaded = read_initial_weights(write(tmp_path, state_of(name, img_size=32)))
    half = PreprocessingConfig(32, 32, [0.5] * 3, [0.5] * 3)
    plain = PreprocessingConfig(None, None, IMAGENET_MEAN, IMAGENET_STD)
    for foreign, options, sees in (
        (loaded, {}, half), (None, {"pretrained": True}, half), (None, {}, plain),
    ):  # fmt: skip
        spec = spec_of(name, img_size=32, **options)
        config = train_config(
            tmp_path, tmp_path, task="classification", model=spec, init=foreign and "theirs"
        )
        start = choose_start(config, foreign, ["Edema", "Nodule"], ())
        assert start.seen.preprocessing == sees
        said = start.describe(ImageForm(64, 64))
        assert any(f"(as timm has it for {name})" in each for each in said) == bool(foreign)


def test_what_takes_one_size_alone_sees_that_unless_it_was_built_for_another() -> None:
    name, small = "timm:hiera_tiny_224", {"embed_dim": 8, "stages": [1, 1, 1, 1], "num_heads": 1}
    for options, sees in ((small, {"height": 224, "width": 224}), ({**small, "img_size": 64}, {})):
        spec = ModelSpec(name, 3, 0, options)
        found = usual_input(spec.build(), spec)
        assert {side: found[side] for side in ("height", "width") if side in found} == sees
    resnet = ModelSpec("timm:test_resnet", 3, 0)
    assert usual_input(resnet.build(), resnet).keys() == {"mean", "std"}


def test_a_head_is_left_in_the_file_where_none_is_wanted(tmp_path: Path) -> None:
    path = write(tmp_path, state_of(num_classes=7))
    opened = open_network(path, spec_of(num_outputs=0))
    assert opened.network(torch.zeros(1, 3, 56, 56)).shape == (1, 32)
    assert "left there: head.bias, head.weight" in opened.notices[0]
    assert open_network(path, spec_of()).spec.num_outputs == 7


def hub_state(name: str) -> dict[str, Tensor]:
    """The same weights as torch.hub's DINOv2 has them."""
    state = state_of(name)
    state["mask_token"] = torch.zeros(1, 32)
    if name == REGISTERS:  # position embeddings have a row for the class token, added to it
        state["register_tokens"] = state.pop("reg_token")
        half = state["cls_token"] / 2
        state["pos_embed"] = torch.cat([half, state["pos_embed"]], dim=1)
        state["cls_token"] = half
    return state


@pytest.mark.parametrize("name", [DINO, REGISTERS])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_dinov2_as_torch_hub_has_it(tmp_path: Path, name: str, prefix: str) -> None:
    ours = open_network(write(tmp_path, state_of(name)), spec_of(name))
    theirs = {f"{prefix}{each}": value for each, value in hub_state(name).items()}
    opened = open_network(write(tmp_path, {"teacher": theirs}, "hub.pth"), spec_of(name))
    assert torch.allclose(features(opened), features(ours), atol=1e-6)
    assert "mask_token" in opened.notices[0]


@pytest.mark.parametrize(("height", "width"), [(84, 84), (28, 112)])
def test_another_size_is_matched_as_timm_does(tmp_path: Path, height: int, width: int) -> None:
    path = write(tmp_path, state_of())
    asked = open_network(path, spec_of(), PreprocessingConfig(height, width))
    assert asked.spec.options["img_size"] == [height, width]
    assert asked.preprocessing.height == height
    assert (
        f"made for 56 × 56 pixels; timm resamples .* for {height} × {width}".split(" .* ")[0]
        in (asked.notices[-1])
    )
    expected = timm.create_model(DINO, **TINY)
    expected.load_state_dict(state_of())
    expected.set_input_size(img_size=(height, width))
    position = expected.state_dict()["pos_embed"]
    assert torch.equal(asked.network.state_dict()["pos_embed"], position)
    if height == width:  # of another number of patches it is resampled as it is read
        built = open_network(path, spec_of(img_size=[height, width]))
        assert torch.allclose(built.network.state_dict()["pos_embed"], position, atol=1e-6)
    assert features(asked, height, width).shape == (2, 1 + height * width // 196, 32)


def test_a_network_of_ours_is_resized_likewise(tmp_path: Path) -> None:
    spec = spec_of(num_outputs=3)
    path = tmp_path / "ours.safetensors"
    save_weights(path, spec.build().state_dict(), spec, {})
    opened = open_network(path, preprocessing=PreprocessingConfig(28, 28))
    assert opened.network(torch.zeros(1, 3, 28, 28)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        (
            DINO,
            (64, 56),
            "height of 64, which its patches of 14 × 14 .*to 56 or 70",
        ),
        ("cait_xxs24_224", (64, 64), "takes images of 32 × 32 pixels, and would see 64 × 64"),
    ],
)
def test_sizes_that_cannot_be_matched_are_refused(
    tmp_path: Path, name: str, size: tuple[int, int], message: str
) -> None:
    spec = spec_of(name) if name == DINO else spec_of(name, img_size=32)
    state = {entry: each.clone() for entry, each in spec.build().state_dict().items()}
    path = write(tmp_path, state)
    with pytest.raises(ConfigurationError, match=message):
        open_network(path, spec, PreprocessingConfig(*size))


def test_what_is_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="its weights do not fit the network"):
        open_network(write(tmp_path, state_of(depth=3)), spec_of())
    odd = {name: each for name, each in state_of().items() if "patch_embed" not in name}
    odd["pos_embed"] = torch.zeros(5)
    with pytest.raises(CheckpointError, match="timm cannot read it as VisionTransformer"):
        open_network(write(tmp_path, odd), spec_of())


def test_no_outputs_are_for_networks_of_timm_alone() -> None:
    for name in ("densenet121", "unet"):
        with pytest.raises(ConfigurationError, match=r"num_outputs is 0, expected .* at least 1"):
            ModelSpec(name, 3, 0).build()


def test_a_student_starts_from_a_foundation_file_of_another_size(tmp_path: Path) -> None:
    loaded = read_initial_weights(write(tmp_path, hub_state(DINO), "hub.pth"))
    network = spec_of(num_outputs=3, img_size=84).build()
    head = network.get_submodule("head").weight.clone()
    report = initialise(network, loaded)
    assert report.replaced_head == ("head.weight", "head.bias")
    assert report.unexpected == ("mask_token",)
    assert torch.equal(network.get_submodule("head").weight, head)
    assert torch.equal(network.get_parameter("cls_token"), state_of()["cls_token"])
