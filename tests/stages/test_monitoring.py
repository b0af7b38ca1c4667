"""A real Prometheus scrapes ``nakt watch`` over a live folder, as ``docs/monitoring.md`` says.

Every query of the Grafana dashboard must return data. DCGM and SLURM are stood in for by a small
exporter of their metrics' names: that these names are right, this test does not show.
"""

import contextlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nakt_dist.loading.sampler import Share
from nakt_dist.runtime.processes import ProcessPlace
from nakt_dist.runtime.prometheus_text import Family, render
from nakt_dist.runtime.rank_textfile import RankTextfile
from nakt_dist.studies.folder import RunState, StudyFolder
from nakt_dist.training import pace as pace_module
from nakt_dist.training.pace import Pace
from tests.prometheus_format import read_metrics
from tests.unit.test_prometheus import write_study

MONITORING = Path(__file__).parents[2] / "launch" / "monitoring"
PROMETHEUS = shutil.which("prometheus")
GPU = "GPU-5ba1c0de-0000-0000-0000-000000000001"

pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus here"),
    pytest.mark.timeout(120),
]

STAND_IN = f"""\
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{{gpu="0",UUID="{GPU}",device="nvidia0",Hostname="n2"}} 87
# TYPE DCGM_FI_DEV_FB_USED gauge
DCGM_FI_DEV_FB_USED{{gpu="0",UUID="{GPU}",device="nvidia0",Hostname="n2"}} 5000
# TYPE DCGM_FI_DEV_POWER_USAGE gauge
DCGM_FI_DEV_POWER_USAGE{{gpu="0",UUID="{GPU}",device="nvidia0",Hostname="n2"}} 412.5
# TYPE DCGM_FI_PROF_PIPE_TENSOR_ACTIVE gauge
DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{gpu="0",UUID="{GPU}",device="nvidia0",Hostname="n2"}} 0.31
# TYPE slurm_queue_pending gauge
slurm_queue_pending 12
# TYPE slurm_queue_running gauge
slurm_queue_running 8
"""


