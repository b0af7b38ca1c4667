"""A student follows a frozen teacher while it trains: attention transfer and distillation."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from nakt_dist.config import TapConfig, TrainingTeacherConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.taps import TappedNetwork, TeacherTap, preset_taps
from nakt_dist.transfer.attention import attention_loss, weighted
from nakt_dist.transfer.distillation import distillation_loss
from nakt_dist.transfer.ensemble import prepare_image

Finish = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Following:
    """What a student takes from a frozen teacher, besides what its own labels say.

    The teacher sees the same augmented images, prepared as it is used to. It is not handed to
    Accelerate: every process has its own copy, frozen and in eval mode whatever happens to the
    student, and its forward pass ends at the last tap unless its logits are wanted.

    Args:
        config: what is taken.
        teacher: the network, on this process's device.
        taps: pairs of module paths whose activation maps are matched; empty for none.
        outputs: numbers of the student's and of the teacher's outputs that mean the same, for
            distillation; None when all do, in order.
    """

    def __init__(
        self,
        config: TrainingTeacherConfig,
        teacher: TrainedNetwork,
        taps: Sequence[TapConfig] = (),
        outputs: tuple[Sequence[int], Sequence[int]] | None = None,
    ) -> None:
        self._config = config
        self._trained = teacher
        self._outputs = outputs
        self.taps = tuple(taps)
        self._teacher = TeacherTap(teacher.network, [tap.teacher for tap in self.taps])

    def wrap(self, network: nn.Module) -> nn.Module:
        """Returns a module that gives the student's output and its tapped activations.

        Raises:
            ConfigurationError: the student has no such module.
        """
        if not self.taps:
            return network
        return TappedNetwork(network, [tap.student for tap in self.taps])

    def losses(
        self,
        image: torch.Tensor,
        logits: torch.Tensor,
        maps: Sequence[torch.Tensor],
        finish: Finish,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compares student and teacher on a batch.

        Args:
            image: float32 (N, C, H, W) in [0, 1], as the student's, not yet prepared.
            logits: the student's, finished.
            maps: the student's tapped activations, each (N, C, h, w).
            finish: brings the teacher's output to the form of ``logits``.

        Returns:
            What is added to the loss, and the unweighted components ``attention_loss`` and
            ``distillation_loss`` as far as they are set.
        """
        attention, distillation = self._config.attention, self._config.distillation
        seen = self._trained.preprocessing
        prepared = prepare_image(
            image, self._trained.spec.in_channels, seen.height, seen.width, seen.mean, seen.std
        )
        total = logits.new_zeros(())
        components: dict[str, torch.Tensor] = {}
        if distillation is None:
            teacher_maps = self._teacher.activations(prepared)
        else:
            output, teacher_maps = self._teacher.output_and_activations(prepared)
            loss = distillation_loss(
                *self._same_outputs(logits, finish(output, image)), distillation.temperature
            )
            total = total + distillation.weight * loss
            components["distillation_loss"] = loss
        if attention is not None:
            each = [
                attention_loss(student, teacher, attention.reduction, attention.matching)
                for student, teacher in zip(maps, teacher_maps, strict=True)
            ]
            loss = torch.stack(each).mean()
            total = total + weighted(loss, attention.beta, attention.weight_mode)
            components["attention_loss"] = loss
        return total, components

    def teacher_sha256(self) -> str:
        """Fingerprint of the teacher's parameters, buffers and modes, which never change."""
        network = self._trained.network
        digest = hashlib.sha256()
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        modes = [[name, module.training] for name, module in network.named_modules()]
        gradients = [[name, each.requires_grad] for name, each in network.named_parameters()]
        digest.update(repr((modes, gradients)).encode())
        return digest.hexdigest()

    def _same_outputs(
        self, student: torch.Tensor, teacher: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self._outputs is None:
            return student, teacher
        return student[:, list(self._outputs[0])], teacher[:, list(self._outputs[1])]


def open_teacher(config: TrainingTeacherConfig) -> TrainedNetwork:
    """Reads the teacher on the CPU; no code in its file is run.

    Raises:
        CheckpointError: the file cannot be used.
    """
    return open_network(config.weights, config.model, config.preprocessing, name=config.name)


def follow(
    config: TrainingTeacherConfig,
    teacher: TrainedNetwork,
    student_name: str,
    labels: Sequence[str] | None,
    device: torch.device,
) -> Following:
    """Pairs a student with its teacher.

    Args:
        config: what is taken.
        teacher: from ``open_teacher``.
        student_name: of the student's architecture, for the presets.
        labels: names of the student's outputs; None for segmentation.
        device: of this process.

    Raises:
        ConfigurationError: the preset is unknown for one of the networks, or distillation finds
            no output that both have.
    """
    teacher.network.to(device)
    taps: Sequence[TapConfig] = ()
    if config.attention is not None:
        taps = config.attention.taps or [
            TapConfig(
                preset_taps(config.attention.preset, student_name),
                preset_taps(config.attention.preset, teacher.spec.name),
            )
        ]
    outputs = None
    if config.distillation is not None and labels is not None:
        outputs = _shared_outputs(config, teacher, labels)
    return Following(config, teacher, taps, outputs)


def _shared_outputs(
    config: TrainingTeacherConfig, teacher: TrainedNetwork, labels: Sequence[str]
) -> tuple[list[int], list[int]]:
    names = config.labels or teacher.lineage.get("labels")
    if not names:
        raise ConfigurationError(
            f"{config.weights}: does not say what its outputs mean, which distillation needs; "
            "name them, in order, as teacher.labels"
        )
    if len(names) != teacher.spec.num_outputs:
        raise ConfigurationError(
            f"teacher.labels names {len(names)} outputs, and {config.weights} has "
            f"{teacher.spec.num_outputs}"
        )
    shared = [name for name in labels if name in names]
    if not shared:
        raise ConfigurationError(
            f"distillation: teacher and student share no finding (teacher: {', '.join(names)}; "
            f"student: {', '.join(labels)}). Set labels.names, or teacher.labels"
        )
    return [list(labels).index(name) for name in shared], [names.index(name) for name in shared]


def describe_following(config: TrainingTeacherConfig, teacher: TrainedNetwork) -> dict[str, Any]:
    """Says whom the student follows and how, for the lineage of its weights; holds no path."""
    trained_on = teacher.lineage.get("trained_on") or {}
    return {
        "teacher": {
            "name": teacher.name,
            "weights_sha256": teacher.weights_sha256,
            "model": teacher.spec.name,
            "trained_on": trained_on.get("dataset"),
        },
        "attention": config.attention and asdict(config.attention),
        "distillation": config.distillation and asdict(config.distillation),
    }
