"""How much longer does a step take when a student follows a frozen teacher's attention maps?

All ways have the settings that ``nakt train`` chose by itself. The loop by hand is the plain way:
the teacher sees each batch as a whole, though nothing behind its tap is wanted.
"""

from pathlib import Path

import torch

from benchmarks.comparing import Scale, Table, at_most, in_turns
from benchmarks.training import FINDINGS, Case, LoopByHand, OurSteps, chest_case, prepare
from nakt_dist.config import AttentionTransferConfig, RecipeConfig, TrainingTeacherConfig
from nakt_dist.models import ModelSpec
from nakt_dist.models.taps import TappedNetwork, TeacherTap, preset_taps
from nakt_dist.models.weights import save_weights
from nakt_dist.transfer.attention import attention_loss

_TEACHER = ModelSpec("densenet121", in_channels=3, num_outputs=FINDINGS)


def measure(scale: Scale) -> list[Table]:
    """Lets DenseNet-121 and DenseNet-40 follow DenseNet-121."""
    tables = []
    for student, bound in (("densenet121", 1.15), ("densenet40", 1.30)):
        device = prepare(scale)
        case = chest_case(scale, student, 60)
        plain = OurSteps(case.config(scale))
        weights = _teacher_weights(scale.folder)
        teacher = TrainingTeacherConfig(
            weights=str(weights), preprocessing=case.preprocessing,
            attention=AttentionTransferConfig(preset="paper"),
        )  # fmt: skip
        following = OurSteps(case.config(scale, teacher))
        whole = _WholeTeacher(case, plain, device)
        ways = {
            "plain step": plain.way(case.steps),
            "attention transfer": following.way(case.steps),
            "loop by hand, whole teacher": whole.way(case.steps),
        }
        title = f"densenet121 teaches {student}, {case.side}², batch {case.batch}"
        targets = {"attention transfer": at_most(bound)}
        tables.append(in_turns(title, ways, "plain step", scale, targets, takes_time=True))
    return tables


class _WholeTeacher(LoopByHand):
    """A student that follows, by hand."""

    def __init__(self, case: Case, plain: OurSteps, device: torch.device) -> None:
        recipe: RecipeConfig = plain.recipe
        tapped = TappedNetwork(plain.network, [preset_taps("paper", case.spec.name)])
        super().__init__(case, tapped, device, recipe)
        form = torch.channels_last if recipe.channels_last else torch.contiguous_format
        teacher = _TEACHER.build().to(device).to(memory_format=form)
        self._teacher = TeacherTap(teacher, [preset_taps("paper", "densenet121")])

    def losses(self) -> torch.Tensor:
        with self.autocast():
            output, (own,) = self.module(self.image)
            _, (theirs,) = self._teacher.output_and_activations(self.image)
        return self.judge(output) + attention_loss(own, theirs)


def _teacher_weights(folder: Path) -> Path:
    """Writes a teacher of random weights whose BatchNorms have seen something."""
    path = folder / "teacher.safetensors"
    if not path.exists():
        torch.manual_seed(0)
        network = _TEACHER.build().train()
        with torch.no_grad():
            network(torch.randn(4, 3, 64, 64))
        save_weights(path, network.state_dict(), _TEACHER, {})
    return path
