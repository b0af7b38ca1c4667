"""Images with their targets, as a training, a teacher or a test wants them."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.config import ImageConfig
from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample
from nakt_dist.loading.decoded_store import DecodedStore
from nakt_dist.loading.decoding import decode_into
from nakt_dist.loading.images import Images
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.records.lineage import NO_LABELS, PSEUDO_FINDINGS, PSEUDO_MASKS, Network, TrainingSet
from nakt_dist.records.lineage_reading import readable
from nakt_dist.records.pseudo_sets import kept_by, with_threshold_found
from nakt_dist.shards.location import DatasetLocation
from nakt_dist.shards.manifest import (
    MANIFEST_NAME,
    PseudoFindingsManifest,
    ShardManifest,
    read_taught_manifest,
)
from nakt_dist.shards.pseudo_findings import PseudoFindings
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.transfer.exclusion import ExclusionRule


@dataclass(frozen=True)
class SelectedSamples:
    """The samples a stage works on, and how they came to be these.

    Attributes:
        images: the packed dataset as selected.
        pseudo_labels: what teachers say of them, or None when the dataset's own masks or findings
            are the target.
        before_exclusion: number of samples before the exclusion rule.
        exclusion: that rule, its β found; None where there is none.
        unlabelled: no target is learnt.
    """

    images: IndexedShards
    pseudo_labels: PseudoLabels | PseudoFindings | None
    before_exclusion: int
    exclusion: ExclusionRule | None = None
    unlabelled: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def mask_is_soft(self) -> bool:
        """Whether target masks are probabilities rather than annotations."""
        return isinstance(self.pseudo_labels, PseudoLabels)

    @property
    def pseudo_findings(self) -> PseudoFindings | None:
        """What classifiers say of the samples, where that is to be learnt."""
        return self.pseudo_labels if isinstance(self.pseudo_labels, PseudoFindings) else None

    def target_bytes(self, number: int) -> bytes:
        """Returns the encoded target of a sample, which must have one: see ``check_masks``."""
        if isinstance(self.pseudo_labels, PseudoLabels):
            return self.pseudo_labels.soft_mask_bytes(number)
        mask = self.images.mask_bytes(number)
        assert mask is not None
        return mask

    def check_masks(self, otherwise: str, with_findings: str) -> None:
        """Refuses samples without a target; none is read.

        Args:
            otherwise: what else than packing masks can be done, as the end of a sentence.
            with_findings: the same where the dataset has findings.

        Raises:
            DatasetError: the dataset has no mask for some of them; says for how many.
        """
        if self.pseudo_labels is not None:
            return
        without = self.images.without_mask()
        if not len(without):
            return
        known = self.images.manifest.findings
        findings = f", or for its {len(known)} findings {with_findings}" if known else ""
        remedy = (
            "(--masks true)"
            if len(without) == len(self)
            else "(one that is all background where there is no target), or without these images "
            "(of image_folder --layout_options.require_masks true)"
        )
        raise DatasetError(
            f"{self.images.root}: {len(without)} of {len(self)} samples have no mask (the first: "
            f"{self.images.describe(without[0])}). Pack the dataset with a mask for each "
            f"{remedy}{otherwise}{findings}"
        )

    @property
    def learnt(self) -> TrainingSet:
        """What these samples are, as far as they say."""
        manifest = self.images.manifest
        learnt = TrainingSet(
            dataset=manifest.dataset,
            fingerprint=manifest.fingerprint,
            phantom=manifest.phantom,
            samples=len(self),
        )
        if self.unlabelled:
            return replace(learnt, taught=NO_LABELS)
        if self.pseudo_labels is None:
            return learnt
        pseudo = self.pseudo_labels.manifest
        return replace(
            learnt,
            taught=PSEUDO_MASKS if self.mask_is_soft else PSEUDO_FINDINGS,
            before_exclusion=self.before_exclusion,
            pseudo_labels_fingerprint=pseudo.fingerprint,
            teachers=tuple(map(_author, pseudo.teachers)),
        )

    def describe(self) -> dict[str, Any]:
        """Says what these samples are, for a checkpoint's lineage and a report."""
        return self.learnt.to_json() | describe_images(self.images.manifest)


