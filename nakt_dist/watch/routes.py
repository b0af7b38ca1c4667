"""The routes of the page: one line each. Every one is read-only."""

from nakt_dist.watch.api import curves, last_lines, settings, study
from nakt_dist.watch.explorer import pseudo_image, pseudo_sets, pseudo_statistics
from nakt_dist.watch.prometheus import metrics
from nakt_dist.watch.web import Handler, asset

_ASSETS = (
    "watch.css", "watch.js", "store.js", "dom.js", "study.js", "graph.js", "curves.js",
    "charts.js", "runs.js",
)  # fmt: skip

ROUTES: dict[str, Handler] = {
    "/": asset("watch.html"),
    **{f"/assets/{name}": asset(name) for name in _ASSETS},
    "/api/study": study,
    "/api/curves": curves,
    "/api/settings": settings,
    "/api/log": last_lines,
    "/explore": asset("explorer.html"),
    "/assets/explorer.css": asset("explorer.css"),
    "/assets/explorer.js": asset("explorer.js"),
    "/assets/explorer_plots.js": asset("explorer_plots.js"),
    "/assets/explorer_rule.js": asset("explorer_rule.js"),
    "/api/pseudo-sets": pseudo_sets,
    "/api/pseudo-statistics": pseudo_statistics,
    "/api/pseudo-image": pseudo_image,
    "/metrics": metrics,
}
"""By path, without the prefix of a proxy."""
