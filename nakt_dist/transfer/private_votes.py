"""Teachers vote in private: PATE with its confident variant, finding by finding.

Papernot and others, Semi-supervised Knowledge Transfer for Deep Learning from Private Training Data
(2017), and Scalable Private Learning with PATE (2018), algorithm 1 (Confident-GNMax). There one
query asks for one of many classes; here it asks whether a finding is present, so that a hospital
that changes its vote changes the count by one, and Gaussian noise of deviation σ is worth a noise
multiplier of σ.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nakt_dist.errors import ConfigurationError


@dataclass(frozen=True)
class VotingRule:
    """What is asked, and how much noise hides who answered.

    Attributes:
        noise: σ of the noise on the count of an answer, in votes.
        threshold: fewest votes of the majority, after noise, with which a query is answered; None
            answers all.
        threshold_noise: σ of that comparison's noise, in votes.
    """

    noise: float
    threshold: float | None = None
    threshold_noise: float | None = None

    def answer(self, votes: np.ndarray, voters: int, noise: np.ndarray) -> np.ndarray:
        """Answers queries.

        Args:
            votes: (...,), how many of the teachers see the finding.
            noise: float64 (2, ...), standard normal: of the comparison and of the answer.

        Returns:
            float32 of the shape of ``votes``: 1 present, 0 absent, NaN not answered.
        """
        answered = np.ones(votes.shape, bool)
        if self.threshold is not None:
            majority = np.maximum(votes, voters - votes)
            answered = majority + (self.threshold_noise or 0) * noise[0] >= self.threshold
        present = votes + self.noise * noise[1] > voters / 2
        return np.where(answered, present, np.nan).astype(np.float32)


@dataclass(frozen=True)
class Spending:
    """How often teachers were asked under one rule.

    Attributes:
        asked: queries, each of which is compared with the threshold if there is one.
    """

    rule: VotingRule
    asked: int
    answered: int


def epsilon_of(spendings: Iterable[Spending], delta: float) -> float:
    """Returns the ε of all of them together, for a δ.

    Rényi differential privacy of Gaussian mechanisms of sensitivity 1, composed and converted by
    Google's dp-accounting; it does not depend on how the votes fell, so that it may be published.

    Raises:
        ConfigurationError: the accountant is not installed.
    """
    try:
        from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise ConfigurationError(
            f"privacy needs the accountant of dp-accounting, which is not installed ({error}). "
            "Install it: pip install 'nakt_dist[private]'"
        ) from None

    accountant = RdpAccountant()
    for each in spendings:
        if each.rule.threshold_noise is not None and each.asked:
            event = GaussianDpEvent(each.rule.threshold_noise)
            accountant.compose(SelfComposedDpEvent(event, each.asked))
        if each.answered:
            accountant.compose(SelfComposedDpEvent(GaussianDpEvent(each.rule.noise), each.answered))
    return float(accountant.get_epsilon(delta))


def secret_noise(
    key: bytes, query: Mapping[str, Any], samples: Sequence[str], findings: int
) -> np.ndarray:
    """Returns the noise of each query, the same whenever it is asked again.

    A query that was answered before a kill gets the same answer after it: noise that was drawn
    anew would, averaged, tell the votes.

    Args:
        key: 32 secret bytes; whoever has them can take the noise away.
        query: who is asked and how; another teacher or rule gets noise of its own, since the
            difference of two counts under one noise would be exact.
        samples: keys of N images.
        findings: K.

    Returns:
        float64 (2, N, K), standard normal.
    """
    about = json.dumps(query, sort_keys=True)
    noise = np.empty((2, len(samples), findings))
    for row, sample in enumerate(samples):
        seed = hmac.digest(key, f"{about}\0{sample}".encode(), hashlib.sha256)
        words = np.frombuffer(seed, np.uint64)
        generator = np.random.Generator(np.random.Philox(key=words[:2], counter=[0, 0, *words[2:]]))
        noise[:, row] = generator.standard_normal((2, findings))
    return noise
