"""What the page asks for, as JSON. Runs are named by the ids that the collector gave them."""

import time
from dataclasses import asdict, fields
from typing import Any

from nakt_dist.watch.snapshot import RunSnapshot
from nakt_dist.watch.summary import summarise
from nakt_dist.watch.web import NotFound, Request, Response, json_response

_LONGEST_WAIT = 25
_MOST_CURVES = 400
_LEFT_OUT = ("root", "folder", "name")
_SHOWN = tuple(each.name for each in fields(RunSnapshot) if each.name not in _LEFT_OUT)


def study(request: Request) -> Response:
    """``/api/study?since=N&epoch=E&wait=S``: the runs that changed after version N.

    Waits up to S seconds, at most 25, until something has. With another collector's ``epoch``
    everything is sent.
    """
    collector = request.collector
    since = request.number("since", 0)
    if request.query.get("epoch") != collector.epoch:
        since = 0
    if since:
        collector.wait(since, min(request.number("wait", 0), _LONGEST_WAIT))
    version, now = collector.version, time.time()
    summary = summarise(collector.snapshots(), now, request.config.price_per_process_hour)
    return json_response(
        {
            "epoch": collector.epoch,
            "version": version,
            "since": since,
            "now": now,
            "unread": collector.unread,
            "studies": [{"name": plan.name, "runs": len(plan.runs)} for plan in collector.plans],
            "folders": [folder.name for folder in collector.folders],
            "problems": collector.problems,
            "summary": asdict(summary),
            "cautions": collector.judge.cautions,
            "currency": request.config.currency,
            "runs": [_plain(each) for each in collector.snapshots(since)],
            "removed": collector.removed(since),
        }
    )


def curves(request: Request) -> Response:
    """``/api/curves?ids=A,B&metrics=loss``: steps and values, of at most 400 runs.

    Without ``metrics`` all of them.
    """
    ids = _ids(request)[:_MOST_CURVES]
    wanted = [name for name in request.query.get("metrics", "").split(",") if name]
    found: dict[str, Any] = {}
    for id in ids:
        every = request.collector.curves(id)
        found[id] = {
            name: {"steps": steps, "values": [_short(value) for value in values]}
            for name, (steps, values) in every.items()
            if not wanted or name in wanted
        }
    return json_response(found)


def settings(request: Request) -> Response:
    """``/api/settings?ids=A,B``: what runs were started with, nested names joined by dots."""
    ids = _ids(request)
    return json_response({id: _flat(request.collector.settings(id)) for id in ids[:50]})


def last_lines(request: Request) -> Response:
    """``/api/log?ids=A``: the last lines that runs printed."""
    return json_response({id: request.collector.last_lines(id, 40) for id in _ids(request)[:50]})


def _ids(request: Request) -> list[str]:
    ids = [id for id in request.query.get("ids", "").split(",") if id]
    if any(request.collector.get(id) is None for id in ids):
        raise NotFound("there is no such run; it may have been removed")
    return ids


def _plain(snapshot: RunSnapshot) -> dict[str, Any]:
    plain = {name: getattr(snapshot, name) for name in _SHOWN}
    return {**plain, "name": snapshot.name}


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items: dict[str, Any] = {}
        for key, item in value.items():
            items |= _flat(item, f"{name}.{key}" if name else str(key))
        return items
    return {name: value} if name else {}
