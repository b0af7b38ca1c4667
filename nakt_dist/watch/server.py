"""Serves the page on loopback: known names only, read only, and nothing for other web pages."""

import gzip
import hashlib
import hmac
import socket
import sys
import urllib.parse
from collections.abc import Mapping
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nakt_dist.config.watching import WatchConfig
from nakt_dist.errors import NaktError
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.routes import ROUTES
from nakt_dist.watch.web import Handler, NotFound, Request, Response, json_response

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_IDLE_SECONDS = 60
_WORTH_PACKING = 2048


class WatchServer(ThreadingHTTPServer):
    """Answers requests for the page of a collector.

    Args:
        config: host, port and what may be shown.
        collector: refreshed by whoever made it.
        token: what each request must bring: as ``?token=`` of the first, as the cookie that it
            is answered with, or as ``Authorization: Bearer``. None asks for none.

    Raises:
        NaktError: no port is free.
    """

    daemon_threads = True
    routes: Mapping[str, Handler] = ROUTES
    """By path."""

    def __init__(self, config: WatchConfig, collector: Collector, token: str | None = None) -> None:
        self.config, self.collector, self.token = config, collector, token
        # Of its own for each key: cookies do not tell ports, and so tunnels, apart.
        self.cookie = f"nakt_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"
        self.hosts = frozenset((*_LOOPBACK, *(host.lower() for host in config.hosts)))
        if ":" in config.host:
            self.address_family = socket.AF_INET6
        for port in [config.port] if config.port == 0 else range(config.port, config.port + 20):
            try:
                super().__init__((config.host, port), _Connection)
            except OSError as error:
                reason = error
            else:
                return
        raise NaktError(
            f"no port from {config.port} on is free at {config.host}: {reason}. Set another --port"
        )

    @property
    def url(self) -> str:
        """The address of the page, with the token where one is asked for."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        words = f"?token={self.token}" if self.token else ""
        return f"http://{host}:{self.server_address[1]}{self.config.prefix}/{words}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says what went wrong in one line; a browser that went away is nothing to tell."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"nakt watch: {type(error).__name__}: {error}", file=sys.stderr)


class _Connection(BaseHTTPRequestHandler):
    server: WatchServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "nakt", ""
    timeout = _IDLE_SECONDS

    def do_GET(self) -> None:
        path, _, words = self.path.partition("?")
        if self._host() not in self.server.hosts:
            self._refuse(421, "this page answers to loopback's names only (setting hosts)")
            return
        query = _query(words)
        if not self._is_admitted(query):
            self._refuse(401, "open the address that nakt watch printed, with its token")
            return
        prefix = self.server.config.prefix
        path = path.removeprefix(prefix) if path.startswith(f"{prefix}/") else path
        handler = self.server.routes.get(path)
        if handler is None:
            self._refuse(404, "there is no such page")
            return
        self._send(self._answer(handler, query), "token" in query)

    do_HEAD = do_GET

    def _refuse_method(self) -> None:
        self.close_connection = True  # what is sent along is not read
        self._refuse(405, "this page can only be read")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def _host(self) -> str:
        name = self.headers.get("Host", "").strip().lower()
        return name if name.endswith("]") else name.rpartition(":")[0] or name

    def _is_admitted(self, query: Mapping[str, str]) -> bool:
        token = self.server.token
        if token is None:
            return True
        brought = [query.get("token", "")]
        brought.append(self.headers.get("Authorization", "").removeprefix("Bearer "))
        try:
            morsel = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            morsel = None
        brought.append(morsel.value if morsel is not None else "")
        return any(hmac.compare_digest(each.encode(), token.encode()) for each in brought)

    def _answer(self, handler: Handler, query: Mapping[str, str]) -> Response:
        try:
            return handler(Request(query, self.server.collector, self.server.config))
        except NotFound as error:
            return json_response({"error": str(error)}, 404)
        except NaktError as error:
            return json_response({"error": str(error)}, 400)
        except Exception as error:  # a fault of ours must not end the page
            print(f"nakt watch: {self.path.split('?')[0]}: {error!r}", file=sys.stderr)
            return json_response({"error": f"failed: {type(error).__name__}"}, 500)

    def _refuse(self, status: int, words: str) -> None:
        self._send(Response(f"{words}\n".encode(), "text/plain; charset=utf-8", status))

    def _send(self, response: Response, remember: bool = False) -> None:
        body = response.body
        self.send_response(HTTPStatus(response.status))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if response.status == 405:
            self.send_header("Allow", "GET, HEAD")
        if remember and self.server.token:
            name, token = self.server.cookie, self.server.token
            cookie = f"{name}={token}; HttpOnly; SameSite=Strict; Path=/"
            self.send_header("Set-Cookie", cookie)
        if len(body) > _WORTH_PACKING and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: requests are no news."""


def _query(words: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(words, max_num_fields=64))
    except ValueError:
        return {}
