"""Settings of ``watch``."""

import ipaddress
from dataclasses import dataclass, field

from nakt_dist import limits
from nakt_dist.limits import Limited, require


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class WatchConfig(Limited):
    """``nakt watch RUNS…``: one page, or a table, of runs while they go on, from files alone.

    Attributes:
        runs: folders that hold runs, at any depth; a study's root shows its plan as well.
        once: print a table and end, instead of serving the page.
        host: a loopback address; from elsewhere the page is reached through ``ssh -L``.
        port: 0 takes any that is free; one that is taken, the next that is free.
        token: ask for the key of the address that is printed, since other users of this machine
            reach loopback as well.
        images: let the page show images and keys of samples; without it there are numbers alone.
        refresh_seconds: between two looks at files that may have changed.
        price_per_process_hour: of one process for an hour; None shows hours alone.
        currency: what the price is in.
        prefix: path under which a proxy shows the page and which it leaves in place, such as
            ``/node/gpu01/8377``.
        hosts: further names under which a proxy asks for the page; else loopback's alone.
    """

    runs: list[str] = field(metadata=limits.limit("at least one folder", len))
    once: bool = False
    host: str = field(
        default="127.0.0.1",
        metadata=limits.limit(
            "a loopback address such as 127.0.0.1, not {value!r}: the page shows what is on this "
            "machine. From elsewhere use ssh -L 8377:127.0.0.1:8377 HOST",
            _is_loopback,
        ),
    )
    port: int = field(default=8377, metadata=limits.within(0, 65535, "0 to 65535"))
    token: bool = True
    images: bool = False
    refresh_seconds: float = field(
        default=1.0, metadata=limits.within(0.1, 3600, "from 0.1 to 3600")
    )
    price_per_process_hour: float | None = field(default=None, metadata=limits.NOT_NEGATIVE)
    currency: str = "EUR"
    prefix: str = ""
    hosts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.prefix or (self.prefix.startswith("/") and not self.prefix.endswith("/")),
            "prefix",
            "empty, or begin with / and end without, such as /node/gpu01/8377",
        )
