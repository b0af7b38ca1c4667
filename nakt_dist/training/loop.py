"""The training loop: steps over global batches, validation, checkpoints, resuming."""

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from nakt_dist.config import TrainConfig
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.loading.augmentation import augment, draw_parameters
from nakt_dist.loading.batches import Batch, as_float, indexed_batches, streamed_batches
from nakt_dist.loading.labels import LabelledImages
from nakt_dist.loading.sampler import GlobalBatches, Share
from nakt_dist.loading.samples import CachedImages
from nakt_dist.models.network_file import BEST_WEIGHTS, LAST_WEIGHTS
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.trainable import keep_frozen_statistics
from nakt_dist.models.weights import save_weights
from nakt_dist.runtime.distributed import average_buffers, gather_rows
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.tracking import JsonLines, Tracker
from nakt_dist.training.checkpoint import CheckpointStore, Progress, load_checkpoint
from nakt_dist.training.tasks import TrainingTask

BATCHES_NAME = "batches.jsonl"
CHECKPOINTS_NAME = "checkpoints"


@dataclass(frozen=True)
class TrainingRun:
    """Everything a loop works with.

    Attributes:
        config: of the stage.
        spec: of the network.
        network: with the weights to start from; what is not trained is frozen already.
        task: what is learnt.
        training: samples to learn from.
        validation: samples to choose the best epoch on, or None.
        metadata: written into every weights file: preprocessing and lineage.
        accelerator: of this launch.
    """

    config: TrainConfig
    spec: ModelSpec
    network: nn.Module
    task: TrainingTask
    training: CachedImages
    validation: CachedImages | None
    metadata: Mapping[str, str]
    accelerator: Accelerator


