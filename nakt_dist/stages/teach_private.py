"""Pseudo-findings by private votes: what is asked is counted before it is asked."""

import contextlib
import hmac
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nakt_dist.config import PrivacyConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.limits import LARGEST_FACTOR
from nakt_dist.runtime.files import read_json, value_sha256, write_json
from nakt_dist.runtime.key_file import make_key, read_key
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.work import hold_lock
from nakt_dist.shards.pseudo_findings import write_sidecar
from nakt_dist.sources.splits import choose_subset
from nakt_dist.stages.teach_shard import ShardTeaching, Sidecar, Taught
from nakt_dist.transfer.ensemble import Teacher, above_half
from nakt_dist.transfer.private_votes import Spending, VotingRule, epsilon_of, secret_noise

_LEDGER = "spent"
_TRIES = 600


class PrivateVotes(Sidecar):
    """The teachers' noisy majority for each finding, and nothing else of what they say.

    Args:
        config: noise, budget and key.
        keys: of all samples of the dataset.
        identity: who is asked and how; decides the noise.

    Raises:
        ConfigurationError: the teachers do not know the same findings or weigh unlike, the key
            cannot be used, or what is asked exceeds the budget.
    """

    def __init__(
        self,
        config: PrivacyConfig,
        teachers: Sequence[Teacher],
        keys: Sequence[str],
        identity: Mapping[str, Any],
    ) -> None:
        _check_voters(teachers)
        self._config, self._identity = config, identity
        self._voters = len(teachers)
        self._names = sorted(each.trained.weights_sha256 for each in teachers)
        self._findings = len(teachers[0].findings or ())
        self._rule = VotingRule(config.noise, config.threshold, config.threshold_noise)
        images = len(keys) if config.images is None else config.images
        if images > len(keys):
            raise ConfigurationError(
                f"privacy.images is {images}, and the dataset has {len(keys)} samples. Lower it"
            )
        self._asked = choose_subset(keys, images, seed=0)
        self._query_number = images * self._findings
        # A link to a key shares the key's ledger.
        self._key = Path(config.key).resolve()
        self._ledger = self._key.with_name(f"{self._key.name}.{_LEDGER}.json")

    def check_budget(self) -> None:
        """Looks whether the budget allows every query to be answered.

        Raises:
            ConfigurationError: it does not; says how many images it allows. Or the key cannot be
                used.
            DatasetError: the ledger is damaged.
        """
        spent = self._read()
        others = self._of_same_teachers(spent)
        needed = self._epsilon(others, self._query_number)
        if self._name() not in spent and needed > self._config.epsilon:
            raise self._beyond(others, needed)

    def reserve(self) -> None:
        """Counts every query as answered, before the first is asked; once for the same output.

        Raises:
            ConfigurationError: as ``check_budget``, or the key cannot be used.
            DatasetError: likewise.
        """
        make_key(self._key)
        with _locked(self._ledger):
            self.check_budget()
            self._write(self._query_number)

    def require_counted(self) -> None:
        """Refuses to answer queries that the ledger does not count as asked under this key.

        Raises:
            DatasetError: it does not, or is damaged.
            ConfigurationError: the key cannot be used.
        """
        if self._name() not in self._read():
            raise DatasetError(
                f"{self._ledger}: does not count these queries under this key, whose noise would "
                "be new. Restore both, or teach into a new --output"
            )

    def settle(self, answered: int) -> dict[str, Any]:
        """Counts what was answered in fact, and returns what a manifest says of privacy."""
        with _locked(self._ledger):
            self._write(answered)
            spent = self._read()
        mine = self._epsilon([], answered)
        together = self._epsilon(self._of_same_teachers(spent), answered)
        say(
            f"teach: {answered} of {self._query_number} queries answered: ε = {mine:.3g} at "
            f"δ = {self._config.delta:g}; with what these teachers answered before, {together:.3g}"
        )
        return {
            "mechanism": "PATE, Gaussian noise on counts, Rényi accountant",
            **asdict(self._rule),
            "voters": self._voters,
            "asked": self._query_number,
            "answered": answered,
            "epsilon": mine,
            "epsilon_with_earlier": together,
            "delta": self._config.delta,
        }

    def answer(self, how: ShardTeaching, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns the votes for each finding, float32 (N, K)."""
        with torch.inference_mode():
            order = how.teachers[0].findings or ()
            votes = image.new_zeros(len(image), len(order))
            for teacher in how.teachers:
                columns = [(teacher.findings or ()).index(name) for name in order]
                views = torch.stack(list(teacher.probabilities(image, how.autocast)))
                votes += above_half(views.mean(0)[:, columns])
            return (votes,)

    def encode(self, answer: Sequence[torch.Tensor], encoders: ThreadPoolExecutor) -> Taught:
        """Returns the votes of each sample."""
        return list(answer[0].numpy())

    def write(
        self,
        number: int,
        split: str,
        samples: Iterator[tuple[str, np.ndarray]],
        folder: Path,
        staging: Path,
    ) -> dict[str, Any]:
        """Writes one table of answers; the votes themselves are written nowhere."""
        rows = list(samples)  # none of an empty shard
        keys, votes = [key for key, _ in rows], [each for _, each in rows]
        noise = secret_noise(read_key(self._key), self._identity, keys, self._findings)
        answers = self._rule.answer(np.reshape(votes, (-1, self._findings)), self._voters, noise)
        answers[[key not in self._asked for key in keys]] = np.nan
        path = folder / f"pseudo-{number:06d}.parquet"
        entry = write_sidecar(path, split, keys, answers, np.zeros_like(answers), staging)
        return {"entry": asdict(entry), "answered": int((~np.isnan(answers)).sum())}

    def _name(self) -> str:
        """Names what is asked, and the key: under another one the same is asked anew."""
        if not self._key.exists():
            return ""
        asked = value_sha256(self._identity).encode()
        return hmac.digest(read_key(self._key), asked, "sha256").hex()[:32]

    def _write(self, answered: int) -> None:
        entry = {
            "teachers": self._names,
            "rule": asdict(self._rule),
            "asked": self._query_number,
            "answered": answered,
        }
        write_json(self._ledger, self._read() | {self._name(): entry})

    def _read(self) -> dict[str, Any]:
        return read_json(self._ledger, "ledger of queries") if self._ledger.exists() else {}

    def _of_same_teachers(self, spent: Mapping[str, Any]) -> list[Spending]:
        """Returns what was asked before of any of these teachers."""
        try:
            found = {name: (_spending(entry), entry["teachers"]) for name, entry in spent.items()}
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{self._ledger}: is no ledger of queries ({error}). Restore it: without it nobody "
                "knows what was asked before"
            ) from None
        mine = self._name()
        return [
            spending
            for name, (spending, teachers) in found.items()
            if name != mine and set(teachers) & set(self._names)
        ]

    def _epsilon(self, others: Sequence[Spending], answered: int) -> float:
        asked = max(self._query_number, answered)
        return epsilon_of([*others, Spending(self._rule, asked, answered)], self._config.delta)

    def _beyond(self, others: Sequence[Spending], needed: float) -> ConfigurationError:
        """The error of a budget that is too small, with the number of images that it allows."""
        least, most = 0, len(self._asked)  # allowed, and not
        while most - least > 1:
            middle = (least + most) // 2
            queries = middle * self._findings
            spending = Spending(self._rule, queries, queries)
            within = epsilon_of([*others, spending], self._config.delta) <= self._config.epsilon
            least, most = (middle, most) if within else (least, middle)
        return ConfigurationError(
            f"privacy: {self._query_number} queries ({len(self._asked)} images of "
            f"{self._findings} findings) may cost ε = {needed:.3g} at δ = {self._config.delta:g}"
            f"{', with what was asked before' if others else ''}, and the budget is "
            f"{self._config.epsilon:g}; it allows {least} images. Set privacy.images to that, or "
            "more noise, which needs more teachers"
        )


def _spending(entry: Mapping[str, Any]) -> Spending:
    """Reads an entry of the ledger, of which a wrong number would allow more than the budget."""
    found = Spending(VotingRule(**entry["rule"]), entry["asked"], entry["answered"])
    noises = found.rule.noise, found.rule.threshold_noise or found.rule.noise
    if not (
        0 <= found.answered <= found.asked
        and all(0 < noise <= LARGEST_FACTOR for noise in noises)
        and isinstance(entry["teachers"], list)
        and entry["teachers"]
    ):
        raise ValueError("an entry is not as teach writes it")
    return found


def _check_voters(teachers: Sequence[Teacher]) -> None:
    known = {frozenset(each.findings or ()) for each in teachers}
    if known == {frozenset()}:
        raise ConfigurationError(
            "privacy: each pixel of a mask would be a query, which no budget allows; it is for "
            "teachers that classify"
        )
    if len(known) > 1:
        raise ConfigurationError(
            "privacy: the teachers know different findings, and each has to vote on all; name "
            "teachers of one vocabulary"
        )
    if len({each.trained.weights_sha256 for each in teachers}) < len(teachers):
        raise ConfigurationError(
            "privacy: a teacher is there twice; each hospital has one vote, else its weight in "
            "the count is more than the accountant reckons with"
        )
    if len({each.weight for each in teachers}) > 1:
        raise ConfigurationError("privacy: the teachers have weights, and each has one vote")


@contextlib.contextmanager
def _locked(ledger: Path) -> Iterator[None]:
    """Holds the ledger's lock, waiting for whoever has it.

    Raises:
        DatasetError: it is held for longer than anybody needs it.
    """
    ledger.parent.mkdir(parents=True, exist_ok=True)
    lock = ledger.with_name(f".{ledger.name}.lock")
    for _ in range(_TRIES):
        with hold_lock(lock) as held:
            if held:
                yield
                return
        time.sleep(0.1)
    raise DatasetError(f"{lock}: another process holds it for a minute. End it, and start again")
