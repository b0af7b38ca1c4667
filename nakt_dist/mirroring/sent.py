"""What a mirror has sent already: a file per run and target."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import read_json, value_sha256, write_json

_FORMAT = "nakt-mirror/1"
_MOST_BYTES = 2**20


@dataclass(frozen=True)
class Sent:
    """What of a run has been sent.

    Attributes:
        run_id: by which the target knows it.
        step: the last; -1 where none was.
        signature: of the run's files, and of how they were shown.
        told: alerts that were sent.
        history: fingerprint of the steps that were, where the target needs it.
    """

    run_id: str
    step: int = -1
    signature: str = ""
    told: tuple[str, ...] = ()
    history: str = ""


class SentFiles:
    """Keeps what was sent.

    Args:
        destination: where to, such as the project; what was sent elsewhere counts as not sent.
    """

    def __init__(self, folder: Path, destination: dict[str, Any]) -> None:
        self._folder = folder
        self._destination = destination
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, place: str) -> Path:
        return self._folder / f"{value_sha256(place)[:16]}.json"

    def read(self, place: str) -> Sent | None:
        """Returns what was sent of the run at a place; None where nothing was, or it is damaged."""
        try:
            value = read_json(self._path(place), "state of a mirror", _MOST_BYTES)
            if (value["format"], value["destination"]) != (_FORMAT, self._destination):
                return None
            known = {each.name: value[each.name] for each in fields(Sent)}
            return Sent(**{**known, "told": tuple(known["told"])})
        except (DatasetError, KeyError, TypeError):
            return None

    def write(self, place: str, sent: Sent) -> None:
        """Notes what was sent, once it was."""
        value = {"format": _FORMAT, "destination": self._destination, "place": place}
        write_json(self._path(place), {**value, **asdict(sent)})
