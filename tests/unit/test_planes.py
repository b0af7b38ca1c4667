"""What a layer of any network gives, as planes: each place of the image at its place."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.class_activation import (
    exact_class_activation,
    find_pooled_features,
    gradient_class_activation,
)
from nakt_dist.models import build_model
from nakt_dist.models.planes import as_planes
from nakt_dist.models.taps import TappedNetwork, TeacherTap

TINY = {"depth": 2, "embed_dim": 8, "num_heads": 2}
SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}


def network_of(name: str, **options: Any) -> nn.Module:
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    return timm.create_model(name, **options).eval()


def images(height: int, width: int, number: int = 2) -> torch.Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(height))


def raw(network: nn.Module, path: str, seen: torch.Tensor) -> torch.Tensor:
    kept: list[torch.Tensor] = []
    hook = network.get_submodule(path).register_forward_hook(lambda *each: kept.append(each[2]))
    with torch.no_grad():
        network(seen)
    hook.remove()
    return kept[0]


@pytest.mark.parametrize(("height", "width"), [(48, 48), (32, 80)])
@pytest.mark.parametrize(
    ("name", "options", "before"),
    [
        ("vit_tiny_patch16_224", {"dynamic_img_size": True, **TINY}, 1),
        ("vit_small_patch14_reg4_dinov2", {"dynamic_img_size": True, "patch_size": 16, **TINY}, 5),
        ("deit_tiny_distilled_patch16_224", TINY, 2),
        ("vit_small_patch16_dinov3", {**TINY, "embed_dim": 16}, 5),
        ("vit_base_patch16_siglip_224", TINY, 0),
    ],
)
def test_each_token_lies_where_its_patch_lies(
    name: str, options: dict[str, Any], before: int, height: int, width: int
) -> None:
    network = network_of(name, img_size=(height, width), **options)
    seen = images(height, width)
    (planes,) = TeacherTap(network, ["blocks.1"]).activations(seen)
    tokens = raw(network, "blocks.1", seen)

    rows, columns = height // 16, width // 16
    assert planes.shape == (2, tokens.shape[2], rows, columns)
    assert tokens.shape[1] == before + rows * columns
    for row in range(rows):
        for column in range(columns):
            token = tokens[:, before + row * columns + column]
            assert torch.equal(planes[:, :, row, column], token)


def test_a_patch_speaks_at_its_own_place_alone() -> None:
    network = network_of("vit_tiny_patch16_224", img_size=(32, 64), **TINY)
    seen = images(32, 64)
    changed = seen.clone()
    changed[:, :, 16:32, 32:48] += 1  # the patch in row 1, column 2
    tap = TeacherTap(network, ["patch_embed"])  # before the class token joins them
    difference = (tap.activations(seen)[0] - tap.activations(changed)[0]).abs().sum((0, 1))
    assert difference.nonzero().tolist() == [[1, 2]]


def test_maps_of_channels_last_are_turned() -> None:
    network = network_of("swin_tiny_patch4_window7_224", img_size=(32, 64), **SWIN)
    seen = images(32, 64)
    paths = ["patch_embed.proj", "layers.1", "layers.1.blocks.0", "layers.0.blocks.0.mlp"]
    convolved, *turned, tokens = TeacherTap(network, paths).activations(seen)
    for path, planes in zip(paths[1:3], turned, strict=True):
        assert torch.equal(planes, raw(network, path, seen).permute(0, 3, 1, 2))
        assert planes.shape == (2, 16, 4, 8)
    assert tokens.shape == (2, 8, 8, 16)  # the block lists its places there
    assert convolved.shape == (2, 8, 8, 16)  # channels first already


def test_what_sam_keeps_of_patches_is_turned_and_its_neck_is_not() -> None:
    options = {"img_size": 64, "global_attn_indexes": (1,), **TINY}
    network = network_of("samvit_base_patch16_224", **options)
    seen = images(64, 64)
    block, neck = TeacherTap(network, ["blocks.1", "neck"]).activations(seen)
    assert torch.equal(block, raw(network, "blocks.1", seen).permute(0, 3, 1, 2))
    assert torch.equal(neck, raw(network, "neck", seen))
    assert block.shape == neck.shape == (2, 8, 4, 4)


def test_gradients_reach_a_student_s_tokens() -> None:
    network = network_of("test_vit").train()
    _, (planes,) = TappedNetwork(network, ["blocks.2"])(images(32, 48))
    assert planes.shape == (2, 64, 2, 3)
    planes.sum().backward()
    assert network.get_submodule("patch_embed.proj").weight.grad.abs().sum() > 0


def test_grad_cam_takes_tokens() -> None:
    network = network_of("test_vit", num_classes=3)
    module = network.get_submodule("blocks.2")
    maps = gradient_class_activation(network, module, images(32, 48), [0, 2])
    assert maps.shape == (2, 2, 2, 3) and maps.min() >= 0


@pytest.mark.parametrize(
    ("name", "options", "path", "message"),
    [
        ("swin_tiny_patch4_window7_224", {**SWIN, "img_size": 32}, "layers.0.blocks.0.attn",
         "8 parts for 2 images, .*tap the block around it"),
        ("hiera_tiny_224", {"embed_dim": 8, "stages": (1, 1, 1, 1), "num_heads": 1}, "blocks.0",
         "does not say which places they are"),
        ("vit_tiny_patch16_224", {"img_size": 32, "global_pool": "map", **TINY}, "attn_pool.mlp",
         "gives 1 tokens for each image; expected 1 of no place and one for each of the 2 × 2"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused(
    name: str, options: dict[str, Any], path: str, message: str
) -> None:
    network = network_of(name, **options)
    size = 224 if "hiera" in name else 32
    with pytest.raises(ConfigurationError, match=message):
        TeacherTap(network, [path]).activations(images(size, size))


@pytest.mark.parametrize(
    ("name", "path"), [("monai_unet", "0"), ("monai_densenet121", "features.denseblock1")]
)
def test_maps_of_a_network_that_sees_columns_first_lie_as_the_image_does(
    name: str, path: str
) -> None:
    turned = build_model(name, 1, 2, transposed=True).eval()
    plain = build_model(name, 1, 2).eval()
    plain.load_state_dict(turned.state_dict())
    seen = torch.rand(2, 1, 64, 96)
    (expected,) = TeacherTap(plain, [path]).activations(seen.mT)
    (found,) = TeacherTap(turned, [path]).activations(seen)
    assert found.shape[2] * 96 == found.shape[3] * 64
    assert torch.equal(found, expected.mT)
    if name == "monai_densenet121":
        pooled = find_pooled_features(turned, seen)
        assert pooled is not None
        exact = exact_class_activation(turned, pooled, seen, [0])
        module = turned.get_submodule(path)
        maps = gradient_class_activation(turned, module, seen, [0])
        assert (exact.shape[2:], maps.shape[2:]) == ((2, 3), found.shape[2:])


def test_planes_and_features_stay_as_they_are() -> None:
    bare = nn.Sequential(nn.Conv2d(3, 4, 1))
    for activation in (torch.rand(2, 4, 8, 8), torch.rand(2, 4)):
        assert as_planes(activation, bare, bare[0], images(8, 8), "0") is activation
