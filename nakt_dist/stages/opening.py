"""What a stage opens before it begins, and what is found then: alike for the stage and ``doctor``.

Every stage has ``plan(config, opening)``, which opens and checks all that it needs and writes
nothing. ``run`` begins with it and ends at the first error, which it names; ``nakt doctor`` calls
it with an opening that gathers errors, see ``nakt_dist.stages.doctor_report``. Where such a one
has gathered some, a plan that would return something raises ``NotOpened``.
"""

import contextlib
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nakt_dist.runtime.processes import say
from nakt_dist.shards.manifest import AnyManifest
from nakt_dist.shards.verify import read_any_manifest

if TYPE_CHECKING:
    from nakt_dist.loading.samples import SelectedSamples
    from nakt_dist.models.network_file import TrainedNetwork

_GIB, _MIB = 2**30, 2**20


class NotOpened(Exception):
    """Ends a plan without what it would return: an opening has gathered what is wrong."""


@dataclass(kw_only=True)
class Opening:
    """What one process finds while it opens what a stage needs.

    Attributes:
        cache: folder for copies of what lies behind a URL; None for the one of the settings.
        facts: in words by name, in the order in which they are shown.
        notes: what is worth knowing and stops nothing.
        inputs: fingerprints of what this process sees, which should be alike everywhere.
        memory: bytes that the stage will keep in this process's memory.
        disk: bytes that the stage will write.
    """

    cache: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    memory: int = 0
    disk: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing was wrong so far."""
        return True

    def part(self, what: str) -> AbstractContextManager[None]:
        """Opens a part, such as ``"data"``; its errors end the stage."""
        return contextlib.nullcontext()

    def check_shards(self, folder: str, manifest: AnyManifest) -> None:
        """Leaves it to the stage to miss a shard when it reads it."""

    def note(self, *notes: str) -> None:
        """Adds notes, each once."""
        self.notes += [each for each in dict.fromkeys(notes) if each not in self.notes]

    def say(self, stage: str) -> None:
        """Prints the notes for the user."""
        for note in self.notes:
            say(f"{stage}: {note}")

    def tell_samples(
        self,
        name: str,
        samples: "SelectedSamples",
        dataset: str,
        splits: Sequence[str] | None,
        pseudo_labels: str | None = None,
    ) -> None:
        """Says what a choice of samples is, and whether its shards are all there.

        Raises:
            DatasetError: shards are absent or of another size.
        """
        manifest = samples.images.manifest
        phantom = " (phantom)" if manifest.phantom else ""
        where = "all splits" if splits is None else f"split {' + '.join(splits)}"
        kind = "pseudo masks" if samples.mask_is_soft else f"masks: {manifest.mask_kind}"
        if samples.unlabelled:
            kind = "no labels learnt"
        if samples.pseudo_findings is not None:
            kind = f"pseudo-findings: {len(samples.pseudo_findings.manifest.findings)}"
        known = f", findings: {len(manifest.findings)}" if manifest.findings else ""
        self.facts[name] = (
            f"{len(samples):,} of {manifest.num_samples:,} samples of {manifest.dataset}{phantom}, "
            f"{where}; {manifest.height}×{manifest.width}×{manifest.channels}; {kind}{known}; "
            f"{dataset} ({manifest.fingerprint[:12]})"
        )
        self.inputs[name] = manifest.fingerprint
        hidden = manifest.config.get("deidentified")
        self.inputs[f"{name}'s key"] = str(hidden and hidden.get("key_fingerprint"))
        self.check_shards(dataset, manifest)
        if pseudo_labels is not None and samples.pseudo_labels is not None:
            self.inputs[f"{name}'s pseudo-labels"] = samples.pseudo_labels.manifest.fingerprint
            self.check_shards(pseudo_labels, samples.pseudo_labels.manifest)

    def tell_folder(self, folder: str) -> AnyManifest:
        """Says what a dataset or pseudo-labels are, and whether their shards are all there.

        Raises:
            DatasetError: they are neither, or shards are absent or of another size.
        """
        manifest = read_any_manifest(Path(folder))
        self.facts["data"] = f"{manifest.num_samples:,} samples of {manifest.dataset} in {folder}"
        self.check_shards(folder, manifest)
        return manifest

    def network(self, name: str, config: Any, called: str | None = None) -> "TrainedNetwork | None":
        """Opens a network on the CPU; the device's memory may be another job's still.

        Args:
            name: of the setting.
            config: holds ``weights``, ``model`` and ``preprocessing``.
            called: the network's name; None derives it from the path.
        """
        from nakt_dist.models.network_file import open_network  # takes seconds
        from nakt_dist.models.weights_path import weights_path

        with self.part(name):
            trained = open_network(config.weights, config.model, config.preprocessing, name=called)
            words = tell_weights(weights_path(config.weights), trained.weights_sha256)
            self.facts[name] = f"{trained.name}, {trained.spec.name}: {words}"
            return trained
        return None


def tell_weights(path: Path, sha256: str) -> str:
    """Returns a weights file in words: name, size and the first digits of its SHA-256."""
    return f"{path} ({in_words(path.stat().st_size)}, {sha256[:12]})"


def in_words(size: float) -> str:
    """Returns a number of bytes as people read it: ``3.2 GiB``, ``14 MiB``, ``1.5 MiB``, ``7 KiB``.

    What is not nothing is at least 1 KiB.
    """
    if size >= _GIB:
        return f"{size / _GIB:.1f} GiB"
    if size >= _MIB:
        return f"{size / _MIB:.{0 if size >= 10 * _MIB else 1}f} MiB"
    return f"{math.ceil(size / 2**10)} KiB"
