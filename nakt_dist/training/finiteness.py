"""What training does about a loss, a gradient or a weight that is not a number."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from nakt_dist.errors import NaktError, NotFinite
from nakt_dist.runtime.distributed import Agreement
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.tracking import JsonLines
from nakt_dist.training.run import TrainingRun

NOT_FINITE_NAME = "not_finite.jsonl"
_MOST_SKIPPED_IN_A_ROW = 10


class _Step(NamedTuple):
    """A step whose numbers nobody has looked at yet: looking waits for the GPU."""

    step: int
    loss: torch.Tensor
    fine: torch.Tensor


@dataclass(eq=False)
class Finiteness:
    """Stops training at the first step that is not finite, or passes over it.

    All processes judge alike: each method but the constructor's arguments is a collective
    operation where it looks at numbers.

    Attributes:
        keys: returns the keys of a step's batch.
        resume_step: what was noted of later steps is forgotten, since they are done again.
    """

    run: TrainingRun
    agreement: Agreement
    keys: Callable[[int], Sequence[str]]
    resume_step: int

    def __post_init__(self) -> None:
        self.skips = self.run.config.recipe.not_finite == "skip"
        self._in_a_row = self.agreement.of_main(
            lambda: _skipped_in_a_row(self.run.output, self.resume_step)
        )
        self._unchecked: list[_Step] = []

    def accept(self, step: int, loss: torch.Tensor, gradients_are_finite: torch.Tensor) -> bool:
        """Judges a step whose gradients are there, or leaves that to ``check``.

        Args:
            loss: of this process, a scalar.
            gradients_are_finite: of this process, a scalar bool.

        Returns:
            False when the step is to be passed over.

        Raises:
            NaktError: it is the tenth in a row: the weights are lost, not a batch.
        """
        fine = loss.isfinite() & gradients_are_finite
        if not self.skips:
            self._unchecked.append(_Step(step, loss, fine))
            return True
        if not self.agreement.largest(int(not fine)):
            self._in_a_row = 0
            return True
        self._in_a_row += 1
        self._note(step, self._mean(loss), "skipped")
        say(f"train: step {step + 1} is skipped, its loss or a gradient is not a number")
        if self._in_a_row >= _MOST_SKIPPED_IN_A_ROW:
            raise self._diverged(f"{self._in_a_row} steps in a row were not finite", step)
        return False

    def check(self) -> None:
        """Looks at the steps since the last look.

        Raises:
            NaktError: names the first that was not finite on any process.
        """
        never = 2**62
        seen, self._unchecked = self._unchecked, []
        fine = torch.stack([each.fine for each in seen]).tolist() if seen else []
        bad = [each.step for each, is_fine in zip(seen, fine, strict=True) if not is_fine]
        first = -self.agreement.largest(-min(bad, default=never))
        if first == never:
            return
        (loss,) = [self._mean(each.loss) for each in seen if each.step == first]
        self._note(first, loss, "stopped")
        what = "a gradient is not a number" if math.isfinite(loss) else f"the loss is {loss}"
        raise self._diverged(what, first)

    def check_network(self, network: nn.Module, done: int) -> None:
        """Looks at weights and statistics that are about to be scored, or to replace sound ones.

        Raises:
            NaktError: one of them is not a number.
        """
        self.check()
        values = [each for each in network.state_dict().values() if each.is_floating_point()]
        if not all(value.isfinite().all() for value in values):
            self._note(done - 1, math.nan, "stopped")
            raise self._diverged("a weight or statistic is not a number", done - 1)

    def _mean(self, loss: torch.Tensor) -> float:
        return float(self.run.accelerator.reduce(loss, "mean"))

    def _note(self, step: int, loss: float, action: str) -> None:
        if self.run.accelerator.is_main_process:
            line = {"step": step + 1, "loss": str(loss), "action": action}
            with JsonLines(self.run.output / NOT_FINITE_NAME, step + 1) as lines:
                lines.write({**line, "keys": list(self.keys(step))})

    def _diverged(self, what: str, step: int) -> NaktError:
        keys = ", ".join(self.keys(step)[:8]) or "of the stream"
        return NotFinite(
            f"{self.run.output}: {what} at step {step + 1}. Nothing was saved since the last "
            "checkpoint. Train into another --output with a lower recipe.learning_rate, with "
            "recipe.largest_gradient_norm 1, with recipe.precision no, or, where single batches "
            f"are to blame, with recipe.not_finite skip. Images of the step, in {NOT_FINITE_NAME}: "
            f"{keys} …"
        )


def _skipped_in_a_row(output: Path, resume_step: int) -> int:
    """Counts the steps up to the one resumed at that were skipped one after the other."""
    path = output / NOT_FINITE_NAME
    if not path.exists():
        return 0
    JsonLines(path, resume_step).close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    skipped = {line["step"] for line in lines if line.get("action") == "skipped"}
    count = 0
    while resume_step - count in skipped:
        count += 1
    return count
