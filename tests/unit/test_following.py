"""A student's teacher: what pairs with what, and that nothing changes it unnoticed."""

from dataclasses import replace

import pytest
import torch

from nakt_dist.config import (
    AttentionTransferConfig,
    DistConfig,
    DistillationConfig,
    HintsConfig,
    MultiLabelConfig,
    PreprocessingConfig,
    RecipeConfig,
    SimilarityConfig,
    TapConfig,
    TrainingTeacherConfig,
)
from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.preprocessing import NetworkInput
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.taps import TeacherTap
from nakt_dist.signals import SIGNALS, Seen
from nakt_dist.training.following import Following, describe_following, pair
from nakt_dist.training.tasks import ClassificationTask

NAMES = ("Edema", "Mass", "Nodule")


def network(name: str = "timm:test_resnet", outputs: int = 3, seed: int = 0) -> TrainedNetwork:
    spec = ModelSpec(name, in_channels=1, num_outputs=outputs)
    torch.manual_seed(seed)
    bare = spec.build().requires_grad_(False).eval()
    return TrainedNetwork(
        "teacher",
        bare,
        spec,
        NetworkInput(PreprocessingConfig(mean=0.0, std=1.0)),
        {"labels": NAMES},
        "0" * 64,
    )


def taken(**changes: object) -> TrainingTeacherConfig:
    attention = AttentionTransferConfig(taps=[TapConfig("layer3", "layer3")], beta=4.0)
    return replace(TrainingTeacherConfig("teacher", attention=attention), **changes)


def follow(
    config: TrainingTeacherConfig,
    teacher: TrainedNetwork,
    student: str = "timm:test_resnet",
    labels: tuple[str, ...] | None = NAMES,
    batch: int = 4,
) -> Following:
    pairing = pair(config, teacher, student, labels)
    return Following(config, teacher, pairing, batch, (1, 32, 32))


def task_of(following: Following, student: TrainedNetwork) -> ClassificationTask:
    recipe = RecipeConfig(steps=1)
    return ClassificationTask(1, student.preprocessing, recipe, following)


