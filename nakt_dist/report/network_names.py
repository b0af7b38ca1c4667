"""The names of networks as tables show them."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from nakt_dist.records.fields import printable, read_field, read_if_there
from nakt_dist.report.paper import NETWORKS


@dataclass(frozen=True)
class NetworkName:
    """A network as tables show it.

    Attributes:
        label: the paper's name, or ours, with the options that differ from its defaults.
        paper_name: the paper's name of the architecture, or None.
        encoder: name of the encoder, where an option names one.
    """

    label: str
    paper_name: str | None
    encoder: str | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Sorts the papers' networks first, in their order."""
        names = list(NETWORKS.values())
        return (names.index(self.paper_name) if self.paper_name else len(names), self.label)


def name_network(model: Mapping[str, Any], without: Container[str] = ()) -> NetworkName:
    """Names the network that a record describes.

    Args:
        model: its ``name`` and ``options``.
        without: options that are no part of the name.

    Raises:
        DatasetError: a field is missing or wrong; names it.
    """
    name = printable(read_field(model, "name", str))
    given = read_if_there(model, "options", Mapping) or {}
    options = {k: v for k, v in sorted(given.items()) if v is not None and k not in without}
    encoder = options.pop("encoder_name", None)
    words = [] if encoder is None else [str(encoder)]
    words += [f"{key}={value}" for key, value in options.items()]
    label = NETWORKS.get(name, name.removeprefix("timm:"))
    label += f" ({', '.join(words)})" if words else ""
    return NetworkName(
        label=printable(label),
        paper_name=NETWORKS.get(name),
        encoder=None if encoder is None else printable(str(encoder)),
    )
