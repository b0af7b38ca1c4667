"""The errors a user can act on.

Every room may import this module and it imports nothing, so that one ``except``
in the command line turns each of them into a message without a traceback.
"""

import difflib
from collections.abc import Iterable


class NaktError(Exception):
    """Something the user can mend: the message names what was found, expected and to do."""


class ConfigurationError(NaktError):
    """A setting is unknown, missing or contradicts another."""


class DatasetError(NaktError):
    """A dataset on disk is absent, damaged, stale or not of the expected layout."""


class CheckpointError(NaktError):
    """Weights cannot be read, are not safe to read, or do not fit the network."""


class NotFinite(NaktError):
    """A loss, a gradient or a weight of a training is not a number."""


class StartAgain(NaktError):
    """The work had to stop; the same command goes on from the last checkpoint.

    The process leaves with the code on which a scheduler queues the job again.

    Attributes:
        alone: whether this process alone stopped, so that its peers would wait for it for ever and
            have to be ended.
    """

    alone = False


class UnusableSample(NaktError):
    """One sample cannot be used; it is set aside with this reason and the work goes on.

    Attributes:
        reason: short machine-readable code such as ``"truncated_image"``.
        detail: one sentence that says what was found and what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple:  # so that it crosses process boundaries whole
        return (type(self), (self.reason, self.detail))


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Returns ``", did you mean 'x'?"`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


def valid_unicode(name: str) -> str:
    """Returns a file name as valid Unicode: bytes that are not UTF-8 become ``\\udcXX``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