def test_a_student_that_is_its_teacher_has_nothing_to_take() -> None:
    config = taken(distillation=DistillationConfig())
    student = network()
    following = follow(config, network())
    task = task_of(following, student)
    image, target = torch.rand(4, 1, 32, 32), torch.randint(0, 2, (4, 3)).float()

    losses = task.forward(task.wrap(student.network), image, target)

    assert float(losses["attention_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["distillation_loss"]) == pytest.approx(0, abs=1e-5)
    assert float(losses["loss"]) == pytest.approx(float(losses["cross_entropy"]), abs=1e-5)


def test_the_total_is_the_paper_s() -> None:
    student = network(seed=1)
    student.network.requires_grad_(True).train()
    following = follow(taken(), network())
    task = task_of(following, student)
    image, target = torch.rand(4, 1, 32, 32), torch.randint(0, 2, (4, 3)).float()

    losses = task.forward(task.wrap(student.network), image, target)

    expected = losses["cross_entropy"] + losses["attention_loss"] / 4
    assert losses["loss"].item() == pytest.approx(expected.item())
    losses["loss"].backward()
    gradients = [each.grad for each in student.network.parameters()]
    assert all(each is not None and each.isfinite().all() for each in gradients)


@pytest.mark.parametrize("what", ["parameter", "buffer", "mode", "gradient"])
def test_any_change_of_the_teacher_is_noticed(what: str) -> None:
    teacher = network()
    following = follow(taken(), teacher)
    before = following.teacher_sha256()
    assert following.teacher_sha256() == before
    bare = teacher.network
    if what == "parameter":
        next(bare.parameters()).view(-1)[0] += 1e-6
    elif what == "buffer":
        dict(bare.named_buffers())["bn1.num_batches_tracked"] += 1
    elif what == "mode":
        bare.bn1.train()
    else:
        bare.fc.weight.requires_grad_(True)
    assert following.teacher_sha256() != before


def test_training_a_student_leaves_its_teacher_alone() -> None:
    student = network(seed=1)
    following = follow(taken(), network())
    before = following.teacher_sha256()
    task = task_of(following, student)
    module = task.wrap(student.network.requires_grad_(True)).train()
    optimiser = torch.optim.Adam(module.parameters())
    for _ in range(3):
        target = torch.randint(0, 2, (4, 3)).float()
        task.forward(module, torch.rand(4, 1, 32, 32), target)["loss"].backward()
        optimiser.step()
    assert following.teacher_sha256() == before


def test_distillation_pairs_outputs_by_name() -> None:
    config = TrainingTeacherConfig("teacher", distillation=DistillationConfig())
    teacher = network()
    names = ("Nodule", "Hernia", "Edema")
    following = follow(config, teacher, labels=names)
    image = torch.rand(2, 1, 32, 32)
    theirs = teacher.network(image)
    same = torch.stack([theirs[:, 2], torch.full((2,), 9.0), theirs[:, 0]], dim=1)

    labels = torch.zeros(2, 3)
    extra, components = following.losses(image, same, (), lambda output, image: output, labels)

    assert float(extra) == pytest.approx(0, abs=1e-6)
    assert set(components) == {"distillation_loss"}
    far, _ = following.losses(image, same + 1, (), lambda output, image: output, labels)
    assert float(far) > 0.01


def test_labels_that_do_not_fit_the_teacher_are_refused() -> None:
    config = TrainingTeacherConfig(
        "teacher", distillation=DistillationConfig(), labels=["Edema", "Mass"]
    )
    with pytest.raises(ConfigurationError, match="gives 2 names"):
        follow(config, network())


def test_a_preset_needs_networks_that_it_knows() -> None:
    config = taken(attention=AttentionTransferConfig(preset="paper"))
    with pytest.raises(ConfigurationError, match="no tap for the network 'timm:test_resnet'"):
        follow(config, network(), "densenet40")


def test_planes_that_differ_in_number_are_refused_by_name() -> None:
    student = network(seed=1)
    attention = AttentionTransferConfig(taps=[TapConfig("layer2", "layer3")])
    following = follow(taken(attention=attention), network())
    task = task_of(following, student)
    with pytest.raises(ConfigurationError, match="planes"):
        task.forward(task.wrap(student.network), torch.rand(2, 1, 32, 32), torch.zeros(2, 3))


def test_other_datasets_words_for_a_finding_are_understood() -> None:
    labels = ["Edema", "Effusion", "Nodule"]
    config = TrainingTeacherConfig("teacher", distillation=DistillationConfig(), labels=labels)
    pairing = pair(config, network(), "timm:test_resnet", ("Pleural Effusion", "Edema"))
    assert pairing.outputs == ("Pleural Effusion", "Edema")
    assert pairing.numbers == ([0, 1], [1, 0])
    described = describe_following(config, network(), pairing)
    assert described["distillation"]["outputs"] == ("Pleural Effusion", "Edema")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["Edema", "Edema", "Mass"], "'Edema' is there twice"),
        ("chestxray15", "did you mean 'chestxray14'"),
    ],
)
def test_names_that_cannot_be_those_of_the_outputs_are_refused(
    labels: str | list[str], message: str
) -> None:
    config = TrainingTeacherConfig("teacher", distillation=DistillationConfig(), labels=labels)
    with pytest.raises(ConfigurationError, match=message):
        follow(config, network())


@pytest.mark.parametrize("labels", [5, [["a"]] * 3, "abc", {"Edema": 1}, ["Edema"] * 3])
def test_damaged_names_in_a_teacher_s_file_are_refused(labels: object) -> None:
    config = TrainingTeacherConfig("teacher", distillation=DistillationConfig())
    with pytest.raises(CheckpointError, match="its lineage names the labels"):
        follow(config, replace(network(), lineage={"labels": labels}))


def test_a_damaged_lineage_is_no_reason_to_fail() -> None:
    teacher = replace(network(), lineage={"trained_on": "x"})
    assert (
        describe_following(taken(), teacher, pair(taken(), teacher, "", None))["teacher"][
            "trained_on"
        ]
        is None
    )


def test_logits_of_another_task_are_refused() -> None:
    config = TrainingTeacherConfig("teacher", distillation=DistillationConfig())
    with pytest.raises(ConfigurationError, match="a classifier and the student a segmentation"):
        follow(config, network(), "unet", None)


def test_the_norm_over_the_batch_is_that_of_the_whole_where_its_parts_are_alike() -> None:
    """Equal parts of a batch have half its squared norm each."""
    attention = AttentionTransferConfig(
        taps=[TapConfig("layer3", "layer3")], reduction="batch_frobenius"
    )
    following = follow(taken(attention=attention), network())
    task = task_of(following, network(seed=1))
    module = task.wrap(network(seed=1).network)
    image = torch.rand(2, 1, 32, 32)
    whole = task.forward(module, torch.cat([image, image]), torch.zeros(4, 3))
    part = task.forward(module, image, torch.zeros(2, 3))
    assert part["attention_loss"].item() == pytest.approx(whole["attention_loss"].item(), rel=1e-5)