@contextlib.contextmanager
def served(content: Callable[[], bytes]) -> Iterator[int]:
    class Exporter(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = content()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(10)


@contextlib.contextmanager
def process(words: list[str], **settings: Any) -> Iterator[subprocess.Popen]:
    started = subprocess.Popen(words, text=True, **settings)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def configuration(path: Path, key: Path, ports: dict[str, int]) -> Path:
    """Writes the repository's own configuration, with this test's ports, key and pace."""
    settings = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    settings["global"]["scrape_interval"] = "500ms"
    jobs = settings["scrape_configs"]
    assert [job["job_name"] for job in jobs] == [*ports]
    for job in jobs:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
    jobs[0]["authorization"]["credentials_file"] = str(key)
    path.write_text(yaml.safe_dump(settings))
    return path


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Returns the series of a query at this moment; none where it does not answer yet."""
        words = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self._address}/query?{words}", timeout=20) as answer:
            found = json.load(answer)
        assert found["status"] == "success"
        return found["data"]["result"]

    def until(self, query: str, seconds: float = 30) -> list[dict[str, Any]]:
        """Waits until a query returns data."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError):
                if found := self.ask(query):
                    return found
            assert time.monotonic() < end, f"no data for {query}"
            time.sleep(0.2)


def queries() -> list[str]:
    dashboard = json.loads((MONITORING / "grafana_dashboard.json").read_text())
    found = [each["expr"] for panel in dashboard["panels"] for each in panel.get("targets", ())]
    assert len(found) > 25
    return [
        query.replace("$__rate_interval", "10s").replace("$study", ".*").replace("$run", ".*")
        for query in found
    ]


def rank_files(folder: Path, root: Path) -> Callable[[], bytes]:
    """Lets a process of a run keep its file, and returns how the node exporter hands it on."""
    place = ProcessPlace()
    textfile = RankTextfile(folder, root / "runs" / "student", "train", place, GPU)
    share = Share(8, 1, 8)
    pace = Pace(torch.device("cpu"), share, root / "runs/student/checkpoints", None, textfile)
    pace.losses = {"loss": 0.5}
    steps = iter(range(1, 10**6))
    # What only a process with a GPU tells.
    memory = Family("nakt_rank_gpu_memory_bytes", "gauge", "GPU memory that the process holds")
    memory.add(5e9, textfile.labels)

    def scrape() -> bytes:
        step = next(steps)
        pace.add(step, 0.2, 0.05 * step)
        (path,) = folder.glob("*.prom")
        content = path.read_bytes()
        read_metrics(content)
        return content + render([memory])

    return scrape


def grow(path: Path, stop: threading.Event) -> None:
    for step in range(4, 10**6):
        with path.open("a") as stream:
            stream.write(
                json.dumps({"step": step, "loss": 1 / step, "validation_dice": 0.5}) + "\n"
            )
        if stop.wait(0.3):
            return


def test_a_real_prometheus_scrapes_a_live_study_and_every_query_of_the_dashboard_has_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace_module, "_SECONDS_BEFORE", 0.0)
    monkeypatch.setattr(pace_module, "_SECONDS_BETWEEN", 0.0)
    root = tmp_path / "study"
    write_live_study(root)
    ports = {"nakt": free_port()}
    stop = threading.Event()
    metrics = root / "runs" / "student" / "metrics.jsonl"
    writer = threading.Thread(target=grow, args=(metrics, stop), daemon=True)
    watch = [sys.executable, "-m", "nakt_dist", "watch", str(root), "--port", str(ports["nakt"])]
    # A SLURM that is here knows nothing of this study's jobs, and would say so.
    environment = os.environ | {"HOME": str(tmp_path), "PATH": str(tmp_path)}
    with contextlib.ExitStack() as stack:
        stack.callback(stop.set)
        watched = stack.enter_context(process(watch, env=environment, stdout=subprocess.PIPE))
        scrape = rank_files(tmp_path / "node", root)
        ports["node"] = stack.enter_context(served(scrape))
        for name in ("dcgm", "slurm"):
            wanted = "DCGM" if name == "dcgm" else "slurm"
            lines = [line for line in STAND_IN.splitlines(keepends=True) if wanted in line]
            content = "".join(lines).encode()
            ports[name] = stack.enter_context(served(lambda content=content: content))
        assert watched.stdout is not None and "watching" in watched.stdout.readline()
        key = tmp_path / ".cache" / "nakt_dist" / "watch.key"
        config = configuration(tmp_path / "prometheus.yml", key, ports)
        port = free_port()
        writer.start()
        command = [
            str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
        ]  # fmt: skip
        stack.enter_context(process(command))
        prometheus = Prometheus(port)
        prometheus.until("count(up == 1) == 4")
        student = 'nakt_run_step{run="study/runs/student"}'
        prometheus.until(f"{student} > 6 and delta({student}[10s]) > 0")
        for query in queries():
            assert prometheus.until(query), query
        joined = prometheus.ask('nakt_run_info{job_id="12_3"}')
        assert [each["metric"]["host"] for each in joined] == ["n1"]
        use = prometheus.ask(next(each for each in queries() if "GPU_UTIL" in each))
        assert [(each["metric"]["run"], each["value"][1]) for each in use] == [
            ("study/runs/student", "87")
        ]


def write_live_study(root: Path) -> None:
    """A study of which a part is done, a part runs, and a part waits in SLURM's queue."""
    write_study(root)
    student = root / "runs" / "student"
    (student / "config.yaml").write_text(
        "recipe: {steps: 1000000, global_batch_size: 8}\ndata: {dataset: shards/thyroid}\n"
    )
    (student / "identity.json").write_text("{}")
    pace = {"step": 3, "images_per_second": 40.0, "step_seconds": 0.2, "data_wait": 0.25}
    (student / "pace.jsonl").write_text(json.dumps(pace | {"gpu_memory_bytes": 5 * 10**9}) + "\n")
    study = StudyFolder(root)
    study.write_state("runs/student", RunState("running", started=5.0, host="n2", job="12_4"))
    study.write_state("tests/student", RunState("queued", host="n2", job="12_5"))


def test_the_configuration_passes_promtool(tmp_path: Path) -> None:
    key = tmp_path / "watch.key"
    key.write_text("0" * 64)
    names = re.findall(r"job_name: (\w+)", (MONITORING / "prometheus.yml").read_text())
    config = configuration(tmp_path / "prometheus.yml", key, dict.fromkeys(names, 1))
    done = subprocess.run(
        ["promtool", "check", "config", str(config)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr
