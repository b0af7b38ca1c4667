"""A student follows a frozen teacher while it trains, by the signals that are set."""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from nakt_dist.config import TapConfig, TrainingTeacherConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.targets import require_output_names
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.taps import TappedNetwork, TeacherTap, preset_taps
from nakt_dist.records import lineage
from nakt_dist.records.lineage_reading import readable
from nakt_dist.signals import Seen

_STUDENT, _TEACHER = 0, 1
Prepare = Callable[[torch.Tensor], torch.Tensor]
Finish = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pairing:
    """What of a student is compared with what of its teacher.

    Attributes:
        taps: by signal, pairs of module paths whose activation maps it wants.
        outputs: names of the findings whose logits are matched; None for all, by place.
        numbers: of these outputs in the student and in the teacher; None likewise.
    """

    taps: Mapping[str, tuple[TapConfig, ...]]
    outputs: tuple[str, ...] | None = None
    numbers: tuple[list[int], list[int]] | None = None


@dataclass(eq=False)
class Following:
    """What a student takes from a frozen teacher, besides what its own labels say.

    The teacher sees the same augmented images, prepared as it is used to. It is not handed to
    Accelerate: every process has its own copy, frozen and in eval mode whatever happens to the
    student, and its forward pass ends at the last tap unless its logits are wanted.

    Attributes:
        teacher: the network, on this process's device.
        global_batch_size: images per optimiser step, over all processes and micro-batches.
        image_size: (C, H, W) of the images that both see.
    """

    config: TrainingTeacherConfig
    teacher: TrainedNetwork
    pairing: Pairing
    global_batch_size: int
    image_size: tuple[int, int, int]

    def __post_init__(self) -> None:
        self._signals = self.config.chosen()
        wanted = [(name, tap) for name in self._signals for tap in self.pairing.taps.get(name, ())]
        self._owners = [self._signals[name] for name, _ in wanted]
        self.taps = tuple(tap for _, tap in wanted)
        with_terms = [tap for name, tap in wanted if self._signals[name].takes_terms]
        self._terms = [tap.student for tap in with_terms]
        self._tapped = TeacherTap(
            self.teacher.network,
            [tap.teacher for tap in self.taps],
            [tap.teacher for tap in with_terms],
        )

    def wrap(self, network: nn.Module, prepare: Prepare) -> nn.Module:
        """Returns a module that gives the student's output and its tapped activations.

        Its parameters are the network's, and those of the signals' adapters.

        Args:
            network: the student, on its device.
            prepare: brings images float32 (N, C, H, W) in [0, 1] to the form that it sees.

        Raises:
            ConfigurationError: the student has no such module, or a signal cannot use it.
        """
        if not self.taps:
            return network
        tapped = TappedNetwork(network, [tap.student for tap in self.taps], self._terms)
        if any(signal.adapts for signal in self._owners):
            self._adapt(tapped, prepare)
        return tapped

    @torch.no_grad()
    def _adapt(self, tapped: TappedNetwork, prepare: Prepare) -> None:
        """Gives the signals their adapters, which follow torch's seed."""
        device = next(tapped.parameters()).device
        image = torch.zeros(1, *self.image_size, device=device)
        was_training = tapped.network.training
        tapped.eval()  # BatchNorm's statistics are not to learn from this image
        _, own = tapped(prepare(image))
        tapped.train(was_training)
        theirs = self._tapped.activations(self.teacher.prepare(image))
        for number, signal in enumerate(self._owners):
            adapter = signal.adapter(tuple(own[number].shape[1:]), tuple(theirs[number].shape[1:]))
            if adapter is not None:
                tapped.adapters[number] = adapter.to(device)

    def losses(
        self,
        image: torch.Tensor,
        logits: torch.Tensor,
        maps: Sequence[torch.Tensor],
        finish: Finish,
        target: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compares student and teacher on a batch.

        Args:
            image: float32 (N, C, H, W) in [0, 1], as the student's, not yet prepared.
            logits: the student's, finished.
            maps: the student's tapped activations, each (N, C, h, w), adapted.
            finish: brings the teacher's output to the form of ``logits``.
            target: what the student's own labels say, of the shape of ``logits``.

        Returns:
            What is added to the loss, and of each signal its loss as a component, such as
            ``attention_loss``.
        """
        seen, teacher_maps = self._look(image, logits, finish, target)
        pairs = zip(maps, teacher_maps, strict=True)
        total = logits.new_zeros(())
        components: dict[str, torch.Tensor] = {}
        for name, signal in self._signals.items():
            own = tuple(itertools.islice(pairs, len(self.pairing.taps.get(name, ()))))
            if signal.takes_terms:
                own = tuple((self._shared(a, _STUDENT), self._shared(b, _TEACHER)) for a, b in own)
            loss, added = signal.loss(replace(seen, maps=own))
            total = total + added
            components[f"{name}_loss"] = loss
        return total, components

    def _look(
        self, image: torch.Tensor, logits: torch.Tensor, finish: Finish, target: torch.Tensor
    ) -> tuple[Seen, tuple[torch.Tensor, ...]]:
        """Returns what all signals see, and the teacher's activations at all taps."""
        prepared, size = self.teacher.prepare(image), self.global_batch_size
        if not any(signal.matches_outputs for signal in self._signals.values()):
            return Seen(logits, None, (), size, target), self._tapped.activations(prepared)
        output, maps = self._tapped.output_and_activations(prepared)
        student, target = (self._shared(each, _STUDENT) for each in (logits, target))
        teacher = self._shared(finish(output, image), _TEACHER)
        return Seen(student, teacher, (), size, target), maps

    def teacher_sha256(self) -> str:
        """Fingerprint of the teacher's parameters, buffers and modes, which never change."""
        network = self.teacher.network
        digest = hashlib.sha256()
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        modes = [[name, module.training] for name, module in network.named_modules()]
        gradients = [[name, each.requires_grad] for name, each in network.named_parameters()]
        digest.update(repr((modes, gradients)).encode())
        return digest.hexdigest()

    def _shared(self, values: torch.Tensor, whose: int) -> torch.Tensor:
        """Returns what belongs to the outputs that both networks have, of one network's (N, K)."""
        numbers = self.pairing.numbers
        return values if numbers is None else values[:, numbers[whose]]


def open_teacher(config: TrainingTeacherConfig) -> TrainedNetwork:
    """Reads the teacher on the CPU; no code in its file is run.

    Raises:
        CheckpointError: the file cannot be used.
    """
    return open_network(config.weights, config.model, config.preprocessing, name=config.name)


def pair(
    config: TrainingTeacherConfig,
    teacher: TrainedNetwork,
    student_name: str,
    labels: Sequence[str] | None,
    outputs: int = 1,
) -> Pairing:
    """Pairs a student with its teacher.

    Args:
        student_name: of the student's architecture, for the presets.
        labels: names of the student's outputs; None for segmentation.
        outputs: of a student that segments.

    Raises:
        ConfigurationError: the preset is unknown for one of the networks, or a signal that
            matches outputs finds none that both have, or meets those of classes, which exclude
            each other.
        CheckpointError: the teacher's own names of its outputs are damaged.
    """

    def of_preset(preset: str) -> TapConfig:
        return TapConfig(*(preset_taps(preset, name) for name in (student_name, teacher.spec.name)))

    chosen = config.chosen()
    taps = {name: tuple(signal.layers(of_preset)) for name, signal in chosen.items()}
    matching = next((name for name, signal in chosen.items() if signal.matches_outputs), None)
    if matching is None:
        return Pairing(taps)
    teacher.require_outputs(config.weights, matching)
    if is_classifier(teacher.spec.name) != (labels is not None):
        kinds = ["a segmentation network", "a classifier"]
        raise ConfigurationError(
            f"{matching} matches outputs, but the teacher {config.weights} is "
            f"{kinds[labels is None]} and the student {kinds[labels is not None]}; leave "
            f"teacher.{matching} out, or choose another teacher"
        )
    if labels is None:
        if {outputs, teacher.spec.num_outputs} != {1}:
            raise ConfigurationError(
                f"{matching} matches outputs that do not exclude each other, and those of masks "
                f"with several classes do (teacher: {teacher.spec.num_outputs} outputs, student: "
                f"{outputs}); leave teacher.{matching} out, or let the teacher teach with nakt "
                "teach"
            )
        return Pairing(taps)
    names = require_output_names(teacher, config.weights, config.labels, "teacher.labels", matching)
    shared = tuple(name for name in labels if name in names)
    if not shared:
        raise ConfigurationError(
            f"{matching}: teacher and student share no finding (teacher: {', '.join(names)}; "
            f"student: {', '.join(labels)}). Set labels.names, or teacher.labels"
        )
    numbers = [list(labels).index(name) for name in shared], [names.index(name) for name in shared]
    return Pairing(taps, shared, numbers)


def describe_following(
    config: TrainingTeacherConfig, teacher: TrainedNetwork, pairing: Pairing
) -> dict[str, Any]:
    """Says whom the student follows and how, for the lineage of its weights; holds no path."""
    outputs = {"outputs": pairing.outputs}
    taken = {
        name: asdict(signal) | (outputs if signal.matches_outputs else {})
        for name, signal in config.chosen().items()
    }
    followed = lineage.Network(
        teacher.weights_sha256, teacher.name, stored=readable(teacher.lineage)
    )
    return lineage.Following(followed, taken, teacher.spec.name).to_json()