UNLIKE = [TapConfig("layer2", "layer3")]
ALL = {
    "attention": AttentionTransferConfig(taps=[TapConfig("layer3", "layer3")]),
    "distillation": DistillationConfig(standardise=True),
    "multi_label": MultiLabelConfig(embeddings=TapConfig("fc", "fc")),
    "dist": DistConfig(),
    "hints": HintsConfig(UNLIKE),
    "similarity": SimilarityConfig(UNLIKE),
}


def test_each_signal_moves_the_student_and_its_adapter_and_never_the_teacher() -> None:
    assert ALL.keys() == SIGNALS.keys()
    for name, signal in ALL.items():
        student, teacher = network(seed=1), network()
        student.network.requires_grad_(True).train()
        following = follow(TrainingTeacherConfig("teacher", **{name: signal}), teacher)
        module = task_of(following, student).wrap(student.network)
        before = following.teacher_sha256()
        image = torch.rand(4, 1, 32, 32)
        result = module(image)
        output, maps = result if following.taps else (result, ())
        labels = torch.ones(4, 3)
        extra, components = following.losses(image, output, maps, lambda out, _: out, labels)
        extra.backward()
        assert set(components) == {f"{name}_loss"}
        assert (
            sum(
                float(p.grad.abs().sum())
                for p in student.network.parameters()
                if p.grad is not None
            )
            > 0
        )
        beside = set(module.parameters()) - set(student.network.parameters())
        assert len(beside) == (2 if name == "hints" else 0)  # a convolution's weight and bias
        assert all(p.grad.any() for p in beside)
        assert all(p.grad is None for p in teacher.network.parameters())
        assert following.teacher_sha256() == before


def test_finding_out_sizes_leaves_a_student_as_it_was() -> None:
    student = network(seed=1)
    student.network.requires_grad_(True).train()
    before = {name: each.clone() for name, each in student.network.state_dict().items()}
    following = follow(TrainingTeacherConfig("teacher", hints=ALL["hints"]), network())
    module = task_of(following, student).wrap(student.network)
    assert module.training and all(each.training for each in student.network.modules())
    assert all(torch.equal(before[k], v) for k, v in student.network.state_dict().items())
    assert [type(each).__name__ for each in module.adapters] == ["Conv2d"]


def test_layers_of_equally_many_planes_are_compared_as_they_are() -> None:
    hints = HintsConfig([TapConfig("layer3", "layer3")])
    following = follow(TrainingTeacherConfig("teacher", hints=hints), network())
    student = network(seed=1)
    module = task_of(following, student).wrap(student.network)
    assert set(module.parameters()) == set(student.network.parameters())


def test_a_layer_without_planes_is_no_hint() -> None:
    hints = HintsConfig([TapConfig("layer3", "global_pool")])
    following = follow(TrainingTeacherConfig("teacher", hints=hints), network())
    student = network(seed=1)
    with pytest.raises(
        ConfigurationError, match=r"hints.taps: the teacher's layer gives .* \(\d+,\)"
    ):
        task_of(following, student).wrap(student.network)


def test_embeddings_of_the_shared_findings_are_the_terms_of_their_logits() -> None:
    config = TrainingTeacherConfig("teacher", multi_label=ALL["multi_label"])
    names = ("Nodule", "Hernia", "Edema")
    student, teacher = network(seed=1), network()
    following = follow(config, teacher, labels=names)
    image = torch.rand(4, 1, 32, 32)
    logits, terms = task_of(following, student).wrap(student.network)(image)
    assert torch.allclose(terms[0].sum(2) + student.network.fc.bias, logits, atol=1e-5)
    labels = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 1.0, 1.0]])
    labels[3, 0] = torch.nan

    found, _ = following.losses(image, logits, terms, lambda out, _: out, labels)

    theirs = TeacherTap(network().network, ["fc"], ["fc"]).activations(image)[0]
    seen = Seen(
        logits[:, [0, 2]], teacher.network(image)[:, [2, 0]],
        [(terms[0][:, [0, 2]], theirs[:, [2, 0]])], 4, labels[:, [0, 2]],
    )  # fmt: skip
    assert found.item() == pytest.approx(ALL["multi_label"].loss(seen)[0].item(), rel=1e-6)


def test_only_a_linear_layer_has_terms() -> None:
    signal = MultiLabelConfig(embeddings=TapConfig("fc", "layer4"))
    with pytest.raises(ConfigurationError, match="'layer4' is a Sequential, expected a linear"):
        follow(TrainingTeacherConfig("teacher", multi_label=signal), network())
