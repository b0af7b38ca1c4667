"""The routes of the page: one line each. Every one is read-only."""

from nakt_dist.watch.api import curves, last_lines, settings, study
from nakt_dist.watch.web import Handler, asset

ROUTES: dict[str, Handler] = {
    "/": asset("watch.html"),
    "/assets/watch.css": asset("watch.css"),
    "/assets/watch.js": asset("watch.js"),
    "/api/study": study,
    "/api/curves": curves,
    "/api/settings": settings,
    "/api/log": last_lines,
}
"""By path, without the prefix of a proxy."""
