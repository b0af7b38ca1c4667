"""When a network that learns is saved and scored, and what is kept of it."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import nn

from nakt_dist.errors import StartAgain
from nakt_dist.loading.batches import as_float, read_ahead
from nakt_dist.loading.images import Images
from nakt_dist.models.weights import save_weights
from nakt_dist.models.weights_path import BEST_WEIGHTS, LAST_WEIGHTS
from nakt_dist.runtime.beside import Beside
from nakt_dist.runtime.distributed import Agreement, gather_rows
from nakt_dist.runtime.files import file_sha256
from nakt_dist.runtime.processes import own_cores, say
from nakt_dist.runtime.tracking import JsonLines, Tracker
from nakt_dist.training.checkpoint import CheckpointStore, Progress, TrainingState, copies_of
from nakt_dist.training.early_stopping import has_stopped_gaining
from nakt_dist.training.finiteness import Finiteness
from nakt_dist.training.learner import Learner
from nakt_dist.training.phases import Phase, phase
from nakt_dist.training.run import TrainingRun

_SECONDS_BETWEEN_LOOKS = 1.0
_BATCHES_BETWEEN_LOOKS = 8
"""Of images that are scored; all processes look at the same ones."""
Weights = Mapping[str, torch.Tensor]


@dataclass
class Milestones:
    """Saves and scores a network while it learns; its methods are collective operations.

    A checkpoint is written first and the network scored then, since that may take longer than a
    scheduler waits. A launch that was killed or asked to leave meanwhile leaves the scoring to the
    next one.
    The main process writes copies in a thread while all go on learning, and is done with one
    milestone before it begins to write the next. It is a context, which does not end before.
    ``beat`` is called before whatever takes time, ``look`` about once a second and before anything
    is saved, for losses that nobody has looked at: looking waits for the GPU and for all processes.
    """

    run: TrainingRun
    store: CheckpointStore
    progress: Progress
    learner: Learner
    finiteness: Finiteness
    agreement: Agreement
    steps_per_epoch: int
    total_steps: int
    beat: Callable[[str], None]
    look: Callable[[], None]
    tracker: Tracker | None = None
    logs: list[Tracker | JsonLines] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._saved_step = self.progress.step
        self._next_look = 0.0
        self._writing = Beside("checkpoint")
        self._weights: tuple[int, Weights] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self._writing.close(error)

    def settle(self) -> None:
        """Does what the last launch had no time for, or what belongs to an end that came nearer."""
        done = self.progress.step
        if self.ends(done):  # those of fewer steps may lie there
            weights = self.learner.whole_network().state_dict()
            self.agreement.of_main(lambda: self._write_weights(LAST_WEIGHTS, weights))
        if self.owes_score:
            self._validate()

    @property
    def owes_score(self) -> bool:
        """Whether the network ought to have been scored at the step reached, and was not."""
        done = self.progress.step
        return done > 0 and self._is_scored(done) and self.progress.validated_step != done

    def pass_step(self, done: int) -> None:
        """Saves and scores after ``done`` steps, when it is time.

        Raises:
            NaktError: what would be saved is not finite.
            StartAgain: as ``leave_if_asked``.
        """
        self.progress = replace(self.progress, step=done)
        is_scored = self._is_scored(done)
        if is_scored or self._is_saved(done):
            with phase(Phase.CHECKPOINT):
                self.learner.average_buffers()
                self._save()
        if is_scored:
            self.leave_if_asked()
            with phase(Phase.VALIDATION):
                self._validate()

    def leave_if_asked(self) -> None:
        """Saves and leaves, on all processes at the same step, when any was sent a signal.

        Raises:
            StartAgain: one was.
            NaktError, OSError: what the last milestone left could not be written; steps taken
                since then would be lost.
        """
        stop, done = self.run.stop, self.progress.step
        is_time = time.monotonic() >= self._next_look
        with phase(Phase.PEERS):
            flags = [stop.received, is_time, self._writing.has_failed]
            asked, looked, failed = self.agreement.largest_of(flags)
        if failed:
            self.finish()
        if looked:
            with phase(Phase.LOGGING):
                self.look()
            self._next_look = time.monotonic() + _SECONDS_BETWEEN_LOOKS
        if not asked:
            return
        if done > self._saved_step:
            # BatchNorm's statistics as they are: averaging them is for scoring, and would make
            # the steps to come differ from those of a run that nobody interrupted.
            self._save()
        self.finish()
        signal = stop.name or "a signal to another process"
        raise StartAgain(
            f"{self.run.output}: asked to leave by {signal}; saved at step {done} of "
            f"{self.total_steps}. Start the same command again to go on"
        )

    def finish(self) -> None:
        """Waits until all is on the disk.

        Raises:
            NaktError, OSError: something could not be written.
        """
        self.beat(f"writing of what step {self._saved_step} left")
        self.agreement.of_main(self._writing.wait)

    def ends(self, done: int) -> bool:
        """Says whether these were all steps."""
        return done == self.total_steps or (done == self.progress.step and self.stopped_early)

    @property
    def stopped_early(self) -> bool:
        """Whether the steps that are left are not taken, as validation has stopped gaining."""
        early, progress = self.run.config.recipe.early_stopping, self.progress
        return progress.step < self.total_steps and has_stopped_gaining(progress.scores, early)

    def weights_sha256(self) -> dict[str, str]:
        """Returns the fingerprints of the weights files, alike on all processes."""
        names = {"best_weights_sha256": BEST_WEIGHTS, "last_weights_sha256": LAST_WEIGHTS}
        return self.agreement.of_main(
            lambda: {field: file_sha256(self.run.output / name) for field, name in names.items()}
        )

    def _is_saved(self, done: int) -> bool:
        every = self.run.config.checkpoint.every_steps
        return every is not None and done % every == 0

    def _is_scored(self, done: int) -> bool:
        if self.run.config.is_streaming:  # without epochs
            return self.ends(done) or self._is_saved(done)
        epoch, rest = divmod(done, self.steps_per_epoch)
        every = self.run.config.checkpoint.every_epochs
        return self.ends(done) or (rest == 0 and epoch % every == 0)

    def _save(self) -> None:
        """Copies what a checkpoint holds; the main process writes it beside the next steps."""
        done = self.progress.step
        self.beat(f"checkpoint of step {done}")
        self.look()
        network, state = self.learner.whole_network(), self.learner.training_state()
        self.finiteness.check_network(network, done)

        def begin() -> None:
            self._writing.wait()
            self._sync_logs()
            weights, copied = self._copy_of(network), state.copy()
            self._writing.add(partial(self._write_checkpoint, self.progress, weights, copied))

        self.agreement.of_main(begin)
        self._saved_step = done

    def _write_checkpoint(self, progress: Progress, weights: Weights, state: TrainingState) -> None:
        if progress.step == self.total_steps:
            self._write_weights(LAST_WEIGHTS, weights)
        self.store.save(progress, weights, state, self.run.spec, self.run.metadata)

    def _copy_of(self, network: nn.Module) -> Weights:
        """Returns the weights as they are at this step, on the CPU; copied once a step."""
        step = self.progress.step
        if self._weights is None or self._weights[0] != step:
            self._weights = step, copies_of(network.state_dict())
        return self._weights[1]

    def _validate(self) -> None:
        """Scores the network just saved, and keeps its weights where it is the best so far."""
        network = self.learner.whole_network()
        self.progress = replace(self.progress, validated_step=self.progress.step)
        validation = self.run.validation
        is_best = validation is None or self._score(network, validation)
        names = [BEST_WEIGHTS] if is_best else []
        if self.stopped_early:
            names.append(LAST_WEIGHTS)
            say(
                f"train: stops at step {self.progress.step} of {self.total_steps}: validation has "
                "stopped gaining"
            )

        def begin() -> None:
            self._sync_logs()
            weights = {name: self._copy_of(network) for name in names}
            self._writing.add(partial(self._write_score, self.progress, weights))

        self.agreement.of_main(begin)

    def _write_score(self, progress: Progress, weights: Mapping[str, Weights]) -> None:
        # Weights first: a kill in between is mended by this validation, done again.
        for name, those in weights.items():
            self._write_weights(name, those)
        self.store.update(progress)

    def _score(self, network: nn.Module, validation: Images) -> bool:
        """Measures the validation metric; says whether it is the best so far."""
        task, done = self.run.task, self.progress.step
        metrics = task.validation_metrics(self._rows(network, validation))
        value, best = metrics[task.metric], self.progress.best_metric
        is_best = best is None or value > best
        self.progress = replace(self.progress, scores=(*self.progress.scores, value))
        if is_best:
            self.progress = replace(self.progress, best_metric=value, best_step=done)
        if self.tracker is not None:
            scores = {f"validation_{each}": number for each, number in metrics.items()}
            best_so_far = value if best is None or value > best else best
            self.tracker.log(done, {**scores, f"best_{task.metric}": best_so_far})
        return is_best

    @torch.no_grad()
    def _rows(self, network: nn.Module, dataset: Images) -> np.ndarray:
        """Scores every image on one of the processes.

        Returns:
            float64 (images, D), in their order, alike on all processes.

        Raises:
            StartAgain: as ``leave_if_asked``; the network is on the disk, and scored later.
        """
        network.eval()
        accelerator, size = self.run.accelerator, self.run.share.micro_batch_size
        world = accelerator.num_processes
        numbers, most = (range(r, len(dataset), world) for r in (accelerator.process_index, 0))
        pieces: list[torch.Tensor] = []
        parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        with closing(read_ahead(dataset, parts, own_cores(self.run.config.workers))) as batches:
            for number, batch in enumerate(batches):
                if number % _BATCHES_BETWEEN_LOOKS == 0:
                    self.leave_if_asked()
                self.beat(f"validation, image {number * size}")
                image, target = as_float(batch, accelerator.device)
                with self.learner.autocast():
                    logits = self.run.task.logits(network, image)
                pieces.append(self.run.task.validation_rows(logits, target))
        # All look as often as the first process, which has the most batches.
        looks = range(0, -(-len(most) // size), _BATCHES_BETWEEN_LOOKS)
        for _ in looks[-(-len(parts) // _BATCHES_BETWEEN_LOOKS) :]:
            self.leave_if_asked()
        return gather_rows(accelerator, pieces, len(dataset))

    def _write_weights(self, name: str, weights: Weights) -> None:
        save_weights(self.run.output / name, weights, self.run.spec, self.run.metadata)

    def _sync_logs(self) -> None:
        """What a checkpoint counts as done is on the disk before it."""
        for log in self.logs:
            log.sync()
