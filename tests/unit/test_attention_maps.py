"""Class activation, similarity of attention maps, and the choice of what to show."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from nakt_dist.config import AttentionConfig, PreprocessingConfig, ShownNetworkConfig, TapConfig
from nakt_dist.drawing.attention import AttentionRow, _column_titles, draw_attention_sheet
from nakt_dist.drawing.sheets import Outline
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.evaluation.attention_maps import (
    MEASURES,
    Attention,
    AttentionReader,
    map_similarity,
    plane_similarity,
    similarities,
    summarise_similarity,
)
from nakt_dist.evaluation.class_activation import (
    exact_class_activation,
    find_pooled_features,
    gradient_class_activation,
)
from nakt_dist.evaluation.image_choice import choose_images, choose_other_images
from nakt_dist.evaluation.network_lineage import choose_taps, is_taught_by
from nakt_dist.loading.targets import output_names
from nakt_dist.models import ModelSpec, build_model
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.preprocessing import NetworkInput
from nakt_dist.models.taps import find_module
from nakt_dist.report.attention import draw_similarity
from nakt_dist.transfer.attention import attention_loss

NAN = float("nan")
POOLED = ["densenet40", "densenet121", "timm:resnet18", "timm:efficientnet_lite0"]


class SmallClassifier(nn.Module):
    """Two planes, a ReLU in place, their means, a linear layer; ``pooling`` may spoil it."""

    def __init__(self, pooling=lambda features: features.mean((2, 3))):
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 3)
        self.pooling = pooling
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]]))
            self.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))

    def forward(self, image):
        return self.head(self.pooling(nn.functional.relu(self.features(image), inplace=True)))


def build(name, outputs=3, channels=3):
    torch.manual_seed(0)
    return build_model(name, channels, outputs).eval().requires_grad_(False)


def trained(name="densenet40", outputs=3, lineage=None, sha256="s", channels=3):
    return TrainedNetwork(
        name="network",
        network=build(name, outputs, channels),
        spec=ModelSpec(name, channels, outputs),
        seen=NetworkInput(PreprocessingConfig(mean=0.0, std=1.0)),
        lineage=lineage or {},
        weights_sha256=sha256,
    )


def config(**changes):
    networks = ShownNetworkConfig("s"), ShownNetworkConfig("t")
    return dataclasses.replace(AttentionConfig(*networks, dataset="d", output="o"), **changes)


# Class activation


def test_exact_class_activation_by_hand():
    network = SmallClassifier()
    image = torch.tensor([[1.0, -2.0], [3.0, 0.0]]).view(1, 1, 2, 2)
    pooled = find_pooled_features(network, image)
    assert pooled.module is network.features
    assert pooled.head is network.head
    maps = exact_class_activation(network, pooled, image, [0, 1, 2])[0]
    # The planes after the ReLU are (1, 0, 3, 0) and (0, 2, 0, 0).
    assert maps.flatten(1).tolist() == [[1, 0, 3, 0], [0, 4, 0, 0], [1, -2, 3, 0]]


@pytest.mark.parametrize("name", POOLED)
def test_the_mean_of_an_exact_map_is_the_logit_without_its_bias(name):
    network, image = build(name), torch.rand(2, 3, 96, 64)
    pooled = find_pooled_features(network, image)
    maps = exact_class_activation(network, pooled, image, [2, 0])
    assert maps.shape[2] * maps.shape[3] > 1
    expected = (network(image) - pooled.head.bias)[:, [2, 0]]
    assert torch.allclose(maps.mean((2, 3)), expected, atol=1e-4)


def test_a_network_that_pools_otherwise_has_no_exact_map():
    image = torch.rand(2, 1, 4, 4)
    assert find_pooled_features(SmallClassifier(lambda x: x.amax((2, 3))), image) is None
    assert find_pooled_features(build("unet", 1, 1), torch.rand(1, 1, 32, 32)) is None
    # The logit of a softmax is not linear in its map.
    softmax = build_model("densenet121", 3, 2, softmax=True).eval()
    assert find_pooled_features(softmax, torch.rand(2, 3, 64, 96)) is None
    # MobileNetV3 has a convolution between its pooling and its last layer.
    mobile = build("timm:mobilenetv3_small_050")
    assert find_pooled_features(mobile, torch.rand(2, 3, 64, 96)) is None


@pytest.mark.parametrize("name", ["densenet121", "timm:resnet18"])
def test_finding_the_pooled_map_leaves_no_hook_and_changes_no_answer(name):
    network, image = build(name), torch.rand(2, 3, 64, 64)
    before = network(image)
    find_pooled_features(network, image)
    assert not any(module._forward_hooks for module in network.modules())
    assert torch.equal(network(image), before)


def test_gradient_class_activation_by_hand():
    network = SmallClassifier().requires_grad_(False)
    image = torch.tensor([[1.0, -2.0], [3.0, 0.0]]).view(1, 1, 2, 2)
    maps = gradient_class_activation(network, network.features, image, [0, 2])
    # Tapped before the ReLU: planes (1, -2, 3, 0) and (-1, 2, -3, 0); the mean over 4 places
    # weighs a positive place by w / 4, two of the first plane's and one of the second's.
    first = torch.tensor([[1.0, -2.0], [3.0, 0.0]]) * 2 / 16
    third = first - torch.tensor([[-1.0, 2.0], [-3.0, 0.0]]) * 1 / 16
    assert torch.allclose(maps[0, 0], first.relu())
    assert torch.allclose(maps[0, 1], third.relu())


def test_gradient_and_exact_class_activation_agree_where_both_exist():
    network, image = build("timm:resnet18"), torch.rand(2, 3, 64, 64)
    pooled = find_pooled_features(network, image)
    exact = exact_class_activation(network, pooled, image, [0, 2])
    gradient = gradient_class_activation(network, network.layer4, image, [0, 2])
    assert torch.allclose(gradient, exact.relu() / exact[0, 0].numel(), atol=1e-6)


def test_gradient_class_activation_works_where_what_follows_writes_in_place():
    network, image = build("densenet121"), torch.rand(1, 3, 64, 64)
    module = find_module(network, "features.denseblock4.denselayer15")
    maps = gradient_class_activation(network, module, image, [0])
    assert maps.shape == (1, 1, 2, 2)
    assert torch.isfinite(maps).all()
    assert not module._forward_hooks


# Similarity


def maps(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, None, None, :]


def test_map_similarity_is_pearsons_correlation():
    student, teacher = torch.rand(5, 1, 3, 4), torch.rand(5, 1, 3, 4)
    expected = [
        np.corrcoef(s.numpy().ravel(), t.numpy().ravel())[0, 1]
        for s, t in zip(student, teacher, strict=True)
    ]
    assert map_similarity(student, teacher).tolist() == pytest.approx(expected, abs=1e-6)


def test_equal_opposite_and_flat_maps():
    student = maps([0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 0, 0], [0.1, 0.1, 0.1])
    teacher = maps([1, 3, 5], [2, 1, 0], [3, 3, 3], [0, 1, 2], [0, 1, 2])
    similarity = map_similarity(student, teacher).tolist()
    assert similarity[:2] == pytest.approx([1, -1])
    assert all(np.isnan(value) for value in similarity[2:])


@given(st.integers(0, 2**32 - 1), st.floats(-6, 6))
@settings(max_examples=40, deadline=None)
def test_map_similarity_knows_no_scale(seed, exponent):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.rand(2, 3, 1, 4, 4, generator=generator)
    similarity = map_similarity(student, teacher)
    assert ((similarity >= -1) & (similarity <= 1)).all()
    assert torch.allclose(map_similarity(student * 10**exponent, teacher), similarity, atol=1e-4)


def test_plane_similarity_is_1_less_half_of_equation_2():
    student, teacher = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 4, 4)
    expected = [
        1 - attention_loss(s[None], t[None]).item() / 2
        for s, t in zip(student, teacher, strict=True)
    ]
    assert plane_similarity(student, teacher).tolist() == pytest.approx(expected, abs=1e-6)


def test_plane_similarity_passes_over_planes_without_direction():
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]])
    teacher = torch.tensor([[[[-1.0, 0.0]], [[1.0, 0.0]]]])
    assert plane_similarity(student, teacher).tolist() == pytest.approx([0])
    assert plane_similarity(student[:, :1], teacher).isnan().all()
    assert plane_similarity(student * 0, teacher).isnan().all()


def batch(seed, images, sides=(3,)):
    generator = torch.Generator().manual_seed(seed)
    taps = [torch.randn(3, images, 4, side, side, generator=generator) for side in sides]
    return Attention(torch.zeros(images, 1), *(tuple(tap[who] for tap in taps) for who in range(3)))


def test_the_control_is_the_teachers_map_of_the_other_image():
    attention = batch(0, 3)
    squares = [
        tap[0].square().mean(1, keepdim=True) for tap in (attention.student, attention.other)
    ]
    measured = similarities(attention)["similarity_to_other_image"]
    assert measured.tolist() == pytest.approx(map_similarity(*squares).tolist())
    without = similarities(dataclasses.replace(attention, other=None))
    assert np.isnan(without["similarity_to_other_image"]).all()
    assert without["similarity"] == pytest.approx(similarities(attention)["similarity"])


def test_several_taps_are_averaged():
    attention = batch(0, 3, sides=(2, 5))
    each = [
        similarities(Attention(attention.output, *((tap,) for tap in taps)))
        for taps in zip(attention.student, attention.teacher, attention.other, strict=True)
    ]
    for name in MEASURES:
        expected = (each[0][name] + each[1][name]) / 2
        assert similarities(attention)[name] == pytest.approx(expected)


def test_the_teachers_map_comes_to_the_students_size():
    attention = Attention(torch.zeros(1), (torch.randn(1, 4, 2, 2),), (torch.randn(1, 8, 6, 6),))
    ((student, teacher),) = attention.maps()
    assert student.shape == teacher.shape == (1, 1, 2, 2)
    pooled = attention.teacher[0].square().mean(1)[0, :3, :3].mean()
    assert teacher[0, 0, 0, 0].item() == pytest.approx(pooled.item(), rel=1e-5)


def test_a_network_beside_itself_looks_at_the_same():
    networks = trained(), trained()
    reader = AttentionReader(*networks, [("features.squeeze", "features.squeeze")])
    image = torch.rand(3, 1, 48, 48)
    attention = reader.read(image)
    measured = similarities(attention)
    assert measured["similarity"] == pytest.approx([1, 1, 1])
    assert measured["plane_similarity"] == pytest.approx([1, 1, 1])
    expected = networks[0].network(image.expand(-1, 3, -1, -1))
    assert torch.allclose(attention.output, expected, atol=1e-6)


def test_the_reader_reads_the_other_image_with_the_teacher_alone():
    student, teacher = trained(), trained()
    reader = AttentionReader(student, teacher, [("features.squeeze", "features.squeeze")])
    image, other = torch.rand(2, 3, 1, 48, 48)
    attention = reader.read(image, other)
    assert torch.equal(attention.other[0], reader.read(other).teacher[0])
    assert reader.read(image).other is None


def test_planes_of_one_number_are_refused():
    layer = "features.denseblock4.denselayer15"
    reader = AttentionReader(trained("densenet121"), trained("densenet121"), [(layer, layer)])
    with pytest.raises(ConfigurationError, match=r"student's tap gives planes of 1 × 1 \(32 of"):
        reader.read(torch.rand(2, 1, 32, 32))


def test_a_tap_without_planes_is_refused():
    reader = AttentionReader(trained(), trained(), [("features.squeeze", "classifier")])
    with pytest.raises(ConfigurationError, match="teacher's tap gives a tensor of shape"):
        reader.read(torch.rand(2, 1, 48, 48))


# What to show


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_chosen_images_are_different_and_part_of_a_larger_choice(seed, count, findings):
    positive = np.random.default_rng(seed).random((10, findings)) < 0.3
    chosen = choose_images(positive, count, seed)
    assert len(chosen) == len(set(chosen)) == min(count, 10)
    assert set(chosen) <= set(choose_images(positive, count + 1, seed))


def test_each_findings_positives_come_in_turn_and_stand_together():
    positive = np.zeros((20, 2), dtype=bool)
    positive[:6, 0] = positive[10:12, 1] = True
    chosen = choose_images(positive, 5, 0)
    assert [int(row >= 10) for row in chosen] == [0, 0, 0, 1, 1]
    rest = choose_images(positive, 10, 0)
    assert positive[rest[:6], 0].all()
    assert positive[rest[6:8], 1].all()
    assert not positive[rest[8:]].any()


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["f", "l", None])),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 100),
)
@settings(max_examples=150, deadline=None)
def test_the_other_image_is_of_another_patient_and_of_the_same_view_where_it_can_be(facts, seed):
    owners = [row if patient is None else patient for row, (patient, _) in enumerate(facts)]
    views = [view for _, view in facts]
    chosen = choose_other_images([patient for patient, _ in facts], views, seed)
    assert len(chosen) == len(facts)
    for row, other in enumerate(chosen):
        strangers = [each for each in range(len(facts)) if owners[each] != owners[row]]
        alike = [each for each in strangers if views[each] == views[row]]
        assert (other is None) == (not strangers)
        assert other is None or other in (alike or strangers)
    assert chosen == choose_other_images([patient for patient, _ in facts], views, seed)


def test_every_image_has_its_own_other_image_where_patients_have_equally_many():
    chosen = choose_other_images([str(row // 2) for row in range(10)], ["frontal"] * 10, 0)
    assert sorted(chosen) == list(range(10))


def test_similarity_is_summarised_over_the_positive_images_by_hand():
    similarity = np.array([0.2, 0.6, NAN, 1.0])
    other = np.array([NAN, 0.1, 0.3, 0.5])
    positive = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
    first, second, third = summarise_similarity(similarity, other, positive, ["A", "B", "C"])
    assert first == {
        "name": "A",
        "images": 2,
        "similarity_mean": pytest.approx(0.4),
        "similarity_std": pytest.approx(0.2),
        "similarity_to_other_image_mean": pytest.approx(0.2),
    }
    assert (second["images"], second["similarity_mean"], second["similarity_std"]) == (
        0,
        None,
        None,
    )
    assert (third["images"], third["similarity_to_other_image_mean"]) == (0, None)


# What the weights say


def test_taps_are_those_asked_for_then_those_trained_with_then_the_papers():
    followed = {
        "transfer": {"attention": {"preset": None, "taps": [{"student": "a", "teacher": "b"}]}}
    }
    student, teacher = trained(lineage=followed), trained("densenet121")
    asked = config(taps=[TapConfig("c", "d")])
    assert choose_taps(asked, student, teacher) == [("c", "d")]
    assert choose_taps(config(), student, teacher) == [("a", "b")]
    layer = "features.denseblock4.denselayer15"
    assert choose_taps(config(preset="paper"), student, teacher) == [("features.squeeze", layer)]
    assert choose_taps(config(), trained(), teacher) == [("features.squeeze", layer)]
    by_preset = trained(lineage={"transfer": {"attention": {"preset": "authors_code"}}})
    conv = "features.denseblock4.denselayer16.conv2"
    assert choose_taps(config(), by_preset, teacher) == [("features.squeeze", conv)]


@pytest.mark.parametrize(
    "transfer",
    [
        "x",
        {"attention": 3},
        {"attention": {"taps": 5}},
        {"attention": {"preset": 5}},
        {"attention": {"preset": ["paper"]}},
        {"attention": {"preset": "authors"}},
        {"attention": {"taps": [{"student": "a"}]}},
        {"attention": {"taps": [{"student": 1, "teacher": 2}]}},
    ],
)
def test_a_damaged_lineage_is_named(transfer):
    with pytest.raises(CheckpointError, match=r"lineage has .* as transfer"):
        choose_taps(config(), trained(lineage={"transfer": transfer}), trained())


def test_preset_and_taps_exclude_each_other():
    with pytest.raises(ConfigurationError, match="preset is paper and taps"):
        config(preset="paper", taps=[TapConfig("a", "b")])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": []}, "labels must be a list of findings"),
        ({"labels": ["Mass", "Edema", "Mass"]}, "labels has 'Mass' twice"),
        ({"samples": ["k", "k"]}, "samples has 'k' twice"),
    ],
)
def test_nothing_is_asked_for_twice_or_not_at_all(changes, said):
    with pytest.raises(ConfigurationError, match=said):
        config(**changes)


def test_whether_the_teacher_taught_the_student():
    followed = {"transfer": {"teacher": {"weights_sha256": "t"}, "attention": None}}
    assert is_taught_by(trained(lineage=followed), trained(sha256="t")) is True
    assert is_taught_by(trained(lineage=followed), trained(sha256="u")) is False
    assert is_taught_by(trained(lineage={"transfer": None}), trained()) is None


def named(network, given):
    return output_names(network, "weights", given, "student.labels")


def test_outputs_are_named_by_the_setting_or_the_weights():
    names = ["A", "B", "C"]
    assert named(trained(), None) is None
    assert named(trained(), names) == ("A", "B", "C")
    assert named(trained(lineage={"labels": names}), None) == ("A", "B", "C")
    assert named(trained(lineage={"labels": names}), ["A", "D", "C"]) == ("A", "D", "C")
    published = ["Effusion", "Mass", "Pleural_Thickening"]
    assert named(trained(), published) == ("Pleural Effusion", "Mass", "Pleural Thickening")
    with pytest.raises(ConfigurationError, match=r"student.labels gives 2 names \(A, B\)"):
        named(trained(), ["A", "B"])
    with pytest.raises(CheckpointError, match="its lineage names the labels"):
        named(trained(lineage={"labels": ["A", "A", "B"]}), None)


def test_a_setting_that_gives_an_output_the_name_of_another_is_refused():
    """As a label set of another dataset would, which has as many findings."""
    network = trained(lineage={"labels": ["Cardiomegaly", "Edema", "Fracture"]})
    with pytest.raises(
        ConfigurationError, match="calls output 1 'Edema', and weights itself says that this is o"
    ):
        named(network, ["Edema", "Mass", "Nodule"])


# Pictures


def row(size=(20, 30), taps=1, findings=2, value=1.0):
    pairs = tuple((np.full((2, 3), value), np.full((4, 4), value)) for _ in range(taps))
    activation = np.linspace(-value, value, 6).reshape(2, 3)
    return AttentionRow(
        image=np.zeros(size, dtype=np.uint8),
        attention=pairs,
        similarity=NAN,
        activations=(activation,) * findings,
        captions=("0.50, absent",) * findings,
        strong=(True, False, True)[:findings],
    )


@pytest.mark.parametrize(("taps", "findings"), [(1, 2), (2, 0)])
def test_a_sheet_is_drawn_whatever_there_is_to_show(taps, findings):
    rows = [row(taps=taps, findings=findings, value=0), row((20, 30, 3), taps, findings)]
    names = [f"$finding_{number}$" for number in range(findings)]
    sheet = draw_attention_sheet("title", ["note"], names, rows)
    assert sheet.startswith(b"\x89PNG")
    assert sheet == draw_attention_sheet("title", ["note"], names, rows)


def test_a_sheet_of_outlines_has_no_empty_band_and_shows_them():
    mask = np.zeros((20, 30), dtype=bool)
    mask[5:15, 5:20] = True
    plain = row(findings=0)
    drawn = dataclasses.replace(
        plain, outlines=(Outline(mask, "annotation"), Outline(~mask, "student's prediction"))
    )
    sheets = [draw_attention_sheet("title", ["note"], [], [each]) for each in (plain, drawn)]
    assert sheets[0] != sheets[1]
    more_notes = draw_attention_sheet("title", ["note"] * 4, [], [drawn])
    heights = [Image.open(io.BytesIO(sheet)).height for sheet in (sheets[1], more_notes)]
    assert heights[0] < heights[1]


def test_a_long_finding_is_written_on_two_lines_and_not_cut():
    titles = _column_titles(1, ["Enlarged Cardiomediastinum", "Edema"])
    assert titles[3:] == ["Enlarged\nCardiomediastinum", "Edema"]


def test_the_similarity_figure_shows_findings_with_images_only():
    empty = {"name": "Hernia", "images": 0, "similarity_mean": None, "similarity_std": None}
    assert draw_similarity([empty], "student") is None
    shown = {"name": "Edema", "images": 3, "similarity_mean": 0.5, "similarity_std": 0.25}
    other = {**shown, "name": "Mass", "similarity_to_other_image_mean": -0.5}
    figure = draw_similarity([shown, empty, other], "student")
    assert figure.png.startswith(b"\x89PNG")
    assert figure.png != draw_similarity([shown, other, other], "student").png
