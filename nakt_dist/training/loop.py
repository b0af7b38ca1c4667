"""The training loop: steps over global batches."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.config import as_plain
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.models.trainable import keep_frozen_statistics
from nakt_dist.models.weights_path import BEST_WEIGHTS
from nakt_dist.records.run_tags import run_tags
from nakt_dist.runtime.deepspeed_launch import uses_deepspeed
from nakt_dist.runtime.devices import explain_full_memory, gpu_uuid
from nakt_dist.runtime.distributed import Agreement
from nakt_dist.runtime.mirrors import TrackedRun
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.rank_textfile import RankTextfile
from nakt_dist.runtime.tracking import PACE_NAME, JsonLines, Tracker
from nakt_dist.runtime.watchdog import Watchdog
from nakt_dist.training.batch_norm import synchronise_batch_norm
from nakt_dist.training.by_source import SourceRows
from nakt_dist.training.checkpoint import CheckpointStore, Progress, load_checkpoint
from nakt_dist.training.finiteness import Finiteness
from nakt_dist.training.gpu_memory import halve_when_full
from nakt_dist.training.inputs import MicroBatch, TrainingInputs
from nakt_dist.training.learner import Learner
from nakt_dist.training.mean_teacher import Consistency, batch_statistics, weight_at
from nakt_dist.training.milestones import Milestones
from nakt_dist.training.pace import Pace
from nakt_dist.training.phases import Phase, phase
from nakt_dist.training.profile import Profile
from nakt_dist.training.run import TrainingRun
from nakt_dist.training.schedule import Schedule
from nakt_dist.training.zero import ZeroLearner

BATCHES_NAME = "batches.jsonl"
CHECKPOINTS_NAME = "checkpoints"


class TrainingLoop:
    """Trains until the last step or no gain, from wherever the last checkpoint stands."""

    def __init__(self, run: TrainingRun) -> None:
        config, accelerator = run.config, run.accelerator
        self._run = run
        self._config = config
        self._accelerator = accelerator
        self._inputs = TrainingInputs(
            config, run.training, run.share, accelerator.process_index, accelerator.device
        )
        self._schedule = Schedule(config.recipe, self._inputs.order.steps_per_epoch)
        self.total_steps = self._schedule.total_steps
        self._agreement = Agreement(accelerator, run.timeout)
        self._agreement.check_alike(run.alike)
        self._watchdog = Watchdog(run.output, process_place(), config.watchdog_seconds)
        store = CheckpointStore(run.output / CHECKPOINTS_NAME, config.checkpoint.keep)
        with explain_full_memory(
            str(run.output),
            "The network itself does not fit, whatever the batch: take a smaller one "
            "(model.options), free the GPU of other programs, or set --device cpu",
        ):
            progress, self._learner = self._resume(store)
        self._unseen: dict[int, Mapping[str, torch.Tensor]] = {}
        self._pace: Pace | None = None
        self._profile = Profile(run, progress.step, self._watchdog.beat)
        self._finiteness = Finiteness(run, self._agreement, self._inputs.keys, progress.step)
        self.milestones = Milestones(
            run, store, progress, self._learner, self._finiteness, self._agreement,
            self._inputs.order.steps_per_epoch, self.total_steps, self._watchdog.beat, self._look,
        )  # fmt: skip

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self.milestones.progress

    @property
    def speed(self) -> dict[str, float]:
        """How fast this launch trained: see ``Pace.summary``."""
        return {} if self._pace is None else self._pace.summary()

    def describe_sources(self) -> dict[str, dict[str, Any]]:
        """Returns what a mixture's sources gave up to the step reached; empty for one dataset."""
        return self._inputs.sources.describe(self.progress.step)

    def _resume(self, store: CheckpointStore) -> tuple[Progress, Learner]:
        """Reads the newest whole checkpoint, if any, and spreads the network over the devices."""
        network = self._run.network.to(self._accelerator.device)
        recipe, output = self._config.recipe, self._run.output
        if recipe.synchronised_batch_norm:
            synchronise_batch_norm(network)
        if recipe.channels_last:
            network = network.to(memory_format=torch.channels_last)
        checkpoint = self._agreement.of_main(store.latest)
        progress, state = Progress(), None
        if checkpoint is not None:
            progress, weights, state = load_checkpoint(checkpoint)
            network.load_state_dict(weights)
            if progress.step > self.total_steps:
                raise ConfigurationError(
                    f"{output}: {progress.step} steps are done already, and {self.total_steps} "
                    "were asked for. Ask for more, or choose another --output"
                )
            self._agreement.of_main(lambda: store.restore_best(progress, output / BEST_WEIGHTS))
            say(f"train: goes on at step {progress.step} of {self.total_steps}")
        learner = ZeroLearner if uses_deepspeed() else Learner
        return progress, learner(self._accelerator, network, self._run.task, recipe, state)

    def train(self) -> Progress:
        """Runs to the last step, or until validation stops gaining.

        Raises:
            NaktError: the loss is not finite, or the teacher is not what it was.
            StartAgain: a signal asked to leave, and all is saved; or the GPU's memory was full.
        """
        following = self._run.task.following
        teacher = following and following.teacher_sha256()
        first, output = self.progress.step, self._run.output
        is_main = self._accelerator.is_main_process
        self._run.stop.listen()
        with ExitStack() as stack:
            tracker = stack.enter_context(self._tracker(first)) if is_main else None
            keys = None
            if is_main and self._config.log_keys:
                keys = stack.enter_context(JsonLines(output / BATCHES_NAME, first))
            self._pace = pace = stack.enter_context(self._measure(first))
            self.milestones.tracker = tracker
            self.milestones.logs = [each for each in (tracker, keys) if each is not None]
            stack.enter_context(self._watchdog)
            stack.enter_context(self.milestones)
            stack.enter_context(self._profile)
            bar = progress_bar(f"train {output.name}", self.total_steps)
            self._run_steps(first, keys, pace, stack.enter_context(bar))
        if following is not None and following.teacher_sha256() != teacher:
            raise NaktError(
                f"{output}: the frozen teacher changed while its student trained; do not "
                "use these weights, and report this"
            )
        return self.progress

    def _tracker(self, first: int) -> Tracker:
        tracking, output = self._config.tracking, self._run.output
        run = TrackedRun(
            folder=output,
            name=output.name,
            config=as_plain(replace(self._config, model=self._run.spec)),
            wandb_mode=tracking.wandb,
            project=tracking.project,
            entity=tracking.entity,
            group=tracking.group or os.environ.get("NAKT_STUDY") or None,
            tags=run_tags(json.loads(self._run.metadata["lineage"]), tracking.tags),
        )
        redone = f"validation_{self._run.task.metric}" if self.milestones.owes_score else None
        return Tracker(run, first, redone)

    def _measure(self, first: int) -> Pace:
        """Begins to measure how fast this process learns."""
        output, device, place = self._run.output, self._accelerator.device, process_place()
        folder, textfile = self._config.tracking.prometheus_folder, None
        if folder is not None:
            textfile = RankTextfile(Path(folder), output, "train", place, gpu_uuid(device))
        lines = JsonLines(output / PACE_NAME, first) if place.is_main else None
        return Pace(device, self._run.share, output / CHECKPOINTS_NAME, lines, textfile)

    def _run_steps(
        self, first: int, keys: JsonLines | None, pace: Pace, advance: Callable[[int], None]
    ) -> None:
        advance(first)
        self._inputs.open(first, self.total_steps)
        with self._explained_memory():
            self.milestones.settle()
        for step in range(first, self.total_steps):
            if self.milestones.stopped_early:
                break
            self._watchdog.beat(f"step {step + 1}")
            begun = time.perf_counter()
            self._pass(step)
            if keys is not None:
                keys.write({"step": step + 1, "keys": self._inputs.keys(step)})
            pace.add(step + 1, time.perf_counter() - begun, self._inputs.waited_seconds)
            with self._explained_memory():
                self.milestones.pass_step(step + 1)
            advance(1)
            self._profile.pass_step()
        self.milestones.finish()

    def _pass(self, step: int) -> None:
        """Does one step, unless a signal asked to leave, and keeps its losses to be looked at."""
        self.milestones.leave_if_asked()
        with self._explained_memory():
            losses = self._step(step)
        if self._is_logged(step) and losses is not None:
            self._unseen[step] = losses
        if losses is None and self.milestones.tracker is not None:
            self.milestones.tracker.alert("A step was skipped", f"step {step + 1} was not finite")

    def _is_logged(self, step: int) -> bool:
        every = self._config.tracking.every_steps
        return (step + 1) % every == 0 or self.milestones.ends(step + 1)

    def _explained_memory(self) -> AbstractContextManager[None]:
        halve = self._config.recipe.halve_when_out_of_memory
        return halve_when_full(self._run.output, self._run.share, halve)

    def _step(self, step: int) -> dict[str, torch.Tensor] | None:
        """Does one optimiser step; returns this process's mean losses, None of a skipped one."""
        self._learner.begin_step(self._schedule.learning_rate(step))
        if self._config.frozen_bn_eval:
            keep_frozen_statistics(self._learner.network)
        # Dropout and the like depend on (seed, step, rank): nothing to store for resuming.
        words = [self._config.seed, step, self._accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0]))
        buffers = self._learner.copy_of_buffers() if self._finiteness.skips else []
        totals: dict[str, torch.Tensor] = {}
        divisor = self._inputs.labels_per_part(step)
        for number, seen in enumerate(self._inputs.micro_batches(step)):
            sources = self._inputs.sources.rows(step, number) if self._is_logged(step) else ()
            with self._learner.micro_batch():
                with phase(Phase.FORWARD):
                    losses = self._losses(step, seen, divisor, sources)
                with phase(Phase.BACKWARD):
                    self._learner.backward(losses["loss"])
            for name, value in losses.items():
                part = value.detach() / self._run.share.accumulation
                totals[name] = totals.get(name, 0) + part
        with phase(Phase.OPTIMISER):
            fine = self._learner.gradients_are_finite()
            if not self._finiteness.accept(step, totals["loss"], fine):
                self._learner.drop_step(buffers)
                return None
            self._learner.end_step(step + 1)
        return totals

    def _losses(
        self, step: int, seen: MicroBatch, divisor: float | None, sources: Sequence[SourceRows]
    ) -> Mapping[str, torch.Tensor]:
        learner, task = self._learner, self._run.task
        try:
            with learner.autocast():
                agreed = self._agreed(step, seen.other_view)
                return task.forward(
                    learner.module, seen.image, seen.target, divisor, sources, agreed
                )
        except (ValueError, RuntimeError) as error:  # the latter from a compiled network
            if "more than 1 value per channel" not in str(error):
                raise
            raise ConfigurationError(
                f"{self._run.output}: BatchNorm cannot train on one image whose map is one pixel. "
                "Take a larger recipe.global_batch_size or micro_batch_size, or larger images"
            ) from None

    @torch.no_grad()
    def _agreed(self, step: int, view: torch.Tensor | None) -> Consistency | None:
        """Returns what the average of the weights says of images, if it teaches."""
        config = self._config.recipe.mean_teacher
        if config is None or view is None:
            return None
        average = self._learner.whole_network().eval()
        with batch_statistics(average, self._learner.network):
            return Consistency(self._run.task.logits(average, view), weight_at(config, step))

    def _look(self) -> None:
        """Averages the losses not looked at yet over processes, and logs them.

        Raises:
            NaktError: a step among them was not finite; those before it are logged.
        """
        unseen, self._unseen = self._unseen, {}
        if unseen:
            names = list(next(iter(unseen.values())))
            table = [torch.stack([losses[name] for name in names]) for losses in unseen.values()]
            rows = self._accelerator.reduce(torch.stack(table), "mean").tolist()
            for step, row in zip(unseen, rows, strict=True):
                if not all(math.isfinite(value) for value in row):
                    break
                told = dict(zip(names, row, strict=True))
                self._log(step, self._inputs.sources.of_those_there(step, told))
        self._finiteness.check()

    def _log(self, step: int, losses: Mapping[str, float]) -> None:
        if self._pace is not None:
            self._pace.losses = losses
        if self.milestones.tracker is not None:
            rate = {}
            if not self._schedule.is_constant:
                rate = {"learning_rate": self._schedule.learning_rate(step)}
            epoch = self._inputs.order.epoch_of(step)
            self.milestones.tracker.log(step + 1, {"epoch": epoch, **losses, **rate})
