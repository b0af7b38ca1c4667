"""Settings of ``doctor``."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nakt_dist import limits
from nakt_dist.limits import Limited


@dataclass(frozen=True)
class DoctorConfig(Limited):
    """``nakt doctor [STAGE SETTINGS…]``: what a launch resolves to, and what is wrong with it.

    Settings of its own stand before the stage, with ``=``: ``nakt doctor --wait_seconds=10 train
    --config FILE``.

    Attributes:
        stage: the stage that would be started; None looks at the machines alone.
        settings: the words that would follow it.
        wait_seconds: how long the first process of a launch, when it is ready, waits for the
            others, and how long the others wait for it to be there.
    """

    stage: str | None = None
    settings: list[str] = field(default_factory=list)
    wait_seconds: float = field(default=60.0, metadata=limits.SECONDS)


def name_stage(words: Sequence[str]) -> list[str]:
    """Names the first word without a dash as the stage, and all behind it as its settings.

    ``--`` between the two, as ``nakt submit`` wants it, is understood.
    """
    first = next((n for n, word in enumerate(words) if not word.startswith("-")), None)
    if first is None:
        return list(words)
    own, rest = words[:first], list(words[first + 1 :])
    if rest[:1] == ["--"]:
        del rest[0]
    return [*own, f"--stage={words[first]}", "--", *rest]