def _author(teacher: Mapping[str, Any]) -> Network:
    """Returns the teacher that a manifest of pseudo-labels names."""
    stored = readable(teacher.get("lineage", {}))
    seen = teacher.get("preprocessing")
    return Network(
        teacher["weights_sha256"], teacher["name"], stored=stored,
        seen=seen if isinstance(seen, Mapping) else {},
    )  # fmt: skip


def image_form(manifest: ShardManifest) -> ImageForm:
    """Returns the form in which a packed dataset has its images."""
    image = manifest.config.get("image")
    fit = image.get("fit") if isinstance(image, Mapping) else None
    return ImageForm(manifest.height, manifest.width, fit if isinstance(fit, str) else None)


def describe_images(manifest: ShardManifest) -> dict[str, Any]:
    """Says in what form a packed dataset has its images, and with which settings it was packed."""
    image = manifest.config.get("image")
    known = {each.name for each in fields(ImageConfig)}
    settings = image.items() if isinstance(image, Mapping) else ()
    return {
        **asdict(image_form(manifest)),
        "image": {
            name: value
            for name, value in settings
            if name in known and isinstance(value, str | int) and len(str(value)) < 100
        },
    }


def select_samples(
    dataset: str,
    splits: list[str] | None,
    pseudo_labels: str | None = None,
    exclusion: ExclusionRule | None = None,
    count: int | None = None,
    subset_seed: int = 0,
    cache: str = "~/.cache/nakt_dist",
    role: str = "",
    taught: Callable[[PseudoFindings], np.ndarray] | None = None,
) -> SelectedSamples:
    """Opens a dataset and chooses its samples: splits, then exclusion, then a count.

    Args:
        exclusion: applied to the statistics of pseudo masks.
        count: only so many, chosen by hash of (subset_seed, key): nested in larger choices.
        role: what the settings' names begin with in messages, such as ``validation.``.
        taught: says, bool (N,), of which images pseudo-findings leave something to learn.

    Raises:
        DatasetError: something is absent, damaged, or made for something else.
        ConfigurationError: a split is unknown, or nothing is left.
    """
    try:
        images = IndexedShards(dataset, splits, Path(cache))
    except ConfigurationError as error:
        raise ConfigurationError(f"{role}splits: {error}") from None
    pseudo = _open_pseudo_labels(pseudo_labels, images, Path(cache)) if pseudo_labels else None
    before = len(images)
    if isinstance(pseudo, PseudoFindings):
        if taught is None:
            raise _no_masks(pseudo)
        rows = np.flatnonzero(taught(pseudo))
        images, pseudo = images.select(rows), pseudo.select(rows)
    elif pseudo is not None and exclusion is not None:
        exclusion = with_threshold_found(exclusion, pseudo.manifest)
        images, pseudo = _exclude(images, pseudo, exclusion)
    if count is not None and count > len(images):
        raise ConfigurationError(
            f"{role}count is {count}, but {dataset} has {len(images)} samples in splits "
            f"{splits or 'all'}{' after exclusion' if before > len(images) else ''}. Lower it"
        )
    if count is not None:
        rows = _nested_choice(images.keys, count, subset_seed)
        images, pseudo = images.select(rows), pseudo.select(rows) if pseudo else None
    if not len(images):
        raise ConfigurationError(
            f"no sample of {dataset} is left in splits {splits or 'all'}"
            f"{f' after excluding all {before}' if before else ''}"
            + ("; nakt inspect shows what a rule leaves" if pseudo_labels and before else "")
        )
    return SelectedSamples(images, pseudo, before, exclusion)


def _no_masks(pseudo: PseudoFindings) -> ConfigurationError:
    return ConfigurationError(
        f"{pseudo.root}: holds pseudo-findings ({', '.join(pseudo.manifest.findings)}), and masks "
        "are wanted. Give pseudo masks, or set task: classification"
    )


def _open_pseudo_labels(
    root: str, images: IndexedShards, cache: Path
) -> PseudoLabels | PseudoFindings:
    location = DatasetLocation(root, cache)
    location.refresh(MANIFEST_NAME)
    if isinstance(read_taught_manifest(location.folder), PseudoFindingsManifest):
        return PseudoFindings.open(root, images, cache)
    return PseudoLabels(root, images, cache)


