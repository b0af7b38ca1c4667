import http.client
import json
import threading
from collections.abc import Iterator

import pytest

from nakt_dist.config import WatchConfig
from nakt_dist.studies.folder import PlannedRun
from nakt_dist.watch.collector import Collector
from nakt_dist.watch.routes import ROUTES
from nakt_dist.watch.server import WatchServer
from tests.watch.writing import Executor, append, learning_lines

TOKEN = "5ec2e7"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchServer]:
    root = tmp_path_factory.mktemp("study")
    runs = [PlannedRun("runs/<b>a</b>", "train", 1, "train", {"seed": "0"}, "x")]
    executor = Executor(root, runs)
    executor.start("runs/<b>a</b>")
    append(executor.folder("runs/<b>a</b>") / "metrics.jsonl", learning_lines("0", 40))
    executor.print("runs/<b>a</b>", "\x1b[31mred")
    collector = Collector([root])
    collector.refresh(whole=True)
    config = WatchConfig([str(root)], port=0, prefix="/node/8377", hosts=["gate.example"])
    with WatchServer(config, collector, TOKEN) as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        made.shutdown()


def ask(
    server: WatchServer, path: str, method: str = "GET", token: bool = True, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    if token:
        headers.setdefault("Authorization", f"Bearer {TOKEN}")
    link.request(method, path, headers=headers)
    answer = link.getresponse()
    body = answer.read()
    link.close()
    return answer, body


def test_the_page_may_load_nothing_from_elsewhere_and_stands_in_no_frame(server) -> None:
    for path in ROUTES:
        answer, _ = ask(server, path)
        assert answer.status in (200, 400), path
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8377", 200), ("localhost:1", 200), ("[::1]:8377", 200), ("localhost", 200),
        ("gate.example", 200), ("evil.example", 421), ("127.0.0.1.evil.example:80", 421),
        ("", 421), ("localhost@evil.example", 421),
    ],
)  # fmt: skip
def test_names_that_are_not_loopbacks_are_refused(server, host: str, status: int) -> None:
    assert ask(server, "/api/study", Host=host)[0].status == status


def test_without_the_token_nothing_is_told(server) -> None:
    for path in ("/", "/api/study", "/assets/watch.js", "/absent", "/?token=5ec2e", "/?token=é"):
        answer, body = ask(server, path.replace("é", "%C3%A9"), token=False)
        assert answer.status == 401 and b"token" in body and b"<b>" not in body
    answer, _ = ask(server, f"/?token={TOKEN}", token=False)
    cookie = answer.headers["Set-Cookie"]
    assert answer.status == 200 and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert ask(server, "/", token=False, Cookie=cookie.split(";")[0])[0].status == 200
    assert ask(server, "/", token=False, Cookie=f"{server.cookie}=no")[0].status == 401


@pytest.mark.parametrize(
    "path",
    [
        "/absent", "/assets/", "/assets/../server.py", "/assets/%2e%2e/server.py", "//etc/passwd",
        "/../../etc/passwd", "/assets/watch.js/", "/node/8377", "http://127.0.0.1/absent",
    ],
)  # fmt: skip
def test_paths_that_are_no_routes_are_not_found(server, path: str) -> None:
    assert ask(server, path)[0].status == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/study?since=-1", 400), ("/api/study?since=x", 400), ("/api/study?since=²", 400),
        ("/api/curves?ids=../../etc", 404), ("/api/settings?ids=000000000000", 404),
        ("/api/log?ids=a,b", 404), ("/api/curves", 200), ("/api/study?" + "a=1&" * 500, 200),
    ],
)  # fmt: skip
def test_queries_that_make_no_sense_are_answered_in_words(server, path: str, status: int) -> None:
    answer, body = ask(server, path.replace("²", "%C2%B2"))
    assert answer.status == status and isinstance(json.loads(body), dict)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(server, method: str) -> None:
    answer, _ = ask(server, "/api/study", method)
    assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"


def test_head_has_no_body_and_a_prefix_is_taken_off(server) -> None:
    answer, body = ask(server, "/node/8377/api/study", "HEAD")
    assert answer.status == 200 and body == b"" and int(answer.headers["Content-Length"]) > 100


def test_what_is_told_is_json_that_browsers_read_and_names_no_folder_of_the_machine(server) -> None:
    answer, body = ask(server, "/api/study")
    told = json.loads(body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    run = told["runs"][0]
    assert answer.headers["Content-Type"] == "application/json"
    assert run["name"] == "runs/<b>a</b>" and run["status"] == "running"
    assert str(server.collector.folders[0].parent) not in body.decode()
    curves = json.loads(ask(server, f"/api/curves?ids={run['id']}&metrics=loss")[1])
    assert list(curves[run["id"]]) == ["loss"] and curves[run["id"]]["loss"]["steps"][-1] == 40
    settings = json.loads(ask(server, f"/api/settings?ids={run['id']}")[1])
    assert settings[run["id"]]["recipe.global_batch_size"] == 16
    lines = json.loads(ask(server, f"/api/log?ids={run['id']}")[1])[run["id"]]
    assert lines[-1].endswith("[31mred") and "\x1b" not in lines[-1]


def test_an_answer_waits_for_news_and_tells_only_them(server) -> None:
    told = json.loads(ask(server, "/api/study")[1])
    path = f"/api/study?since={told['version']}&epoch={told['epoch']}&wait=10"
    answers: list[dict] = []
    waiting = threading.Thread(target=lambda: answers.append(json.loads(ask(server, path)[1])))
    waiting.start()
    name = told["runs"][0]["name"]
    append(server.collector.folders[0] / name / "metrics.jsonl", [{"step": 44, "loss": 0.1}])
    server.collector.refresh()
    waiting.join(10)
    assert [each["done_steps"] for each in answers[0]["runs"]] == [44]
    assert answers[0]["version"] > told["version"]


def test_a_fault_of_ours_ends_no_more_than_the_answer(server, capfd) -> None:
    server.routes = {**ROUTES, "/fault": lambda request: 1 / 0}
    answer, body = ask(server, "/fault")
    server.routes = ROUTES
    assert answer.status == 500 and json.loads(body) == {"error": "failed: ZeroDivisionError"}
    assert ask(server, "/api/study")[0].status == 200


def test_a_port_that_is_taken_gives_way_to_the_next(server) -> None:
    taken = server.server_address[1]
    config = WatchConfig(["x"], port=taken)
    with WatchServer(config, server.collector) as other:
        assert other.server_address[1] > taken