class TrainingLoop:
    """Trains until the last step, from wherever the last checkpoint stands.

    Args:
        run: what to train, on what.
    """

    def __init__(self, run: TrainingRun) -> None:
        config, accelerator = run.config, run.accelerator
        self._run = run
        self._config = config
        self._accelerator = accelerator
        self._output = Path(config.output)
        recipe = config.recipe
        self._order = GlobalBatches(len(run.training), recipe.global_batch_size, config.seed)
        self._share = Share.of(
            recipe.global_batch_size, accelerator.num_processes, recipe.micro_batch_size
        )
        self.total_steps = recipe.steps or recipe.epochs * self._order.steps_per_epoch
        self.task = run.task
        targets = run.training.targets if isinstance(run.training, LabelledImages) else None
        self._labels_that_count = None
        if targets is not None and not config.data.streaming:
            self._labels_that_count = (~np.isnan(targets.values)).sum(1)
        self._store = CheckpointStore(self._output / CHECKPOINTS_NAME, config.checkpoint.keep)
        self.progress = Progress()
        self._prepare()

    def _prepare(self) -> None:
        """Resumes, then hands network and optimiser to Accelerate."""
        network = self._run.network.to(self._accelerator.device)
        recipe = self._config.recipe
        if recipe.channels_last:
            network = network.to(memory_format=torch.channels_last)
        trained = [each for each in network.parameters() if each.requires_grad]
        optimiser = torch.optim.Adam(trained, lr=recipe.learning_rate)
        checkpoint = self._store.latest()
        scaler_state = None
        if checkpoint is not None:
            self.progress, weights, state = load_checkpoint(checkpoint)
            network.load_state_dict(weights)
            optimiser.load_state_dict(state["optimiser"])
            scaler_state = state["scaler"]
            if self.progress.step > self.total_steps:
                raise ConfigurationError(
                    f"{self._output}: {self.progress.step} steps are done already, and "
                    f"{self.total_steps} were asked for. Ask for more, or choose another --output"
                )
            say(f"train: goes on at step {self.progress.step} of {self.total_steps}")
        self.bare_network = network
        # Taps are set before anything is compiled or wrapped: later ones would never be reached.
        module = self.task.wrap(network)
        self._network, self._optimiser = self._accelerator.prepare(module, optimiser)
        if self._accelerator.scaler is not None and scaler_state is not None:
            self._accelerator.scaler.load_state_dict(scaler_state)
        # Compiled on top of what prepare returns; parameters stay those of the bare network.
        self._forward = torch.compile(self._network) if recipe.compile else self._network

    def train(self) -> Progress:
        """Runs to the last step.

        Raises:
            NaktError: the loss is not finite, or the teacher is not what it was.
        """
        following = self.task.following
        teacher = following and following.teacher_sha256()
        first = self.progress.step
        tracker = keys = None
        if self._accelerator.is_main_process:
            tracking = self._config.tracking
            tracker = Tracker(
                self._output, first, tracking.wandb, tracking.project, self._output.name,
                {"recipe": vars(self._config.recipe), "model": vars(self._run.spec)},
            )  # fmt: skip
            if self._config.log_keys:
                keys = JsonLines(self._output / BATCHES_NAME, first)
        with progress_bar(f"train {self._output.name}", self.total_steps) as advance:
            advance(first)
            batches = self._batches(first)
            for step in range(first, self.total_steps):
                losses = self._step(step, batches)
                self.progress = replace(self.progress, step=step + 1)
                if keys is not None:
                    self._log_keys(keys, step)
                if (step + 1) % self._config.tracking.every_steps == 0 or self._ends(step + 1):
                    self._log(tracker, step, losses)
                self._after_step(step + 1, tracker)
                advance(1)
        for writer in (tracker, keys):
            if writer is not None:
                writer.close()
        if following is not None and following.teacher_sha256() != teacher:
            raise NaktError(
                f"{self._output}: the frozen teacher changed while its student trained; do not "
                "use these weights, and report this"
            )
        return self.progress

    def _batches(self, first: int) -> Iterator[Batch]:
        data, rank = self._config.data, self._accelerator.process_index
        dataset = self._run.training
        if data.streaming:
            micro, seed = self._share.micro_batch_size, self._config.seed + first
            targets = dataset.targets if isinstance(dataset, LabelledImages) else None
            return streamed_batches(data, dataset.samples, micro, seed, rank, targets)
        return indexed_batches(
            dataset, self._order, self._share, rank, first, self.total_steps, self._config.workers
        )

    def _step(self, step: int, batches: Iterator[Batch]) -> dict[str, torch.Tensor]:
        """Does one optimiser step; returns this process's mean losses."""
        self._network.train()
        if self._config.frozen_bn_eval:
            keep_frozen_statistics(self.bare_network)
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate(step)
        # Dropout and the like depend on (seed, step, rank): nothing to store for resuming.
        words = [self._config.seed, step, self._accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        totals: dict[str, torch.Tensor] = {}
        divisor = self._labels_per_part(step)
        for micro_batch in range(self._share.accumulation):
            image, target = self._load(next(batches), step)
            last = micro_batch == self._share.accumulation - 1
            with nullcontext() if last else self._accelerator.no_sync(self._network):
                losses = self._losses(image, target, divisor)
                self._accelerator.backward(losses["loss"] / self._share.accumulation)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0) + value.detach() / self._share.accumulation
        if self._config.recipe.largest_gradient_norm is not None:
            self._accelerator.clip_grad_norm_(
                self._network.parameters(), self._config.recipe.largest_gradient_norm
            )
        self._optimiser.step()
        self._optimiser.zero_grad()
        return totals

    def _losses(
        self, image: torch.Tensor, target: torch.Tensor, divisor: float | None
    ) -> Mapping[str, torch.Tensor]:
        try:
            with self._accelerator.autocast():
                return self.task.forward(self._forward, image, target, divisor)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigurationError(
                f"{self._output}: BatchNorm cannot train on one image whose map is one pixel "
                f"({error}). Take a larger recipe.global_batch_size or micro_batch_size, or "
                "larger images"
            ) from None

    def _labels_per_part(self, step: int) -> float | None:
        """How many labels count, on average over the parts that a global batch is cut into.

        Ignored labels fall unevenly into the parts; a common divisor makes the loss that of the
        whole batch. A stream does not know its batches beforehand: None.
        """
        if self._labels_that_count is None:
            return None
        parts = self._share.accumulation * self._share.world_size
        return float(self._labels_that_count[self._order.batch(step)].sum()) / parts

    def _learning_rate(self, step: int) -> float:
        """A function of the step alone: nothing to store for resuming."""
        recipe = self._config.recipe
        if recipe.decay_every_epochs is None:
            return recipe.learning_rate
        decays = self._order.epoch_of(step) // recipe.decay_every_epochs
        return recipe.learning_rate * recipe.decay_factor**decays

    def _load(self, batch: Batch, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, target = as_float(batch, self._accelerator.device)
        if self._config.augmentation.enabled:
            # A stream has no epochs; its steps stand in for them.
            epoch = step if self._config.data.streaming else self._order.epoch_of(step)
            parameters = draw_parameters(
                self._config.augmentation, batch["number"].numpy(), self._config.seed, epoch,
                *image.shape[-2:],
            )  # fmt: skip
            image, target = augment(image, target, parameters.to(image.device))
        if self._config.recipe.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return image, target

    def _log(self, tracker: Tracker | None, step: int, losses: Mapping[str, torch.Tensor]) -> None:
        """Averages the losses over processes, logs them, and stops on one that is not finite."""
        names = list(losses)
        values = self._accelerator.reduce(torch.stack([losses[name] for name in names]), "mean")
        numbers = dict(zip(names, values.tolist(), strict=True))
        if not math.isfinite(numbers["loss"]):
            raise self._diverged(f"the loss is {numbers['loss']}", step)
        if tracker is not None:
            rate = {}
            if self._config.recipe.decay_every_epochs is not None:
                rate = {"learning_rate": self._learning_rate(step)}
            tracker.log(step + 1, {"epoch": self._order.epoch_of(step), **numbers, **rate})

    def _diverged(self, what: str, step: int) -> NaktError:
        return NaktError(
            f"{self._output}: {what} at step {step + 1} (images "
            f"{', '.join(self._keys(step)[:8])} …). Nothing was saved since the last checkpoint. "
            "Train into another --output with a lower recipe.learning_rate, with "
            "recipe.largest_gradient_norm 1, or with recipe.precision no"
        )

    def _keys(self, step: int) -> list[str]:
        if self._config.data.streaming:
            return ["of the stream"]
        index = self._run.training.samples.images.index["key"]
        return [index[int(number)].as_py() for number in self._order.batch(step)]

    def _log_keys(self, keys: JsonLines, step: int) -> None:
        keys.write({"step": step + 1, "keys": self._keys(step)})

    def _ends(self, done: int) -> bool:
        return done == self.total_steps

    def _after_step(self, done: int, tracker: Tracker | None) -> None:
        """Validates and saves when it is time."""
        checkpoint = self._config.checkpoint
        epoch, rest = divmod(done, self._order.steps_per_epoch)
        streaming = self._config.data.streaming
        at_epoch = not streaming and rest == 0 and epoch % checkpoint.every_epochs == 0
        at_step = checkpoint.every_steps is not None and done % checkpoint.every_steps == 0
        validates = at_epoch or self._ends(done) or (streaming and at_step)
        if validates or at_step:
            average_buffers(self._accelerator, self.bare_network)
            # Alike on all processes, so that all stop: what is saved replaces what was sound.
            if not all(value.isfinite().all() for value in self.bare_network.parameters()):
                raise self._diverged("a weight is not a number", done - 1)
            improved = validates and self._validate(done, tracker)
            self._save(improved)

    def _validate(self, done: int, tracker: Tracker | None) -> bool:
        """Scores the network; says whether it is the best so far."""
        if self._run.validation is None:
            return True
        name = self.task.metric
        metrics = self.task.validation_metrics(self._validation_rows(self._run.validation))
        best = self.progress.best_metric
        improved = best is None or metrics[name] > best
        if improved:
            self.progress = replace(self.progress, best_metric=metrics[name], best_step=done)
        if tracker is not None:
            scores = {f"validation_{each}": value for each, value in metrics.items()}
            tracker.log(done, {**scores, f"best_{name}": self.progress.best_metric})
        return improved

    @torch.no_grad()
    def _validation_rows(self, dataset: CachedImages) -> np.ndarray:
        """Returns the task's rows of all images, each once, in order, alike on all processes."""
        self.bare_network.eval()
        accelerator = self._accelerator
        size = self._config.recipe.global_batch_size
        numbers = range(accelerator.process_index, len(dataset), accelerator.num_processes)
        pieces = []
        for start in range(0, len(numbers), size):
            items = [dataset[number] for number in numbers[start : start + size]]
            image, target = as_float(torch.utils.data.default_collate(items), accelerator.device)
            with accelerator.autocast():
                logits = self.task.logits(self.bare_network, image)
            pieces.append(self.task.validation_rows(logits, target))
        return gather_rows(accelerator, pieces, len(dataset))

    def _save(self, improved: bool) -> None:
        """Writes checkpoint and weights on the main process, while the others wait."""
        if self._accelerator.is_main_process:
            scaler = self._accelerator.scaler
            state = {
                "optimiser": self._optimiser.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
            }
            spec, metadata = self._run.spec, self._run.metadata
            # Weights first: a kill in between is mended by the steps that are done again.
            if improved:
                self._write_weights(BEST_WEIGHTS)
            if self._ends(self.progress.step):
                self._write_weights(LAST_WEIGHTS)
            self._store.save(self.progress, self.bare_network, state, spec, metadata)
        self._accelerator.wait_for_everyone()

    def _write_weights(self, name: str) -> None:
        state = self.bare_network.state_dict()
        save_weights(self._output / name, state, self._run.spec, self._run.metadata)


def describe_progress(progress: Progress) -> dict[str, Any]:
    """Returns a run's progress for its record."""
    return {"steps": progress.step, "best_step": progress.best_step}