def _exclude(
    images: IndexedShards, pseudo: PseudoLabels, rule: ExclusionRule
) -> tuple[IndexedShards, PseudoLabels]:
    kept = kept_by(rule, pseudo.manifest, lambda name: pseudo.column(name).to_numpy())
    rows = np.flatnonzero(kept)
    return images.select(rows), pseudo.select(rows)


def _nested_choice(keys: list[str], count: int, seed: int) -> np.ndarray:
    """Returns the rows, ascending, of the ``count`` keys with the smallest seeded hash."""
    from nakt_dist.sources.splits import choose_subset

    wanted = choose_subset(keys, count, seed)
    return np.asarray([row for row, key in enumerate(keys) if key in wanted])


class CachedImages(Images):
    """Images of one dataset with their targets, and a memory for what was decoded.

    Args:
        mask_planes: H × W planes of uint8 that a decoded target takes: 1 for masks, else 0.
        cache_megabytes: decoded samples are kept while they fit in this, by all processes of the
            machine together; None for half of the memory that is left, 0 for none.

    Attributes:
        decoded_bytes: that a decoded sample takes.
    """

    def __init__(
        self, samples: SelectedSamples, mask_planes: int, cache_megabytes: float | None = 0
    ) -> None:
        self.samples = samples
        manifest = samples.images.manifest
        self._form = (manifest.channels, manifest.height, manifest.width)
        self.decoded_bytes = (manifest.channels + mask_planes) * manifest.height * manifest.width
        self._most_bytes = None if cache_megabytes is None else int(cache_megabytes * 1e6)

    @functools.cached_property
    def store(self) -> DecodedStore | None:
        """Where decoded samples are kept; None where none are."""
        if self._most_bytes == 0:
            return None
        name = hashlib.sha256(self._name_of_pixels()).hexdigest()[:32]
        return DecodedStore(name, len(self), self.decoded_bytes, self._most_bytes)

    def _name_of_pixels(self) -> bytes:
        """What decides the decoded pixels, in the order of the samples."""
        form = str((self._form, self.decoded_bytes)).encode()
        return form + self.samples.images.fingerprint_of_rows()

    @property
    def sizes(self) -> tuple[int, ...]:
        """See ``Images``."""
        return (len(self.samples),)

    @property
    def form(self) -> tuple[int, int, int]:
        """See ``Images``."""
        return self._form

    @property
    def memory_bytes(self) -> int:
        """See ``Images``."""
        return len(self) * self.decoded_bytes

    def open_memory(self) -> None:
        """See ``Images``."""
        _ = self.store

    def keys(self, numbers: Sequence[int] | np.ndarray) -> list[str]:
        """See ``Images``."""
        column = self.samples.images.column("key")
        return [column[int(number)].as_py() for number in numbers]

    def read_into(self, number: int, image: np.ndarray, target: np.ndarray) -> None:
        """See ``Images``."""
        parts = self._parts(image, target)
        if self.store is not None and self.store.read(number, parts):
            return
        try:
            self._decode(number, parts)
        except UnusableSample as error:
            where = self.samples.images.describe(number)
            raise DatasetError(f"{where}: {error.detail}. Run nakt verify on the folder") from None
        if self.store is not None:
            self.store.write(number, parts)

    def _parts(self, image: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns those arrays of a sample that are decoded."""
        return (image,)

    def _decode(self, number: int, parts: tuple[np.ndarray, ...]) -> None:
        """Fills the parts; raises UnusableSample where a file is damaged."""
        decode_into(self.samples.images.image_bytes(number), parts[0])


class ImagesAlone(CachedImages):
    """Images of which no target is wanted: ``target`` is float32 (N, 0)."""

    def __init__(self, samples: SelectedSamples) -> None:
        super().__init__(samples, 0)

    def empty_target(self, numbers: Sequence[int], pinned: bool = False) -> torch.Tensor:
        """See ``Images``."""
        return torch.empty(len(numbers), 0)
