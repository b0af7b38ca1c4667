"""A stand-in of W&B's server on loopback: runs, their file stream, artifacts and alerts.

It answers what wandb asks by GraphQL and by its file stream in the fields wandb reads, and keeps
what it is told. It does not check who asks, and does not compute anything from history.
"""

import gzip
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

API_KEY = "a1" * 20
_STREAM = re.compile(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream")


@dataclass
class StoredRun:
    """What the server knows of a run."""

    settings: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    logged: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    preempting: bool = False
    inserted: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its rows, as they were sent."""
        return [json.loads(self.lines[number]) for number in sorted(self.lines)]


class WandbServer(ThreadingHTTPServer):
    """Keeps runs by id."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: list[dict[str, Any]] = []
        self.questions: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of wandb's processes that end in the middle of a question."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answers a GraphQL question by its operation's name."""
        text, given = question["query"], question.get("variables") or {}
        found = re.search(r"(?:query|mutation)\s+(\w+)", text)
        name = question.get("operationName") or (found.group(1) if found else "")
        self.questions.append(name)
        reply = getattr(self, f"_{name}", None)
        return {"data": reply(given) if reply else {}}

    def _Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": "team"}}]}
        names = {"id": "u", "entity": "team", "username": "user", "email": "", "flags": "{}"}
        return {"viewer": {**names, "teams": teams}}

    _GetDefaultEntity = _Viewer

    def _RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        bucket = run and {
            "id": given["name"],
            "name": given["name"],
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.settings.get("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.lines),
            "eventsLineCount": 0,
            "historyTail": json.dumps([run.lines[max(run.lines)]] if run.lines else []),
            "eventsTail": "[]",
            "config": json.dumps(run.config),
            "tags": run.settings.get("tags") or [],
            "notes": None,
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {
            "model": {"id": "p", "name": given["project"], "entity": _team(given), "bucket": bucket}
        }

    def _UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        known = given["name"] in self.runs
        run = self.runs.setdefault(given["name"], StoredRun())
        run.settings |= {key: value for key, value in given.items() if value is not None}
        run.config |= json.loads(given.get("config") or "{}")
        run.inserted += not known
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": run.settings.get("displayName"),
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": run.settings.get("sweep"),
            "project": {"id": "p", "name": given["project"], "entity": _team(given)},
            "historyLineCount": len(run.lines),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": not known}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/storage/{given['run']}/{name}"}
            for name in given["files"]
        ]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": None}

    def _CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given["input"]
        name = asked.get("artifactCollectionName") or asked["artifactCollectionNames"][0]
        same = name, asked["digest"]
        known = self.artifacts.get(same)
        stored = self.artifacts.setdefault(
            same, {"id": f"artifact-{len(self.artifacts)}", "name": name, **asked}
        )
        if asked["runName"]:  # none of one that is only used
            self.runs[asked["runName"]].logged.append(name)
        latest = {"id": stored["id"], "versionIndex": 0} if known else None
        return {
            "createArtifact": {
                "artifact": {
                    "id": stored["id"],
                    "state": "COMMITTED" if known else "PENDING",
                    "artifactSequence": {"id": name, "latestArtifact": latest},
                }
            }
        }

    def _CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = [
            {
                "node": {
                    "id": asked["name"],
                    "name": asked["name"],
                    "displayName": asked["name"],
                    "uploadUrl": f"{self.url}/storage/{asked['artifactID']}/{asked['name']}",
                    "uploadHeaders": [],
                    "storagePath": f"{asked['artifactID']}/{asked['name']}",
                    "uploadMultipartUrls": None,
                    "artifact": {"id": asked["artifactID"]},
                }
            }
            for asked in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        file = {
            "id": "file",
            "name": given["name"],
            "uploadUrl": f"{self.url}/storage/{given['artifactID']}/{given['name']}",
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}

    def _UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.url}/storage/{given['artifactManifestID']}"
        file = {"id": "file", "name": "manifest", "uploadUrl": url, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": "manifest", "file": file}}}

    def _CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": "0" * 32}}}

    def _UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:
        asked = given["input"]
        names = {each["id"]: each["name"] for each in self.artifacts.values()}
        self.runs[asked["runName"]].used.append(names[asked["artifactID"]])
        return {"useArtifact": {"artifact": {"id": asked["artifactID"]}}}

    def _UpsertView2(self, given: dict[str, Any]) -> dict[str, Any]:
        self.views.append({**given, "spec": json.loads(given["spec"])})
        return {"upsertView": {"view": {"id": "v", "name": given["name"]}, "inserted": True}}

    def _NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:
        self.runs[given["runName"]].alerts.append((given["title"], given["text"]))
        return {"notifyScriptableRunAlert": {"success": True}}


def _team(given: dict[str, Any]) -> dict[str, str]:
    return {"id": "e", "name": given.get("entity") or "team"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({})

    def do_PUT(self) -> None:
        self.server.uploads[unquote(self.path)] = self._body()
        self._reply({})

    def do_POST(self) -> None:
        body, stream = self._body(), _STREAM.fullmatch(self.path)
        with self.server.lock:
            if stream:
                self._take(self.server.runs[stream.group(3)], json.loads(body))
            is_question = self.path.endswith("/graphql")
            self._reply(self.server.answer(json.loads(body)) if is_question else {})

    def _take(self, run: StoredRun, body: dict[str, Any]) -> None:
        for name, part in body.get("files", {}).items():
            if name == "wandb-history.jsonl":
                for number, line in enumerate(part["content"], part["offset"]):
                    run.lines[number] = line
            if name == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        if body.get("complete"):
            run.exit_code = body.get("exitcode")
        run.preempting |= bool(body.get("preempting"))

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _reply(self, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[WandbServer]:
    """Runs a server until the end of the block."""
    server = WandbServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
