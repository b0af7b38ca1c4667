"""What a route is: a function from a request to a response. Nothing here writes or opens a path."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from nakt_dist.config.watching import WatchConfig
from nakt_dist.errors import NaktError
from nakt_dist.watch.collector import Collector

_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class NotFound(NaktError):
    """What was asked for is not known; answered with 404."""


@dataclass(frozen=True)
class Request:
    """What a browser, or a monitoring system, asks for.

    Attributes:
        query: the values after ``?`` by name, the last one of each; never to be used as paths.
        collector: what is known of the runs.
        config: the settings of this ``nakt watch``.
    """

    query: Mapping[str, str]
    collector: Collector
    config: WatchConfig

    def number(self, name: str, default: int) -> int:
        """Returns a whole number of the query.

        Raises:
            NaktError: it is none; answered with 400.
        """
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 15:
            raise NaktError(f"{name} must be a whole number, 0 or more")
        return int(text)


@dataclass(frozen=True)
class Response:
    """An answer; the server adds the headers that keep the page safe."""

    body: bytes
    content_type: str
    status: int = 200


Handler = Callable[[Request], Response]


def json_response(value: Any, status: int = 200) -> Response:
    """Returns a value as JSON, numbers that are not finite as null."""
    body = json.dumps(finite(value), separators=(",", ":"), allow_nan=False).encode()
    return Response(body, "application/json", status)


def finite(value: Any) -> Any:
    """Replaces numbers that JSON does not know by None, however deep."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def asset(name: str) -> Handler:
    """Returns a route that serves one file of this package's ``watch/assets``.

    Args:
        name: of the file; its ending says what it is: html, css, js or svg.
    """
    body = resources.files(__package__).joinpath("assets", name).read_bytes()
    response = Response(body, _KINDS[name.rsplit(".", 1)[-1]])
    return lambda request: response
